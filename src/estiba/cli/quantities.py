"""Sizes, durations, times and CPU counts as people write them. All raise ValueError."""

from __future__ import annotations

import time

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_TIMES = (
    ("ns", 1),
    ("us", 10**3),
    ("µs", 10**3),
    ("ms", 10**6),
    ("s", 10**9),
    ("m", 60 * 10**9),
    ("h", 3600 * 10**9),
)


def integer(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def size_bytes(text: str) -> int:
    """`64m`, `1.5g`, `512`, `1GiB`; -1 where that means no limit."""
    if text == "-1":
        return -1
    number = text.lower().removesuffix("b").removesuffix("i").rstrip()
    unit = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(unit).rstrip() if unit else number
    if unit not in _SIZES or not digits.replace(".", "", 1).isdecimal():
        raise ValueError(f"invalid size: '{text}'")
    return int(float(digits) * _SIZES[unit])


def duration_ns(text: str) -> int:
    """`1m30s`, `500ms`, `0`; Go's durations."""
    wrong = ValueError(f'time: invalid duration "{text}"')
    rest = text.removeprefix("-").removeprefix("+")
    if rest == "0":
        return 0
    if not rest:
        raise wrong
    total = 0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = len(rest) - len(rest.lstrip("nuµmsh"))
        unit = next((size for name, size in _TIMES if name == rest[:letters]), None)
        if unit is None and rest[:letters]:
            raise ValueError(f'time: unknown unit "{rest[:letters]}" in duration "{text}"')
        if unit is None or not number.replace(".", "", 1).isdecimal():
            raise wrong
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * unit
        total += int(fraction or "0") * unit // 10 ** len(fraction)
        rest = rest[letters:]
    return -total if text.startswith("-") else total


def nano_cpus(text: str) -> int:
    """`1.5` CPUs in billionths."""
    whole, _, fraction = text.removeprefix("-").partition(".")
    if not (whole + fraction).isdecimal():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    total = int(whole or "0") * 10**9 + int(f"{fraction:0<9}"[:9])
    # The daemon says what the host has.
    return -total if text.startswith("-") else total


CONVERTERS = {"N": integer, "BYTES": size_bytes, "TIME": duration_ns, "CPUS": nano_cpus}


def timestamp(text: str) -> str:
    """What the API takes for `--since` and `--until`: seconds since 1970, with a fraction.

    The user writes that, a duration before now, or RFC 3339 with parts left out, in local time
    unless it names a zone.
    """
    if text.replace(".", "", 1).isdecimal():
        return text
    try:
        return _seconds(time.time_ns() - duration_ns(text))
    except ValueError:
        pass
    from datetime import datetime

    for form in ("%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dZ"):
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        return _seconds(int(moment.timestamp()) * 10**9)
    head, dot, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    fraction, zone = (tail[:digits], tail[digits:]) if dot else ("", "")
    try:
        whole = int(datetime.fromisoformat(head + zone).timestamp())
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    return _seconds(whole * 10**9 + int(f"{fraction:0<9}"[:9]))


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
