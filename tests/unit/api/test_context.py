"""What of a body or a query no system call could take is refused before anything reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from estiba.api.context import checked, parse_query
from estiba.model.errors import InvalidArgument


def test_nulls_are_left_out() -> None:
    assert checked({"a": None, "b": [1, {"c": None}], "d": "é\n"}, 9) == {"b": [1, {}], "d": "é\n"}


@pytest.mark.parametrize(
    "text",
    [
        '{"Env": ["A=\\u0000"]}',
        '{"Labels": {"a\\u0000": "b"}}',
        '{"Cmd": ["\\ud800"]}',
        '{"Memory": 99999999999999999999}',
        '{"Memory": -99999999999999999999}',
        '{"a": {"b": {"c": {"d": {}}}}}',
    ],
)
def test_what_no_system_call_takes(text: str) -> None:
    value: Any = json.loads(text)
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        checked(value, 4)


def test_a_query_has_no_nul() -> None:
    assert parse_query("path=%2Fa%20b") == {"path": ["/a b"]}
    with pytest.raises(InvalidArgument, match="NUL"):
        parse_query("path=%2Fa%00b")
