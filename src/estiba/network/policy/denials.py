"""Packets that a policy denied, told in the daemon's log and as events, by the container's name.

Every packet is counted in the kernel; of a flood only the first are told: the rules let a few a
second through to here, and of those each container has a few a minute.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from estiba.kernel.nflog import LoggedPacket, PacketLog
from estiba.model.errors import Unavailable
from estiba.model.event import Event, EventType
from estiba.network.policy.compile import LOG_PREFIX, Point
from estiba.network.policy.egress import Address

_log = logging.getLogger(__name__)

BURST = 10.0
REFILL_PER_S = 0.2
_MAX_BUCKETS = 10_000
_GROUPS = 32
_ETHERTYPE_IP, _ETHERTYPE_IPV6 = 0x0800, 0x86DD
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
_WITH_PORTS = (6, 17, 132)


@dataclass(frozen=True, slots=True)
class Header:
    """Who sent a packet to whom; `port` is the destination's, 0 where there is none."""

    source: Address
    target: Address
    protocol: str
    port: int = 0

    @property
    def service(self) -> str:
        return f"{self.port}/{self.protocol}" if self.port else self.protocol


def parse_header(packet: LoggedPacket) -> Header | None:
    """None for what is no IP, or too short."""
    data = packet.payload
    if packet.ethertype == _ETHERTYPE_IP and len(data) >= 20:
        number, start = data[9], (data[0] & 15) * 4
        later = struct.unpack_from("!H", data, 6)[0] & 0x1FFF
        source, target = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        return Header(source, target, _name(number), 0 if later else _port(number, data, start))
    if packet.ethertype == _ETHERTYPE_IPV6 and len(data) >= 40:
        number = data[6]
        there = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        return Header(*there, _name(number), _port(number, data, 40))
    return None


def _name(number: int) -> str:
    return _PROTOCOLS.get(number, f"protocol {number}")


def _port(number: int, data: bytes, start: int) -> int:
    if number not in _WITH_PORTS or len(data) < start + 4:
        return 0
    return int.from_bytes(data[start + 2 : start + 4], "big")


class Denials:
    """Call `seen` for each packet, from one thread."""

    def __init__(
        self,
        point: Callable[[str], Point | None],
        name_of: Callable[[Address], str],
        emit: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name_of` gives the container that has an address, or nothing."""
        self._point = point
        self._name_of = name_of
        self._emit = emit
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def seen(self, packet: LoggedPacket) -> None:
        point = self._point(packet.prefix.removeprefix(LOG_PREFIX).strip())
        header = parse_header(packet)
        if point is None or header is None or not self._may_tell(point.member.container_id):
            return
        peer = header.source if point.direction == "ingress" else header.target
        name = self._name_of(peer)
        shown = f"{name} ({peer})" if name else str(peer)
        sides = (shown, point.member.name)
        source, target = sides if point.direction == "ingress" else sides[::-1]
        _log.warning(
            "policy of network %s denied %s → %s %s: %s",
            point.member.network_name,
            source,
            target,
            header.service,
            point.rule,
        )
        self._emit(_event(point, header, peer, name))

    def _may_tell(self, container_id: str) -> bool:
        """A bucket of tokens for each container."""
        now = self._clock()
        tokens, then = self._buckets.get(container_id, (BURST, now))
        tokens = min(BURST, tokens + (now - then) * REFILL_PER_S)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.clear()
        self._buckets[container_id] = (max(0.0, tokens - 1), now)
        return tokens >= 1


def open_log(table: str, denials: Denials) -> PacketLog | None:
    """The packets that the rules of an engine's table log; None, with a warning, without them."""
    first = 1000 + int(hashlib.sha256(table.encode()).hexdigest()[:4], 16) % 60000
    try:
        return PacketLog(range(first, first + _GROUPS), denials.seen)
    except (Unavailable, OSError) as error:
        _log.warning("packets that policies deny are counted, but not logged: %s", error)
        return None


def _event(point: Point, header: Header, peer: Address, name: str) -> Event:
    attributes = {
        "name": point.member.network_name,
        "container": point.member.container_id,
        "containerName": point.member.name,
        "direction": point.direction,
        "peer": str(peer),
        "protocol": header.protocol,
        "rule": point.rule,
    }
    if header.port:
        attributes["port"] = str(header.port)
    if name:
        attributes["peerName"] = name
    return Event(EventType.NETWORK, "deny", point.member.network_id, attributes)
