"""Bodies of a wrong shape are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.api.bodies import console_size, decode_create
from estiba.api.context import Context, decode
from estiba.model.container import RestartPolicy
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize("value", [["x"], "always", 3])
def test_a_part_that_is_no_object(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="RestartPolicy must be an object"):
        decode(value, RestartPolicy, "RestartPolicy")


def test_the_size_of_a_terminal() -> None:
    assert console_size({}) == console_size({"ConsoleSize": []}) == [0, 0]
    assert console_size({"ConsoleSize": [24, 80]}) == [24, 80]
    assert console_size({"ConsoleSize": [2**40, 1]}) == [65535, 1]
    for size in ("24x80", [24], [24, 80, 1], ["24", "80"], [-1, 80], [True, 1], {"h": 1}, 7):
        with pytest.raises(InvalidArgument, match="ConsoleSize"):
            console_size({"ConsoleSize": size})
        with pytest.raises(InvalidArgument, match="ConsoleSize"):
            body = {"Image": "x", "HostConfig": {"ConsoleSize": size}}
            decode_create(body, (1, 51), cgroup_v2=False)


@pytest.mark.parametrize("text", ["x", "1.5", "9" * 400, "٣", " 1"])
def test_numbers_of_a_query(text: str) -> None:
    context = Context(None, {}, {"t": [text], "n": ["-1"]}, (1, 51))  # type: ignore[arg-type]
    assert context.number("n") == -1
    with pytest.raises(InvalidArgument, match="invalid value for t"):
        context.number("t")
