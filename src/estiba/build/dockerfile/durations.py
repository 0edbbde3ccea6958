"""Durations as HEALTHCHECK's flags take them: `1h30m`, `1.5s`, `300ms`."""

from __future__ import annotations

import re
from decimal import Decimal

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LARGEST = (1 << 63) - 1


def nanoseconds(text: str) -> int | None:
    """None for what is no duration."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest or len(rest) > 80 or not re.fullmatch(rf"(?:{_PART.pattern})+", rest):
        return None
    total = sum(int(Decimal(number) * _NANOSECONDS[unit]) for number, unit in _PART.findall(rest))
    return sign * total if total <= _LARGEST else None
