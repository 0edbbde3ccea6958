"""The client needs nothing but itself and the standard library, and little of that to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import estiba

_SOURCE = Path(estiba.__file__).parent.parent
_SLOW = ("argparse", "asyncio", "json", "logging", "re", "socket", "subprocess", "typing")


def isolated(program: str) -> str:
    """What a Python without site packages prints."""
    program = f"import sys; sys.path.insert(0, {str(_SOURCE)!r})\n{program}"
    return subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_no_package_is_needed() -> None:
    modules = [
        f"estiba.{folder}.{path.stem}"
        for folder in ("cli", "client")
        for path in sorted((_SOURCE / "estiba" / folder).glob("*.py"))
    ]
    isolated("\n".join(f"import {module}" for module in modules))


def test_listing_imports_nothing_slow() -> None:
    names = isolated("import estiba.cli.main, estiba.cli.lists; print(*sys.modules)").split()
    assert not set(_SLOW) & set(names)
