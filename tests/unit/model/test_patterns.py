from __future__ import annotations

import time

import pytest

from estiba.model.errors import InvalidArgument
from estiba.model.patterns import matches


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("web", "my-web-1", True),
        ("^web$", "my-web", False),
        ("^proj_.*_data$", "proj_one_data", True),
        ("(db|web)_[0-9]", "x_db_7", True),
        ("[", "a[b", True),
        ("x" * 2000, "x", False),
    ],
)
def test_patterns(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) is found


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)" * 30 + "$", "a?" * 40 + "a" * 40, "a*" * 20 + "b", r"(a*)\1*b"]
)
def test_what_could_take_for_ever_is_refused(pattern: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InvalidArgument, match="could take long"):
        matches(pattern, "a" * 200 + "!")
    assert time.monotonic() - begun < 1


def test_the_worst_that_is_allowed_takes_little() -> None:
    begun = time.process_time()
    assert not matches("a.*a.*b", "a" * 256)
    assert time.process_time() - begun < 2
