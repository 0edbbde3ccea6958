"""Pages are whole: those of packages name every module, the index of decisions every one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import estiba

PACKAGE = Path(estiba.__file__).parent
PAGES = sorted(PACKAGE.rglob("README.md"))
DECISIONS = Path(__file__).parents[2] / "docs" / "adr"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.parent.relative_to(PACKAGE)))
def test_a_page_names_all_modules(page: Path) -> None:
    text = page.read_text()
    assert "nvariants**" in text or "## Invariants" in text
    package = page.parent
    named = {word.rpartition("/")[2] for word in re.findall(r"`([\w./]+\.py)`", text)}
    present = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert not present - named, "modules that the page does not name"
    # A page may also name modules of other packages, by their path.
    own = set(re.findall(r"`(\w+\.py)`", text))
    assert all(list(package.rglob(name)) for name in own)


def test_all_packages_of_the_daemon_have_a_page() -> None:
    assert {page.parent.name for page in PAGES} >= {
        "api", "build", "containers", "daemon", "distribution", "dns", "http1", "images",
        "kernel", "managed", "network", "plugins", "policy", "registry", "runtime", "security",
        "storage", "store", "volumes",
    }  # fmt: skip


def test_decisions_are_numbered_once_and_listed() -> None:
    files = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert len({name[:4] for name in files}) == len(files)
    index = (DECISIONS / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == files
    for name in files:
        assert (DECISIONS / name).read_text().startswith(f"# {name[:4]}: ")
