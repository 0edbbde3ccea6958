"""Packets that `log group N` rules of nftables hand out (nfnetlink_log), read in a thread.

The rules themselves must limit how many: what the socket cannot hold the kernel drops.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from estiba.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    attribute,
    parse_attributes,
)
from estiba.model.errors import Unavailable

_ULOG = 4 << 8
_MSG_PACKET, _MSG_CONFIG = _ULOG | 0, _ULOG | 1
_NLMSG_ERROR = 2
_CFG_CMD, _CFG_MODE = 1, 2
_CMD_BIND = 1
_COPY_PACKET = 2
_PACKET_HDR, _PAYLOAD, _PREFIX = 1, 9, 10
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")
_MODE = struct.Struct("!IBx")
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """`payload` begins with the network header; `ethertype` says which."""

    prefix: str
    ethertype: int
    payload: bytes


class PacketLog:
    """Holds one group of the network namespace that it was made in, and calls back for packets."""

    def __init__(
        self, groups: Iterable[int], seen: Callable[[LoggedPacket], None], *, copy_bytes: int = 128
    ) -> None:
        """Takes the first of `groups` that nobody else has.

        Raises Unavailable when there is none, or the kernel has no nfnetlink_log.
        """
        self._seen = seen
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        try:
            self._socket.bind((0, 0))
            self.group = self._take(groups, copy_bytes)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="packet-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._socket.close()
        os.close(self._stop)

    def _take(self, groups: Iterable[int], copy_bytes: int) -> int:
        reason = "no group was named"
        for group in groups:
            try:
                self._configure(group, attribute(_CFG_CMD, bytes([_CMD_BIND])))
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno in (errno.EBUSY, errno.EPERM, errno.EINVAL):
                    continue
                break
            self._configure(group, attribute(_CFG_MODE, _MODE.pack(copy_bytes, _COPY_PACKET)))
            return group
        raise Unavailable(f"cannot read packets that nftables logs (nfnetlink_log): {reason}")

    def _configure(self, group: int, body: bytes) -> None:
        message = _FAMILY.pack(socket.AF_UNSPEC, 0, group) + body
        head = _HEADER.pack(
            _HEADER.size + len(message), _MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, group, 0
        )
        self._socket.send(head + message)
        while True:
            for kind, answer in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind == _NLMSG_ERROR:
                    (negative,) = struct.unpack_from("=i", answer)
                    if negative:
                        raise OSError(-negative, os.strerror(-negative))
                    return

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                return
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError:
                # ENOBUFS: packets were lost, of which the counters of the rules still know.
                continue
            for kind, message in _messages(data):
                if kind == _MSG_PACKET:
                    self._seen(_packet(message))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _packet(message: bytes) -> LoggedPacket:
    found = parse_attributes(message, _FAMILY.size)
    return LoggedPacket(
        prefix=found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        ethertype=int.from_bytes(found.get(_PACKET_HDR, b"")[:2], "big"),
        payload=found.get(_PAYLOAD, b""),
    )
