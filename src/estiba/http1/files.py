"""Answers out of files: by sendfile(2) where the bytes go out as they are, else through memory.

No thread waits for a client: one is used while the kernel takes bytes, and the loop waits until
it takes more.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Protocol

_BATCH_BYTES = 64 << 20
_SENDFILE_BYTES = 1 << 30
_READ_BYTES = 1 << 19


class Source(Protocol):
    """An open object; `fd` is a descriptor of the whole of it, or None where there is none.

    `read` starts where the object was opened and gives `b""` at the end; it may block.
    """

    @property
    def fd(self) -> int | None: ...

    def read(self, limit: int, /) -> bytes: ...

    def close(self) -> None: ...


class Outlet(Protocol):
    """A connection as far as files need it."""

    async def write(self, data: bytes) -> None: ...

    async def flush(self) -> None: ...

    def socket_fd(self) -> int | None: ...


@dataclass(slots=True)
class FileBody:
    """`size` bytes of `source` from `offset`, which is also where its `read` starts.

    Whoever sends it closes it.
    """

    source: Source
    offset: int
    size: int

    def close(self) -> None:
        self.source.close()


async def send_file(outlet: Outlet, body: FileBody) -> None:
    """Raises ConnectionError when the client goes away, or when the source ends too soon."""
    fd = outlet.socket_fd()
    if fd is None or body.source.fd is None:
        await _send_through_memory(outlet, body)
        return
    # The loop may close its own at any time, and the number would soon be another file.
    wire = os.dup(fd)
    try:
        await outlet.flush()
        await _send_by_kernel(wire, body.source.fd, body.offset, body.size)
    finally:
        os.close(wire)


async def _send_by_kernel(wire: int, fd: int, offset: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    while size:
        sent = await loop.run_in_executor(None, _push, wire, fd, offset, size)
        offset += sent
        size -= sent
        if size:
            await _until_writable(loop, wire)


def _push(wire: int, fd: int, offset: int, size: int) -> int:
    """Sends until the socket is full; returns how much went out."""
    done = 0
    while done < min(size, _BATCH_BYTES):
        try:
            sent = os.sendfile(wire, fd, offset + done, min(size - done, _SENDFILE_BYTES))
        except BlockingIOError:
            break
        if not sent:
            raise _cut_short()
        done += sent
    return done


async def _until_writable(loop: asyncio.AbstractEventLoop, wire: int) -> None:
    ready = asyncio.Event()
    loop.add_writer(wire, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(wire)


async def _send_through_memory(outlet: Outlet, body: FileBody) -> None:
    """Reads one piece ahead of what is being sent."""
    loop = asyncio.get_running_loop()
    left = body.size
    ahead = loop.run_in_executor(None, body.source.read, min(left, _READ_BYTES))
    try:
        while left:
            piece = await ahead
            if not piece:
                raise _cut_short()
            left -= len(piece)
            if left:
                ahead = loop.run_in_executor(None, body.source.read, min(left, _READ_BYTES))
            await outlet.write(piece)
    finally:
        # Not closed under a thread that reads.
        await asyncio.gather(ahead, return_exceptions=True)


def _cut_short() -> ConnectionError:
    return ConnectionError("what is sent ended before its size")
