"""Words of EXPOSE as ports of an image's config. Pure."""

from __future__ import annotations

from estiba.model.errors import InvalidArgument

_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535


def parse_exposed(word: str) -> list[str]:
    """`8080`, `8000-8010/udp` as `port/protocol`; what stands before a colon is the host's and
    does not count, as in Docker. Raises InvalidArgument."""
    ports, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(
            f"invalid containerPort: {word[:64]}: the protocol is one of {', '.join(_PROTOCOLS)}"
        )
    first, dash, last = ports.partition("-")
    low, high = _port(first), _port(last if dash else first)
    if low is None or high is None:
        raise InvalidArgument(f"invalid containerPort: {word[:64]}: ports are 0 to {_MAX_PORT}")
    if high < low:
        raise InvalidArgument(f"invalid containerPort: {word[:64]}: the range ends below its start")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def _port(text: str) -> int | None:
    is_one = text.isascii() and text.isdecimal() and len(text) <= 8 and int(text) <= _MAX_PORT
    return int(text) if is_one else None
