"""Hardware addresses of endpoints and bridges."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from estiba.model.errors import InvalidArgument


def random_mac(source: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A locally administered unicast address."""
    octets = bytearray(source(6))
    octets[0] = (octets[0] & 0xFC) | 0x02
    return octets.hex(":")


def check_mac(text: str) -> str:
    """Returns `text` in the kernel's form. Raises InvalidArgument for no unicast MAC."""
    if not text:
        return ""
    try:
        octets = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6 or octets[0] & 1 or octets == bytes(6):
        raise InvalidArgument(f"invalid MAC address {text[:32]!r}: use six octets, unicast")
    return octets.hex(":")
