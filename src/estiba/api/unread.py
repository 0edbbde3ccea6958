"""Whether a client has read what was sent to it."""

from __future__ import annotations

import asyncio
import fcntl
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


def _unread_bytes(fd: int) -> int:
    """SIOCOUTQ, whose number is that of TIOCOUTQ: the memory of what the peer has not read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
