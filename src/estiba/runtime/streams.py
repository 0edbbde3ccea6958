"""The engine's ends of a program's streams: read and written only as fast as the other side.

Nothing is buffered here; a descriptor is watched only while somebody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

from estiba.kernel.ready import settle

CHUNK_BYTES = 1 << 18


class Output:
    """Readable descriptors by stream number; owns them."""

    def __init__(self, fds: dict[int, int]) -> None:
        self._fds = fds
        self._waiting: asyncio.Future[None] | None = None
        self._interrupted = False

    @property
    def is_finished(self) -> bool:
        return not self._fds

    async def read(self, *, patience_s: float | None = None) -> list[tuple[int, bytes]]:
        """What there is; empty when all streams have ended, or nothing came for `patience_s`.

        Without `patience_s` also empty after `interrupt`, when there is nothing to read.
        """
        while self._fds:
            chunks = self._read_ready()
            if chunks:
                return chunks
            if self._interrupted and patience_s is None:
                break
            if self._fds and not await self._wait(patience_s):
                # A loop that was busy meanwhile hears of both at once.
                return self._read_ready()
        return []

    def interrupt(self) -> None:
        """Has every `read` without patience return rather than wait, from now on."""
        self._interrupted = True
        if self._waiting is not None:
            settle(self._waiting)

    def close(self) -> None:
        for fd in self._fds.values():
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._fds.clear()
        self.interrupt()

    def _read_ready(self) -> list[tuple[int, bytes]]:
        chunks = []
        for stream, fd in list(self._fds.items()):
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                # A pty master reports EIO once the last program has closed the other side.
                if error.errno != errno.EIO:
                    raise
                data = b""
            if data:
                chunks.append((stream, data))
            else:
                del self._fds[stream]
                os.close(fd)
        return chunks

    async def _wait(self, patience_s: float | None) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        watched = list(self._fds.values())
        for fd in watched:
            loop.add_reader(fd, settle, ready)
        self._waiting = ready
        try:
            async with asyncio.timeout(patience_s):
                await ready
        except TimeoutError:
            return False
        finally:
            self._waiting = None
            for fd in watched:
                if fd in self._fds.values():
                    loop.remove_reader(fd)
        return True


class Input:
    """A writable descriptor; owns it. Several tasks may write, one after the other."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._lock = asyncio.Lock()
        self._ready: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Waits while the program does not read; a program that ended takes no more."""
        view = memoryview(data)
        async with self._lock:
            while view and self._fd is not None:
                try:
                    view = view[os.write(self._fd, view[:CHUNK_BYTES]) :]
                except BlockingIOError:
                    await self._wait(self._fd)
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.EIO):
                        raise
                    self.close()

    async def finish(self) -> None:
        """Closes once everything that was given has been taken."""
        async with self._lock:
            self.close()

    def close(self) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_writer(self._fd)
        os.close(self._fd)
        self._fd = None
        if self._ready is not None:
            settle(self._ready)

    async def _wait(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        loop.add_writer(fd, settle, ready)
        try:
            await ready
        finally:
            self._ready = None
            if self._fd is not None:
                loop.remove_writer(fd)
