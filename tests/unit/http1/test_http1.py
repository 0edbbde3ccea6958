"""Requests as they come off the wire, in whatever pieces."""

from __future__ import annotations

import asyncio

import pytest

from estiba.http1 import Connection, HttpRequest, HttpResponse

HEAD = (
    b"POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
    b"Content-Length: 13\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
BODY = b'{"Tty": true}'


class Wire(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("cut", [0, 5, len(BODY)])
async def test_the_body_of_an_upgrade_in_pieces(cut: int) -> None:
    """docker-py sends the head by itself."""
    read = asyncio.get_running_loop().create_future()
    is_read = asyncio.Event()

    async def handle(request: HttpRequest) -> HttpResponse:
        is_read.set()
        pieces = []
        while piece := await request.body.read():
            pieces.append(piece)
        stream = await request.connection.hijack(b"head")
        read.set_result((b"".join(pieces), await stream.read()))
        return HttpResponse(hijacked=True)

    wire = Wire()
    connection = Connection(handle)
    connection.connection_made(wire)
    connection.data_received(HEAD + BODY[:cut])
    await is_read.wait()
    if cut < len(BODY):
        connection.data_received(BODY[cut:])
    connection.data_received(b"input")
    assert await read == (BODY, b"input")
    assert wire.written == b"head"
    connection.connection_lost(None)


@pytest.mark.parametrize("cut", range(1, len(HEAD) + 5, 7))
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("ends", [False, True])
async def test_what_comes_before_anybody_reads(cut: int, turns: int, ends: bool) -> None:
    """Over TLS a request can be there before the connection's task runs."""
    read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(request: HttpRequest) -> HttpResponse:
        pieces = []
        while piece := await request.body.read():
            pieces.append(piece)
        read.set_result(b"".join(pieces))
        return HttpResponse()

    sent = HEAD + BODY
    connection = Connection(handle)
    connection.connection_made(Wire())
    connection.data_received(sent[:cut])
    for _ in range(turns):
        await asyncio.sleep(0)
    connection.data_received(sent[cut:])
    if ends:
        connection.eof_received()
    async with asyncio.timeout(5):
        assert await read == BODY
    connection.connection_lost(None)
