"""What of a body or a query no system call could take is refused before anything reads it."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from estiba.api.context import checked, parse_query, progress
from estiba.model.errors import DataLoss, InvalidArgument


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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataLoss("the layer is damaged"), "the layer is damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: make room"),
        (ValueError("a secret of ours"), "internal error: the daemon's log has the details"),
    ],
)
async def test_an_error_after_the_head_is_a_line_of_progress(error: Exception, words: str) -> None:
    async def work() -> AsyncIterator[dict[str, str]]:
        yield {"stream": "begun\n"}
        raise error

    first, last = [json.loads(line) async for line in progress(work())]
    assert first == {"stream": "begun\n"}
    assert last["error"].startswith(words)
    assert last["errorDetail"] == {"message": last["error"]}


async def test_a_client_that_has_gone_is_told_nothing() -> None:
    async def work() -> AsyncIterator[dict[str, str]]:
        yield {}
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        _ = [line async for line in progress(work())]
