"""HTTP/1.1 as hostile and odd clients speak it, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from estiba.http1 import Connection, HttpRequest, HttpResponse, connection
from estiba.http1.head import MAX_HEAD_BYTES

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /1 HTTP/1.1\r\nHost: x\r\n"


@dataclass
class Peer:
    """A client of a connection that answers with the target and the body it read.

    `/never` is answered without a look at the body, `/stream` in pieces without end, and
    `/hijack` is taken over and echoes.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    served: list[str] = field(default_factory=list)
    running: int = 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.served.append(request.target)
        if request.target == "/never":
            return HttpResponse(404, body=b"no")
        if request.target == "/stream":
            return HttpResponse(body=self.pieces())
        if request.target == "/hijack":
            return await self.echo(request)
        pieces = [request.target.encode(), b" "]
        try:
            while piece := await request.body.read():
                pieces.append(piece)
        except Exception as error:
            return HttpResponse(400, body=str(error).encode())
        return HttpResponse(body=b"".join(pieces))

    async def pieces(self) -> AsyncIterator[bytes]:
        self.running += 1
        try:
            yield b"begun"
            await asyncio.Event().wait()
        finally:
            self.running -= 1

    async def echo(self, request: HttpRequest) -> HttpResponse:
        source = await request.connection.hijack(b"HTTP/1.1 200 OK\r\n\r\n")
        while data := await source.read():
            await request.connection.write(data)
        await request.connection.write(b"end")
        request.connection.close()
        return HttpResponse(hijacked=True)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, bytes]:
        head = await self.head()
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        body = await self.reader.readexactly(int(length[0].split()[1])) if length else b""
        return int(head.split()[1]), body

    async def rest(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.read()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    made = Peer(reader, writer)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(made.handle), ours)
    yield made
    writer.transport.abort()


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain for {what}")


async def test_requests_cut_anywhere_are_answered_in_turn(peer: Peer) -> None:
    """The answer to one request may go out in the middle of the next one's head."""
    whole = b"".join(GET % number + POST + b"Content-Length: 3\r\n\r\nabc" for number in range(3))
    for cut in range(0, len(whole), 7):
        await peer.send(whole[cut : cut + 7])
        await asyncio.sleep(0)
    answers = [await peer.answer() for _ in range(6)]
    assert answers == [
        answer for number in range(3) for answer in ((200, b"/%d " % number), (200, b"/1 abc"))
    ]


async def test_who_sends_ahead_without_end_is_held_back(peer: Peer) -> None:
    peer.writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    burst = GET % 1 * 1000
    sent = 0
    with contextlib.suppress(TimeoutError):
        for _ in range(1000):
            peer.writer.write(burst)
            async with asyncio.timeout(0.3):
                await peer.writer.drain()
            sent += len(burst)
    assert sent < 4 << 20
    assert (peer.served, peer.running) == (["/stream"], 1)
    peer.writer.transport.abort()
    await until(lambda: peer.running == 0, "the stream to end")


async def test_many_requests_in_one_piece_leave_the_loop_to_others(peer: Peer) -> None:
    await peer.send(GET % 1 * 500)
    while not peer.served:  # noqa: ASYNC110 - at every turn of the loop, not after a while
        await asyncio.sleep(0)
    assert len(peer.served) < 250
    for _ in range(500):
        assert await peer.answer() == (200, b"/1 ")


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b'5;name=value;other="a b"\r\nhello\r\n0;last\r\nTrailer: x\r\nOther: y\r\n\r\n',
        b"0005\r\nhello\r\n000\r\n\r\n",
        b"2\r\nhe\r\n3 \r\nllo\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
