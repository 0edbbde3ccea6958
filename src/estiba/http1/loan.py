"""The right to read a connection's socket, held by a thread while the loop lets it be."""

from __future__ import annotations

import asyncio
import os
import select
from typing import Protocol

_READ_BYTES = 1 << 18
_POLL_MS = 1000


class Receiver(Protocol):
    """Who takes what is read."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...


class Loan:
    """Nothing in the loop waits for what comes in meanwhile: reading is paused, and the
    connection's only task serves the request whose body this is.
    """

    def __init__(self, receiver: Receiver, transport: asyncio.Transport, fd: int) -> None:
        self._receiver = receiver
        self._transport = transport
        # The loop may close its own at any time, and the number would soon be another file.
        self._fd = os.dup(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        transport.pause_reading()

    def pull(self) -> None:
        """Reads once, or waits for a second in vain. Blocks."""
        if not self._poll.poll(_POLL_MS):
            return
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._receiver.data_received(data)
        else:
            self._receiver.eof_received()

    def give_back(self) -> None:
        """Called in the loop, when no thread reads any more."""
        os.close(self._fd)
        if not self._transport.is_closing():
            self._transport.resume_reading()
