"""Bounds of limits that containers and steps of builds share."""

from __future__ import annotations

import pytest

from estiba.model.errors import InvalidArgument
from estiba.model.limits import check_cpu_set, check_memory_nodes, parse_set


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", set()),
        ("0", {0}),
        ("0-2,7", {0, 1, 2, 7}),
        ("3-3", {3}),
        ("1-0", None),
        ("1,", None),
        ("-1", None),
        ("a", None),
    ],
)
def test_sets_of_processors(text: str, numbers: set[int] | None) -> None:
    assert parse_set(text) == numbers


def test_sets_lie_within_the_hosts() -> None:
    check_cpu_set("0,2-3", 4)
    check_memory_nodes("", "0")
    with pytest.raises(InvalidArgument, match=r"requested 0-4, available: 0-3"):
        check_cpu_set("0-4", 4)
    with pytest.raises(InvalidArgument, match=r"requested 1, available: 0$"):
        check_cpu_set("1", 1)
    with pytest.raises(InvalidArgument, match=r"memory nodes are not .* 2, available: 0-1,3"):
        check_memory_nodes("2", "0-1,3")
    with pytest.raises(InvalidArgument, match="Invalid value ٣ for cpuset cpus"):
        check_cpu_set("٣", 4)
