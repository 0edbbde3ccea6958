"""What the kernel knows of a client: whether it has read what was sent, whether it is gone."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
import time

_PATIENCE_S = 0.5
_POLL_S = 0.001


async def wait_read(transport: asyncio.Transport) -> None:
    """Returns when a client on a UNIX socket has read all that was sent, or after a moment."""
    wire = transport.get_extra_info("socket")
    if wire is None or wire.family != socket.AF_UNIX:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while not transport.is_closing() and _unread_bytes(wire.fileno()):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(_POLL_S)


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other side has closed both directions, as far as the kernel has heard.

    On TCP it has once something that was sent, a keep-alive probe at least, was refused.
    """
    wire = transport.get_extra_info("socket")
    if wire is None or wire.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(wire.fileno(), 0)
    return bool(poll.poll(0))


def probe_when_idle(wire: socket.socket) -> None:
    """Has the kernel ask a silent TCP client whether it is still there, as Docker does."""
    if wire.family in (socket.AF_INET, socket.AF_INET6):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)


def give_up_when_stalled(wire: socket.socket, seconds: float) -> None:
    """Has the kernel end a TCP connection whose other side acknowledges nothing, or reads
    nothing, for so long (tcp(7), TCP_USER_TIMEOUT).
    """
    if wire.family in (socket.AF_INET, socket.AF_INET6):
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _unread_bytes(fd: int) -> int:
    """SIOCOUTQ, whose number is that of TIOCOUTQ: the memory of what the peer has not read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
