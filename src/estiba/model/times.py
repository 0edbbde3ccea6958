"""Moments and durations as clients write them. Pure: the present moment is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from estiba.model.errors import InvalidArgument

_UNIX = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(f"(?:{_PART.pattern})+")
_UNITS_NS = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "ns": 1,
}
_MAX_NS = 2**63 - 1
_MAX_TEXT = 64


def parse_moment(text: str, *, now_ns: int, name: str = "time") -> int:
    """Nanoseconds since the epoch of a UNIX time, RFC 3339, or a Go duration before `now_ns`.

    What lies before the epoch is its first nanosecond. Raises InvalidArgument that names the
    parameter, for a moment beyond 64 bits too.
    """
    unix = _UNIX.fullmatch(text)
    if unix is not None:
        moment_ns = int(unix[1]) * 10**9 + int(((unix[2] or "") + "0" * 9)[:9])
    elif len(text) <= _MAX_TEXT and _DURATION.fullmatch(text):
        moment_ns = now_ns - parse_duration(text)
    else:
        moment_ns = _parse_date(text, name)
    if moment_ns > _MAX_NS:
        raise InvalidArgument(f"invalid value for {name}: {text[:40]!r}: value out of range")
    return max(1, moment_ns)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration such as 1h30m or 1.5s. Raises InvalidArgument."""
    if len(text) > _MAX_TEXT or not _DURATION.fullmatch(text):
        raise InvalidArgument(f"invalid duration {text[:40]!r}: use for example 1m30s")
    total = sum(int(float(number) * _UNITS_NS[unit]) for number, unit in _PART.findall(text))
    if total > _MAX_NS:
        raise InvalidArgument(f"invalid duration {text[:40]!r}: value out of range")
    return total


def _parse_date(text: str, name: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            f"invalid value for {name}: {text[:40]!r}: use a duration such as 10m, a UNIX time "
            "or RFC 3339"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def go_duration(span_ns: int) -> str:
    """As Go prints a duration: `1h0m5s`, `1.5s`, `20ms`, `0s`."""
    if span_ns == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if span_ns < size * 1000:
            return f"{_fraction(span_ns, size)}{unit}"
    minutes, rest = divmod(span_ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_fraction(rest, 10**9)}s"


def _fraction(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
