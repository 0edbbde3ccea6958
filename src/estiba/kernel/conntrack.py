"""Connection tracking: forgetting flows by their original destination (ctnetlink).

A UDP flow keeps the translation that it began with for as long as its packets go on.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

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
_CTA_TUPLE_PROTO = 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3


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
            # Each entry says of which family it is, and is deleted as one of that.
            body = entry[: _HEADER.size] + attribute(_CTA_TUPLE_ORIG | NLA_F_NESTED, original)
            for kind in (_CTA_ID, _CTA_ZONE):
                if kind in attributes:
                    body += attribute(kind, attributes[kind])
            try:
                handle.execute(Request(_IPCTNL_MSG_CT_DELETE, 0, body, "delete flow"))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            count += 1
    return count


def _udp_destination(tuple_: bytes) -> int:
    protocol = parse_attributes(parse_attributes(tuple_).get(_CTA_TUPLE_PROTO, b""))
    if protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
        return 0
    return int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
