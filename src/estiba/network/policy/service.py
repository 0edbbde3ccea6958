"""What a rule says of protocol and ports: everything, a protocol, or ports of one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from estiba.model.errors import InvalidArgument

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """No protocol: all of them. No ports (`low` is 0): all of the protocol's."""

    protocol: str = ""
    low: int = 0
    high: int = 0

    def matches(self, protocol: str, port: int) -> bool:
        if self.protocol and self.protocol != protocol:
            return False
        return self.low == 0 or self.low <= port <= self.high

    def __str__(self) -> str:
        if not self.low:
            return self.protocol
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{ports}/{self.protocol}"


EVERYTHING = Service()


def parse_service(text: str) -> Service:
    """`443`, `443/udp`, `8000-8010/tcp`, or a protocol alone; TCP is meant where none is named.

    Raises InvalidArgument.
    """
    ports, slash, protocol = text.lower().partition("/")
    if not slash and ports in PROTOCOLS:
        return Service(ports)
    found = _PORTS.fullmatch(ports)
    protocol = protocol if slash else "tcp"
    if found is None or protocol not in PROTOCOLS or protocol == "icmp":
        raise InvalidArgument(
            f"invalid port {text[:64]!r}: write PORT[-PORT][/tcp|udp|sctp], or tcp, udp, sctp, icmp"
        )
    low = int(found[1])
    high = int(found[2] or low)
    if not 1 <= low <= high <= 65535:
        raise InvalidArgument(f"invalid port {text[:64]!r}: from 1 to 65535, the lower one first")
    return Service(protocol, low, high)


def nft_matches(services: Iterable[Service]) -> list[str]:
    """Expressions of the nft language, of which one must be true; an empty one always is."""
    ports = [service for service in services if service.low]
    whole = sorted({service.protocol for service in services if not service.low})
    if "" in whole:
        return [""]
    found = []
    if ports:
        elements = ", ".join(f"{s.protocol} . {_range(s)}" for s in _apart(ports))
        found.append(f"meta l4proto . th dport {{ {elements} }} ")
    for protocol in whole:
        name = "{ icmp, ipv6-icmp }" if protocol == "icmp" else protocol
        found.append(f"meta l4proto {name} ")
    return found


def _range(service: Service) -> str:
    return str(service.low) if service.low == service.high else f"{service.low}-{service.high}"


def _apart(services: Iterable[Service]) -> list[Service]:
    """The same ports with no two ranges that overlap: intervals of a set may not."""
    merged: list[Service] = []
    for service in sorted(services):
        last = merged[-1] if merged else None
        if last and last.protocol == service.protocol and service.low <= last.high + 1:
            merged[-1] = Service(last.protocol, last.low, max(last.high, service.high))
        else:
            merged.append(service)
    return merged
