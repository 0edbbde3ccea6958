"""Connection tracking: forgetting flows (ctnetlink).

A UDP flow keeps the translation that it began with for as long as its packets go on.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from estiba.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    parse_attributes,
)

_IPCTNL_MSG_CT_GET, _IPCTNL_MSG_CT_DELETE = (1 << 8) | 1, (1 << 8) | 2
_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE = 1, 12, 18
_CTA_TUPLE_REPLY = 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V6_SRC = 1, 3
_CTA_FILTER, _CTA_FILTER_ORIG, _CTA_FILTER_REPLY = 25, 1, 2
_CTA_FILTER_F_IP_SRC = 1
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3


_HEADER = struct.Struct("=BBH")


def forget_udp_flows(ports: Collection[int]) -> int:
    """Forgets the UDP flows that went to one of `ports` at first; returns how many.

    Raises NetlinkError.
    """
    everything = _HEADER.pack(socket.AF_UNSPEC, 0, 0)
    count = 0
    with NetlinkSocket(NETLINK_NETFILTER) as handle:
        for entry in handle.dump(Request(_IPCTNL_MSG_CT_GET, 0, everything, "list flows")):
            attributes = parse_attributes(entry, _HEADER.size)
            original = attributes[_CTA_TUPLE_ORIG]
            if _udp_destination(original) not in ports:
                continue
            _forget(handle, entry, attributes)
            count += 1
    return count


def _udp_destination(tuple_: bytes) -> int:
    protocol = parse_attributes(parse_attributes(tuple_).get(_CTA_TUPLE_PROTO, b""))
    if protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
        return 0
    return int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection: who began, whom they asked, and who answers behind a translation."""

    protocol: int
    source: IPv4Address | IPv6Address
    asked: IPv4Address | IPv6Address
    asked_port: int
    answers: IPv4Address | IPv6Address
    answering_port: int


def forget_flows(is_wanted: Callable[[Flow], bool]) -> int:
    """Forgets all flows that `is_wanted` says; returns how many.

    The next packet of one counts as the first of a connection. Raises NetlinkError.
    """
    count = 0
    with NetlinkSocket(NETLINK_NETFILTER) as handle:
        everything = _HEADER.pack(socket.AF_UNSPEC, 0, 0)
        for entry in handle.dump(Request(_IPCTNL_MSG_CT_GET, 0, everything, "list flows")):
            attributes = parse_attributes(entry, _HEADER.size)
            flow = _flow(attributes)
            if flow is not None and is_wanted(flow):
                _forget(handle, entry, attributes)
                count += 1
    return count


def forget_flows_of(addresses: Iterable[IPv4Address | IPv6Address]) -> int:
    """Forgets all flows that one of `addresses` began or answers; returns how many.

    The kernel looks for them since Linux 5.8, and is not trusted to. Raises NetlinkError.
    """
    count = 0
    with NetlinkSocket(NETLINK_NETFILTER) as handle:
        for address in addresses:
            for request in _dumps_of(address):
                for entry in handle.dump(request):
                    attributes = parse_attributes(entry, _HEADER.size)
                    flow = _flow(attributes)
                    if flow is not None and address in (flow.source, flow.answers):
                        _forget(handle, entry, attributes)
                        count += 1
    return count


def _dumps_of(address: IPv4Address | IPv6Address) -> Iterator[Request]:
    """Flows whose first packet, or whose answer, comes from the address."""
    family, kind = (
        (socket.AF_INET, _CTA_IP_V4_SRC)
        if address.version == 4
        else (socket.AF_INET6, _CTA_IP_V6_SRC)
    )
    source = attribute(_CTA_TUPLE_IP | NLA_F_NESTED, attribute(kind, address.packed))
    for direction, flags in (
        (_CTA_TUPLE_ORIG, (_CTA_FILTER_F_IP_SRC, 0)),
        (_CTA_TUPLE_REPLY, (0, _CTA_FILTER_F_IP_SRC)),
    ):
        wanted = b"".join(
            attribute(kind, struct.pack("=I", each))
            for kind, each in zip((_CTA_FILTER_ORIG, _CTA_FILTER_REPLY), flags, strict=True)
        )
        body = _HEADER.pack(family, 0, 0) + attribute(direction | NLA_F_NESTED, source)
        body += attribute(_CTA_FILTER | NLA_F_NESTED, wanted)
        yield Request(_IPCTNL_MSG_CT_GET, 0, body, "list flows of an address")


def _flow(attributes: dict[int, bytes]) -> Flow | None:
    original = _ends(attributes.get(_CTA_TUPLE_ORIG, b""))
    reply = _ends(attributes.get(_CTA_TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    number, source, asked, _, asked_port = original
    _, answers, _, answering_port, _ = reply
    return Flow(number, source, asked, asked_port, answers, answering_port)


_Ends = tuple[int, IPv4Address | IPv6Address, IPv4Address | IPv6Address, int, int]


def _ends(tuple_: bytes) -> _Ends | None:
    """Protocol, addresses and ports of one direction."""
    parts = parse_attributes(tuple_)
    addresses = parse_attributes(parts.get(_CTA_TUPLE_IP, b""))
    protocol = parse_attributes(parts.get(_CTA_TUPLE_PROTO, b""))
    found = [addresses[kind] for kind in sorted(addresses) if len(addresses[kind]) in (4, 16)]
    if len(found) != 2 or _CTA_PROTO_NUM not in protocol:
        return None
    ports = [
        int.from_bytes(protocol.get(kind, b""), "big")
        for kind in (_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT)
    ]
    source, target = (ip_address(each) for each in found)
    return protocol[_CTA_PROTO_NUM][0], source, target, ports[0], ports[1]


def _forget(handle: NetlinkSocket, entry: bytes, attributes: dict[int, bytes]) -> None:
    """Each entry says of which family it is, and is deleted as one of that."""
    original = attributes[_CTA_TUPLE_ORIG]
    body = entry[: _HEADER.size] + attribute(_CTA_TUPLE_ORIG | NLA_F_NESTED, original)
    for kind in (_CTA_ID, _CTA_ZONE):
        if kind in attributes:
            body += attribute(kind, attributes[kind])
    try:
        handle.execute(Request(_IPCTNL_MSG_CT_DELETE, 0, body, "delete flow"))
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
