"""nftables changes made by hand: one message to the kernel, without libnftables.

For a table of a few rules in many namespaces, by many threads at once: nothing says that contexts
of the library may be used side by side. 0.17 ms instead of 0.28. One batch is one transaction.
Values in registers are in network byte order; register 1 is used throughout.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from estiba.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NetlinkError,
    attribute,
    nested,
    text,
)

AF_INET = socket.AF_INET
HOOK_LOCAL_OUT = 3

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _NEWCHAIN, _NEWRULE, _DELRULE = 0, 3, 6, 8
_NLM_F_APPEND = 0x800
_NLMSG_ERROR = 2
_REGISTER = 1
_REG_VERDICT = 0
_ACCEPT = 1
_RETURN = 0xFFFFFFFB
_CMP_EQ, _CMP_NEQ = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_OIF, _META_IIFNAME, _META_OIFNAME, _META_L4PROTO = 5, 6, 7, 16
_LINK_BYTES = 16
_CSUM_INET = 1

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("!BBH")


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _is(value: bytes, operation: int = _CMP_EQ) -> bytes:
    return _expression(
        "cmp", _u32(1, _REGISTER), _u32(2, operation), nested(3, attribute(1, value))
    )


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload", _u32(1, _REGISTER), _u32(2, base), _u32(3, offset), _u32(4, length)
    )


def leaves_not_by(interface_index: int) -> bytes:
    """`oif != INDEX`"""
    meta = _expression("meta", _u32(2, _META_OIF), _u32(1, _REGISTER))
    return meta + _is(struct.pack("=I", interface_index), _CMP_NEQ)


def comes_by(name: str) -> bytes:
    """`iifname NAME`, where the last character may be `*`"""
    return _link_name(_META_IIFNAME, name)


def leaves_by(name: str) -> bytes:
    """`oifname NAME`, where the last character may be `*`"""
    return _link_name(_META_OIFNAME, name)


def _link_name(key: int, name: str) -> bytes:
    start = name.removesuffix("*").encode()
    value = start if name.endswith("*") else start.ljust(_LINK_BYTES, b"\0")
    return _expression("meta", _u32(2, key), _u32(1, _REGISTER)) + _is(value)


def network_header(offset: int, value: bytes) -> bytes:
    """`@nh,OFFSET,LENGTH VALUE`, offset in bytes"""
    return _load(_NETWORK_HEADER, offset, len(value)) + _is(value)


def protocol(number: int) -> bytes:
    """`meta l4proto NUMBER`"""
    return _expression("meta", _u32(2, _META_L4PROTO), _u32(1, _REGISTER)) + _is(bytes((number,)))


def transport_header(offset: int, value: bytes) -> bytes:
    """`@th,OFFSET,LENGTH VALUE`, offset in bytes"""
    return _load(_TRANSPORT_HEADER, offset, len(value)) + _is(value)


def set_transport_header(offset: int, value: bytes, checksum_offset: int) -> bytes:
    """`@th,OFFSET,LENGTH set VALUE`; keeps the checksum at `checksum_offset` true."""
    immediate = _expression("immediate", _u32(1, _REGISTER), nested(2, attribute(1, value)))
    return immediate + _expression(
        "payload",
        _u32(5, _REGISTER),
        _u32(2, _TRANSPORT_HEADER),
        _u32(3, offset),
        _u32(4, len(value)),
        _u32(6, _CSUM_INET),
        _u32(7, checksum_offset),
    )


def counter() -> bytes:
    return _expression("counter")


def accept() -> bytes:
    return _verdict(_ACCEPT)


def leave_chain() -> bytes:
    """`return`"""
    return _verdict(_RETURN)


def _verdict(code: int) -> bytes:
    return _expression("immediate", _u32(1, _REG_VERDICT), nested(2, nested(2, _u32(1, code))))


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A base chain of type filter that lets pass what no rule stops."""

    name: str
    hook: int
    priority: int
    rules: list[bytes]


def write_table(table: str, chains: list[FilterChain], family: int = AF_INET) -> None:
    """Makes the table and its chains, with these rules in place of any that they had.

    In the network namespace of the calling thread. Raises NetlinkError, and then nothing changed.
    """
    messages = [(_NEWTABLE, NLM_F_CREATE, text(1, table) + _u32(2, 0))]
    for chain in chains:
        priority = attribute(2, struct.pack("!i", chain.priority))
        base = text(3, chain.name) + nested(4, _u32(1, chain.hook), priority) + text(7, "filter")
        place = text(1, table) + text(2, chain.name)
        messages.append((_NEWCHAIN, NLM_F_CREATE, text(1, table) + base))
        messages.append((_DELRULE, 0, place))
        messages += [
            (_NEWRULE, NLM_F_CREATE | _NLM_F_APPEND, place + nested(4, rule))
            for rule in chain.rules
        ]
    edge = _GENERIC.pack(0, 0, _SUBSYSTEM)
    batch = [_message(_BATCH_BEGIN, 0, edge, 0)]
    for number, (kind, flags, body) in enumerate(messages, 1):
        generic = _GENERIC.pack(family, 0, 0)
        batch.append(_message(_SUBSYSTEM << 8 | kind, flags, generic + body, number))
    batch.append(_message(_BATCH_END, 0, edge, len(batch)))
    _transact(b"".join(batch), f"write table {table}")


def _message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body


def _transact(batch: bytes, what: str) -> None:
    """The kernel has done all of it when the call returns; only errors are answered."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER) as handle:
        handle.bind((0, 0))
        handle.sendto(batch, (0, 0))
        try:
            answer = handle.recv(1 << 16)
        except BlockingIOError:
            return
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    (negative,) = struct.unpack_from("=i", answer, _HEADER.size)
    if kind == _NLMSG_ERROR and negative:
        raise NetlinkError(-negative, f"{what}: {os.strerror(-negative)}")
