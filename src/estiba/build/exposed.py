"""Words of EXPOSE as ports of an image's config. Pure."""

from __future__ import annotations

from estiba.model.errors import InvalidArgument

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_exposed(word: str) -> list[str]:
    """`8080`, `8000-8010/udp` as `port/protocol`; what stands before a colon is the host's and
    does not count, as in Docker. Raises InvalidArgument."""
    ports, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(
            f"invalid containerPort: {word[:64]}: the protocol is one of {', '.join(_PROTOCOLS)}"
        )
    first, _, last = ports.partition("-")
    numbers = [first, last or first]
    if not all(one.isascii() and one.isdecimal() and int(one) < 65536 for one in numbers):
        raise InvalidArgument(f"invalid containerPort: {word[:64]}: ports are 1 to 65535")
    low, high = int(numbers[0]), int(numbers[1])
    if high < low:
        raise InvalidArgument(f"invalid containerPort: {word[:64]}: the range ends below its start")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]
