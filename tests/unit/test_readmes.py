"""The page of each package names every module of it, and none that is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import estiba

PAGES = sorted(Path(estiba.__file__).parent.glob("*/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
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
        "api", "containers", "daemon", "http1", "images", "kernel", "network", "registry",
        "runtime", "security", "storage", "store", "volumes",
    }  # fmt: skip
