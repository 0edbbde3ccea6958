"""Netlink sockets: requests in batches, acknowledgements, dumps. Knows no message family.

A request is packed once and sent as it is; several go out in one `sendmsg` and are answered
one by one, so that a batch costs one round trip. The kernel goes on after a request that
failed: who sends a batch undoes it as a whole. Errors keep errno and the kernel's own words
(extended acknowledgement, Linux 4.12).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_ECHO = 0x08
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000

_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_RECEIVE_BYTES = 1 << 16
_MAX_DUMPS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """One message; `what` names it in errors, for example ``add link estiba0``."""

    type: int
    flags: int
    body: bytes
    what: str


class NetlinkError(OSError):
    """The kernel refused a request; `strerror` says which one and why."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def parse_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by kind, flags stripped; the last one wins."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


class NetlinkSocket:
    """A socket in the network namespace of the thread that makes it, usable from any thread."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, *requests: Request) -> None:
        """Sends all requests at once and waits until each is acknowledged.

        Raises NetlinkError for the first that the kernel refused; the others were tried too.
        """
        with self._lock:
            waiting = self._send(requests, NLM_F_REQUEST | NLM_F_ACK)
            failure: NetlinkError | None = None
            while waiting:
                for _kind, _flags, sequence, message in self._receive():
                    request = waiting.pop(sequence, None)
                    if request is not None and failure is None:
                        failure = _failure(request, _flags, message)
        if failure is not None:
            raise failure

    def execute_batch(
        self, begin: Request, requests: Sequence[Request], end: Request
    ) -> list[bytes]:
        """A transaction of nfnetlink: all or none. Only the last of `requests` asks for an answer.

        Returns the bodies of what the kernel echoes, where a request asks for that. Raises
        NetlinkError for the first that it refused.
        """
        echoed: list[bytes] = []
        with self._lock:
            waiting = self._send((begin, *requests, end), NLM_F_REQUEST)
            last = next(number for number, each in waiting.items() if each is requests[-1])
            failure: NetlinkError | None = None
            while last in waiting:
                for kind, flags, sequence, message in self._receive():
                    if kind != _NLMSG_ERROR:
                        # The kernel says the ruleset's new generation too.
                        if sequence in waiting and waiting[sequence].type == kind:
                            echoed.append(message)
                        continue
                    request = waiting.pop(sequence, None)
                    if request is None:
                        continue
                    failure = failure or _failure(request, flags, message)
                    if request is begin and failure is not None:
                        raise failure
        if failure is not None:
            raise failure
        return echoed

    def query(self, request: Request) -> bytes:
        """The body of the single answer to `request`. Raises NetlinkError."""
        with self._lock:
            waiting = self._send((request,), NLM_F_REQUEST)
            while True:
                for kind, flags, sequence, message in self._receive():
                    if sequence not in waiting:
                        continue
                    if kind != _NLMSG_ERROR:
                        return message
                    raise _failure(request, flags, message) or NetlinkError(
                        errno.ENODATA, f"{request.what}: no answer"
                    )

    def dump(self, request: Request) -> list[bytes]:
        """The bodies of all answers, a consistent list. Raises NetlinkError.

        A dump that the kernel marks as interrupted by a change is taken again.
        """
        for _ in range(_MAX_DUMPS):
            with self._lock:
                bodies = self._dump_once(request)
            if bodies is not None:
                return bodies
        raise NetlinkError(errno.EINTR, f"{request.what}: changes while it is read")

    def _dump_once(self, request: Request) -> list[bytes] | None:
        waiting = self._send((request,), NLM_F_REQUEST | NLM_F_DUMP)
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, message in self._receive():
                if sequence not in waiting:
                    continue
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    return None if interrupted else bodies
                if kind == _NLMSG_ERROR:
                    raise _failure(request, flags, message) or NetlinkError(
                        errno.ENODATA, f"{request.what}: no answer"
                    )
                bodies.append(message)

    def _send(self, requests: tuple[Request, ...], flags: int) -> dict[int, Request]:
        waiting: dict[int, Request] = {}
        packed: list[bytes] = []
        for request in requests:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            waiting[self._sequence] = request
            length = _HEADER.size + len(request.body)
            packed.append(
                _HEADER.pack(length, request.type, request.flags | flags, self._sequence, 0)
            )
            packed.append(request.body + b"\0" * (-length % 4))
        self._socket.sendmsg(packed, [], 0, (0, 0))
        return waiting

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, sequence number and body of each message in the next datagram."""
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _failure(request: Request, flags: int, message: bytes) -> NetlinkError | None:
    """What an acknowledgement says: nothing, or why `request` failed."""
    (negative,) = _ERROR.unpack_from(message)
    if negative == 0:
        return None
    reason = os.strerror(-negative)
    if flags & _NLM_F_ACK_TLVS:
        offset = _ERROR.size + _HEADER.size
        if not flags & _NLM_F_CAPPED:
            offset = _ERROR.size + struct.unpack_from("=I", message, _ERROR.size)[0]
        words = parse_attributes(message, offset).get(_NLMSGERR_ATTR_MSG)
        if words:
            reason = f"{words.rstrip(bytes(1)).decode(errors='replace')} ({reason})"
    return NetlinkError(-negative, f"{request.what}: {reason}")