async def test_chunks_with_extensions_and_trailers(peer: Peer, body: bytes, step: int) -> None:
    whole = POST + b"Transfer-Encoding: Chunked\r\n\r\n" + body + GET % 2
    for start in range(0, len(whole), step):
        await peer.send(whole[start : start + step])
        await asyncio.sleep(0)
    assert await peer.answer() == (200, b"/1 hello")
    assert await peer.answer() == (200, b"/2 ")


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\nhello",
        b"-5\r\nhello",
        b"5\r\nhelloworld\r\n",
        b"\r\n",
        b"fffffffffffffffff\r\n",
        b"5" + b" " * 5000,
        b"0\r\n" + b"Trailer: x\r\n" * 10_000,
    ],
)
async def test_malformed_chunks_are_an_error(peer: Peer, body: bytes) -> None:
    await peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    status, message = await peer.answer()
    assert status == 400
    assert b"not well-formed" in message
    assert await peer.rest() == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Expect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
        (b"GET /" + b"x" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEAD_BYTES // 6), 431),
    ],
)
async def test_what_is_no_request_is_refused(peer: Peer, head: bytes, status: int) -> None:
    await peer.send(head)
    assert (await peer.answer())[0] == status
    assert await peer.rest() == b""
    assert peer.served == []


async def test_garbage_after_a_request_waits_for_its_answer(peer: Peer) -> None:
    await peer.send(GET % 1 + b"NONSENSE\r\n\r\n")
    assert await peer.answer() == (200, b"/1 ")
    assert (await peer.answer())[0] == 400
    assert await peer.rest() == b""


async def test_half_a_head_is_cut_off_in_time(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late it begins: the time runs from a head's first byte."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    for number in range(3):
        await peer.send(GET % number)
        assert (await peer.answer())[0] == 200
        await asyncio.sleep(0.06)
    await peer.send(b"GET / HT")
    assert (await peer.answer())[0] == 408
    assert await peer.rest() == b""


async def test_old_and_closing_clients(peer: Peer) -> None:
    await peer.send(b"\r\n\r\nGET /0 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    head = await peer.head()
    assert b"Connection: keep-alive\r\n" in head
    assert await peer.reader.readexactly(3) == b"/0 "
    await peer.send(b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in await peer.head()
    assert await peer.rest() == b"/1 "


async def test_a_stream_for_an_old_client_ends_with_the_connection(peer: Peer) -> None:
    await peer.send(b"GET /stream HTTP/1.0\r\n\r\n")
    head = await peer.head()
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert await peer.reader.readexactly(5) == b"begun"


async def test_a_body_that_is_not_wanted_is_not_asked_for(peer: Peer) -> None:
    wanted = b"Content-Length: 4\r\nExpect: 100-Continue\r\n\r\n"
    await peer.send(POST + wanted)
    assert b" 100 Continue" in await peer.head()
    await peer.send(b"data")
    assert await peer.answer() == (200, b"/1 data")
    await peer.send(b"POST /never HTTP/1.1\r\nHost: x\r\n" + wanted)
    head = await peer.head()
    assert b" 404 " in head and b"Connection: close" in head
    assert await peer.rest() == b"no"


async def test_an_upgrade_that_nobody_takes_is_an_ordinary_request(peer: Peer) -> None:
    """Java's client offers HTTP/2 with every first request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    await peer.send(POST + offer + b"Content-Length: 3\r\n\r\nabc" + GET % 2)
    assert await peer.answer() == (200, b"/1 abc")
    assert await peer.answer() == (200, b"/2 ")


async def test_input_sent_before_the_answer_to_a_hijack_is_kept(peer: Peer) -> None:
    head = b"POST /hijack HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    await peer.send(head + b"not http\r\n\r\n")
    assert b" 200 " in await peer.head()
    assert await peer.reader.readexactly(12) == b"not http\r\n\r\n"
    peer.writer.write_eof()
    assert await peer.rest() == b"end"


async def test_who_leaves_ends_a_silent_stream(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-closed client goes on reading; one that is gone is noticed without a write."""
    monkeypatch.setattr(connection, "HANGUP_POLL_S", 0.02)
    await peer.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await peer.head()
    peer.writer.write_eof()
    await asyncio.sleep(0.1)
    assert peer.running == 1
    peer.writer.close()
    await until(lambda: peer.running == 0, "the stream to end")
