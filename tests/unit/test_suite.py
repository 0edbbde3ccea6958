"""The suite itself."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_no_folder_of_tests_is_passed_over(request: pytest.FixtureRequest) -> None:
    folders = {path.parent for path in TESTS.rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(TESTS).parts}
    passed_over = request.config.getini("norecursedirs")
    assert not [name for name in names if any(fnmatch(name, one) for one in passed_over)]
    assert "build" in names
