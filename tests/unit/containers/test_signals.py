"""Signals as users write them."""

from __future__ import annotations

import signal

import pytest

from estiba.containers.signals import is_stop_signal, parse_signal
from estiba.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("Kill", 9),
        ("15", 15),
        ("1", 1),
        ("64", 64),
        ("SIGUSR1", 10),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmin+15", signal.SIGRTMIN + 15),
        ("RTMAX", signal.SIGRTMAX),
        ("SIGRTMAX-14", signal.SIGRTMAX - 14),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "00015", "9.0", "SIG", "SIGSIGTERM", "TERMINATE", "SIG_DFL", "_IGN",
     "RTMIN+16", "RTMAX-15", " TERM", "TERM\n", "²"],
)  # fmt: skip
def test_signals_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        parse_signal(text)


@pytest.mark.parametrize(
    ("number", "configured", "stops"),
    [
        (9, "", True),
        (15, "", True),
        (2, "", False),
        (2, "SIGINT", True),
        (15, "SIGINT", False),
        (9, "SIGINT", True),
        (10, "USR1", True),
    ],
)
def test_which_signals_mean_stop(number: int, configured: str, stops: bool) -> None:
    assert is_stop_signal(number, configured) == stops
