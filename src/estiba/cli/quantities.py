"""Sizes, durations and CPU counts as people write them."""

from __future__ import annotations

from estiba.cli.parse import UsageError

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = (
    ("ms", 10**6),
    ("us", 10**3),
    ("ns", 1),
    ("h", 3600 * 10**9),
    ("m", 60 * 10**9),
    ("s", 10**9),
)


def size_bytes(text: str) -> int:
    """`64m`, `1.5g`, `512`, `1GiB`. Raises UsageError."""
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        return int(float(number.removesuffix(unit) if unit else number) * _SIZES[unit])
    except (ValueError, KeyError):
        raise UsageError(f"invalid size: '{text}'") from None


def duration_ns(text: str) -> int:
    """`1m30s`, `500ms`. Raises UsageError."""
    total = 0.0
    rest = text
    while rest:
        digits = 0
        while digits < len(rest) and (rest[digits].isdigit() or rest[digits] == "."):
            digits += 1
        unit = next((item for item in _TIMES if rest[digits:].startswith(item[0])), None)
        if not digits or unit is None:
            raise UsageError(f'time: invalid duration "{text}": use for example 30s or 1m30s')
        total += float(rest[:digits]) * unit[1]
        rest = rest[digits + len(unit[0]) :]
    return int(total)


def cpus_to_nano(text: str) -> int:
    """Raises UsageError."""
    try:
        return int(float(text) * 1_000_000_000)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for --cpus: failed to parse') from None
