"""The attach socket of conmon: SOCK_SEQPACKET, one packet a piece of output.

The first byte of a packet names the stream (2 stdout, 3 stderr); what is sent goes to the
container's stdin, at most 32 KiB a packet. Half-closing ends stdin if the monitor was started
for that (`stdin_once`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from estiba.kernel.ready import settle
from estiba.model.errors import FailedPrecondition
from estiba.runtime.monitor import STDERR, STDOUT

_STREAMS = {2: STDOUT, 3: STDERR}
_PACKET_BYTES = 32768
_STDIN_PACKET_BYTES = 8192
_MAX_CHUNK_BYTES = 1 << 18


class SocketAttachment:
    """Connected once made; see `runtime.monitor.Attachment`."""

    def __init__(self, path: Path) -> None:
        self._socket = _connect(path)
        self._is_closed = False
        self._waiting: list[asyncio.Future[None]] = []
        self._write_lock = asyncio.Lock()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while chunks := await self._receive():
            for chunk in chunks:
                yield chunk

    async def write_stdin(self, data: bytes) -> None:
        """Waits while the program does not read; a program that ended takes no more."""
        view = memoryview(data)
        async with self._write_lock:
            while view and not self._is_closed:
                try:
                    sent = self._socket.send(view[:_STDIN_PACKET_BYTES])
                except BlockingIOError:
                    await self._wait(writable=True)
                    continue
                except OSError:
                    return
                view = view[sent:]

    async def close_stdin(self) -> None:
        async with self._write_lock:
            if not self._is_closed:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        self._socket.close()
        for ready in self._waiting:
            settle(ready)

    async def _receive(self) -> list[tuple[int, bytes]]:
        """All packets that are there, neighbours of one stream joined; empty at the end."""
        chunks: list[tuple[int, bytes]] = []
        pieces: list[bytes] = []
        current = size = 0
        while size < _MAX_CHUNK_BYTES and not self._is_closed:
            try:
                packet = self._socket.recv(_PACKET_BYTES)
            except BlockingIOError:
                if size:
                    break
                await self._wait(writable=False)
                continue
            except OSError:
                break
            if not packet:
                break
            stream = _STREAMS.get(packet[0], STDOUT)
            if stream != current and pieces:
                chunks.append((current, b"".join(pieces)))
                pieces = []
            current = stream
            pieces.append(packet[1:])
            size += len(packet)
        if pieces:
            chunks.append((current, b"".join(pieces)))
        return chunks

    async def _wait(self, *, writable: bool) -> None:
        """Until the socket is ready or closed."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (
            (loop.add_writer, loop.remove_writer)
            if writable
            else (loop.add_reader, loop.remove_reader)
        )
        add(self._socket, settle, ready)
        self._waiting.append(ready)
        try:
            await ready
        finally:
            self._waiting.remove(ready)
            if not self._is_closed:
                remove(self._socket)


def _connect(path: Path) -> socket.socket:
    """Connects through a descriptor of the directory: the path may exceed 108 bytes."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise FailedPrecondition(f"the container's monitor is gone: {error}") from error
    return connection
