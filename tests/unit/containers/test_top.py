"""Rows of ps that are a container's."""

from __future__ import annotations

import pytest

from estiba.containers.top import select_rows
from estiba.model.errors import InvalidArgument


def test_rows_of_the_container_and_no_others() -> None:
    output = "UID PID CMD\nroot 1 init\nroot 21 sleep 60\nroot 2 sleep\n"
    assert select_rows(output, {21}) == (["UID", "PID", "CMD"], [["root", "21", "sleep 60"]])


def test_what_a_program_calls_itself_is_no_number() -> None:
    """With the command before the pid, its words stand in the pid's column."""
    output = f"COMMAND PID TTY\nsleep 21 ?\nevil {'1' * 5000} 7\n"
    assert select_rows(output, {21}) == (["COMMAND", "PID", "TTY"], [["sleep", "21", "?"]])


def test_without_a_column_of_pids() -> None:
    with pytest.raises(InvalidArgument, match="PID"):
        select_rows("CMD\nsleep\n", {21})
