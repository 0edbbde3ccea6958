"""Answers out of files, over real sockets: whole, in part, cut short, and to clients that leave."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from estiba.http1 import Connection, FileBody, HttpRequest, HttpResponse
from estiba.model.errors import DeadlineExceeded

BIG = os.urandom(1 << 20) * 12


@dataclass
class Opened:
    """A file, with or without a descriptor to send from."""

    path: Path
    offset: int
    has_fd: bool
    closed: int = 0

    def __post_init__(self) -> None:
        self.file = self.path.open("rb")
        self.file.seek(self.offset)

    @property
    def fd(self) -> int | None:
        return self.file.fileno() if self.has_fd else None

    def read(self, limit: int, /) -> bytes:
        return self.file.read(limit)

    def close(self) -> None:
        self.file.close()
        self.closed += 1


@dataclass
class Wire:
    """A connection that answers every request with a part of a file."""

    path: Path
    has_fd: bool
    offset: int = 0
    size: int = len(BIG)
    opened: list[Opened] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.opened.append(Opened(self.path, self.offset, self.has_fd))
        body = FileBody(self.opened[-1], self.offset, self.size)
        return HttpResponse(body=body, on_end=self.end)

    def end(self, is_sent: bool) -> None:
        self.ends.append(is_sent)
        self.ended.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self.handle), ours)
        return await asyncio.open_connection(sock=theirs)

    async def closed(self) -> None:
        while len(self.ends) < len(self.opened):
            self.ended.clear()
            await self.ended.wait()
        assert [opened.closed for opened in self.opened] == [1] * len(self.opened)


@pytest.fixture(params=[True, False], ids=["file", "memory"])
async def wire(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    before = len(os.listdir("/proc/self/fd"))
    yield Wire(path, request.param)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the executor's own


async def ask(writer: asyncio.StreamWriter, method: bytes = b"GET") -> None:
    writer.write(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(("offset", "size"), [(0, len(BIG)), (5, 7), (4 << 20, 3 << 20), (9, 0)])
async def test_a_part_of_a_file(wire: Wire, offset: int, size: int) -> None:
    wire.offset, wire.size = offset, size
    reader, writer = await wire.connect()
    for _ in range(2):
        await ask(writer)
        assert f"Content-Length: {size}\r\n".encode() in await head_of(reader)
        assert await reader.readexactly(size) == BIG[offset : offset + size]
    await ask(writer, b"HEAD")
    assert f"Content-Length: {size}\r\n".encode() in await head_of(reader)
    await wire.closed()
    assert wire.ends == [True] * 3
    writer.close()
    assert await reader.read() == b""


async def test_a_file_that_ends_too_soon_ends_the_connection(wire: Wire) -> None:
    wire.size = len(BIG) + 1
    reader, writer = await wire.connect()
    await ask(writer)
    await head_of(reader)
    assert await reader.read() == BIG
    await wire.closed()
    assert wire.ends == [False]
    writer.close()


async def test_a_client_that_leaves(wire: Wire) -> None:
    reader, writer = await wire.connect()
    await ask(writer)
    await head_of(reader)
    writer.transport.abort()
    await wire.closed()
    assert wire.ends == [False]


async def test_a_body_that_stops_coming() -> None:
    failures: list[Exception] = []

    async def handle(request: HttpRequest) -> HttpResponse:
        try:
            await request.body.read()
            await request.body.read()
        except DeadlineExceeded as error:
            failures.append(error)
        return HttpResponse(408)

    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: Connection(handle, patience_s=0.02), ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    assert b" 408 " in await head_of(reader)
    assert "0.02 seconds" in str(failures[0])
    assert await reader.read() == b""
    writer.close()
