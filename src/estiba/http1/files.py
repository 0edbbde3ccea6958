"""Answers out of files: mapped where the bytes go out as they are, else through memory.

No thread waits for a client: one reads, encrypts and sends while the kernel takes bytes, and the
loop waits until it takes more.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

_BATCH_BYTES = 64 << 20
_WINDOW_BYTES = 1 << 20
_PIECE_BYTES = 1 << 19
_SOON_MS = 10
_THREADS = 32

_senders = ThreadPoolExecutor(_THREADS, thread_name_prefix="sender")


class Source(Protocol):
    """An open object; `fd` is a descriptor of the whole of it, or None where there is none.

    `read` starts where the object was opened and gives `b""` at the end; it may block.
    """

    @property
    def fd(self) -> int | None: ...

    def read(self, limit: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Writing:
    """The right to write to a connection's socket, while the loop lets it be.

    `seal` encrypts what is to be sent; None where it goes out as it is.
    """

    fd: int
    seal: Callable[[bytes], bytes] | None
    give_back: Callable[[], None]


class Outlet(Protocol):
    """A connection as far as files need it."""

    async def lend_writing(self) -> Writing: ...


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
    loop = asyncio.get_running_loop()
    writing = await outlet.lend_writing()
    # The loop may close its own at any time, and the number would soon be another file.
    wire = os.dup(writing.fd)
    work = _work(wire, body, writing.seal)
    try:
        while not await loop.run_in_executor(_senders, work):
            await _until_writable(loop, wire)
    finally:
        os.close(wire)
        writing.give_back()


def _work(wire: int, body: FileBody, seal: Callable[[bytes], bytes] | None) -> Callable[[], bool]:
    """What sends until the socket is full; it returns whether all is sent. Blocks."""
    if seal is None and body.source.fd is not None:
        return _FromFile(wire, body.source.fd, body.offset, body.size)
    return _FromMemory(wire, body.source, body.size, seal or bytes)


@dataclass(slots=True)
class _FromFile:
    """Out of the page cache, mapped a window at a time.

    sendfile(2) hands over single pages, which whoever receives them on this host, or a network
    card, takes a third longer to copy than the large pieces that a write makes.
    """

    wire: int
    fd: int
    offset: int
    left: int

    def __call__(self) -> bool:
        until = self.left - _BATCH_BYTES
        while self.left > max(until, 0):
            wanted = min(self.left, _WINDOW_BYTES, os.fstat(self.fd).st_size - self.offset)
            if wanted <= 0:
                raise _cut_short()
            sent = self._send(wanted)
            self.offset += sent
            self.left -= sent
            if sent < wanted and not _takes_more(self.wire):
                return False
        return not self.left

    def _send(self, size: int) -> int:
        skipped = self.offset % mmap.ALLOCATIONGRANULARITY
        try:
            window = mmap.mmap(
                self.fd, skipped + size, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ,
                offset=self.offset - skipped,
            )  # fmt: skip
        except ValueError:  # the file was shortened meanwhile
            raise _cut_short() from None
        sent = 0
        with window, memoryview(window) as view:
            while sent < size:
                try:
                    sent += os.write(self.wire, view[skipped + sent :])
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno == errno.EFAULT:  # shortened under the mapping
                        raise _cut_short() from error
                    raise
        return sent


@dataclass(slots=True)
class _FromMemory:
    wire: int
    source: Source
    left: int
    seal: Callable[[bytes], bytes]
    pending: memoryview = field(default_factory=lambda: memoryview(b""))

    def __call__(self) -> bool:
        until = self.left - _BATCH_BYTES
        while self.pending or self.left > max(until, 0):
            if not self.pending:
                piece = self.source.read(min(self.left, _PIECE_BYTES))
                if not piece:
                    raise _cut_short()
                self.left -= len(piece)
                self.pending = memoryview(self.seal(piece))
            try:
                self.pending = self.pending[os.write(self.wire, self.pending) :]
            except BlockingIOError:
                if not _takes_more(self.wire):
                    return False
        return not self.left


def _takes_more(wire: int) -> bool:
    """Whether the socket has room again, at once or soon.

    A client that reads quickly is waited for here: the way through the loop and back takes
    longer than it does, the more so on a busy host.
    """
    poll = select.poll()
    poll.register(wire, select.POLLOUT)
    return bool(poll.poll(_SOON_MS))


async def _until_writable(loop: asyncio.AbstractEventLoop, wire: int) -> None:
    ready = asyncio.Event()
    loop.add_writer(wire, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(wire)


def _cut_short() -> ConnectionError:
    return ConnectionError("what is sent ended before its size")
