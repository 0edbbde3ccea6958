"""Moments and durations as clients write them."""

from __future__ import annotations

import pytest

from estiba.model.errors import InvalidArgument
from estiba.model.times import parse_duration, parse_moment

NOW = 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "moment_ns"),
    [
        ("1700000000", NOW),
        ("1700000000.5", NOW + 500_000_000),
        ("1700000000.000000001", NOW + 1),
        ("10m", NOW - 600 * 10**9),
        ("1h30m", NOW - 5400 * 10**9),
        ("1.5s", NOW - 1_500_000_000),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T22:13:20.25", NOW + 250_000_000),
        ("2023-11-15T00:13:20+02:00", NOW),
        ("0001-01-01T00:00:00Z", 1),
        ("1969-12-31T23:59:59Z", 1),
        ("999999h", 1),
    ],
)
def test_moments(text: str, moment_ns: int) -> None:
    assert parse_moment(text, now_ns=NOW) == moment_ns


@pytest.mark.parametrize(
    "text", ["", "soon", "9" * 11, "9" * 400, "1e9", "-5", "nan", "9999-12-31T00:00:00Z", "٣"]
)
def test_no_moments(text: str) -> None:
    with pytest.raises(InvalidArgument, match="since"):
        parse_moment(text, now_ns=NOW, name="since")


def test_durations() -> None:
    assert parse_duration("1m30s") == 90 * 10**9
    assert parse_duration("50ms") == 50 * 10**6
    for text in ("", "5", "1d", "inf", "9" * 30 + "h", "-1s"):
        with pytest.raises(InvalidArgument, match="invalid duration"):
            parse_duration(text)
