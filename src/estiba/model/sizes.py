"""Amounts of bytes as people write them."""

from __future__ import annotations

import re

from estiba.model.errors import InvalidArgument

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_POWERS = "kmgtp"


def parse_bytes(text: str) -> int:
    """`10GB` and `10G` are decimal, `10GiB` is binary. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size {text[:32]!r}: write 512MB, 10GB or 1.5GiB")
    number, letter, binary = match.groups()
    power = _POWERS.index(letter.lower()) + 1 if letter else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def parse_ram_bytes(text: str) -> int:
    """`10G` and `10GB` are binary, as Docker takes sizes of memory and volumes.

    Raises InvalidArgument.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text[:32]}': write 512m or 10G")
    number, letter, _ = match.groups()
    power = _POWERS.index(letter.lower()) + 1 if letter else 0
    return int(float(number) * 1024**power)
