"""Bodies that a thread reads, over real sockets: what arrives, and what bad clients cause."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from estiba.http1 import Connection, HttpRequest, HttpResponse
from estiba.http1.uploads import Upload
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.errors import Cancelled

BIG = bytes(range(256)) * (20 << 10)


@dataclass
class Wire:
    """A client's end of a connection whose handler reads every body in a thread."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    bodies: list[bytes] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        upload = Upload(request.body)

        def work() -> bytes:
            pieces = []
            while piece := upload.read():
                pieces.append(piece)
            return b"".join(pieces)

        try:
            self.bodies.append(await run_blocking(work))
        except Exception as error:
            self.failures.append(error)
            return HttpResponse(400, body=str(error).encode())
        finally:
            upload.close()
        return HttpResponse(200, body=hashlib.sha256(self.bodies[-1]).hexdigest().encode())

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        return status, await self.reader.readexactly(int(length[0].split()[1])) if length else b""


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    made = Wire(reader, writer)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: Connection(made.handle), ours
    )
    yield made
    writer.close()
    transport.close()


def with_length(body: bytes, *extra: bytes) -> bytes:
    lines = [b"PUT /x HTTP/1.1", b"Content-Length: %d" % len(body), *extra]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunks(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CHUNKED = b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_big_body_arrives_whole_in_either_framing(wire: Wire) -> None:
    digest = hashlib.sha256(BIG).hexdigest().encode()
    await wire.send(with_length(BIG) + BIG)
    assert await wire.answer() == (200, digest)
    await wire.send(CHUNKED + chunks(BIG, 31_000))
    assert await wire.answer() == (200, digest)
    assert wire.bodies == [BIG, BIG]


async def test_requests_sent_ahead_are_answered_in_turn(wire: Wire) -> None:
    await wire.send(with_length(b"one") + b"one" + CHUNKED + chunks(b"two", 2) + with_length(b""))
    assert [(await wire.answer())[0] for _ in range(3)] == [200, 200, 200]
    assert wire.bodies == [b"one", b"two", b""]


async def test_a_client_that_asks_first_is_told_to_go_on(wire: Wire) -> None:
    await wire.send(with_length(b"data", b"Expect: 100-continue"))
    assert await wire.answer() == (100, b"")
    await wire.send(b"data")
    assert (await wire.answer())[0] == 200


async def test_a_body_that_is_cut_off_is_an_error(wire: Wire) -> None:
    await wire.send(with_length(BIG) + BIG[:100_000])
    wire.writer.write_eof()
    assert (await wire.answer())[0] == 400
    assert isinstance(wire.failures[0], ConnectionError)
    assert wire.bodies == []


async def test_a_body_that_is_not_well_formed_is_an_error(wire: Wire) -> None:
    await wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert await wire.answer() == (100, b"")
    await wire.send(b"5\r\nhello\r\nnot a length\r\n")
    status, message = await wire.answer()
    assert status == 400
    assert b"not well-formed" in message


async def test_a_thread_that_reads_on_after_the_end_is_told() -> None:
    """It was busy with an earlier piece when the request was given up."""
    ours, theirs = socket.socketpair()
    told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def handle(request: HttpRequest) -> HttpResponse:
        upload = Upload(request.body)
        is_busy, is_given_up = threading.Event(), threading.Event()

        def work() -> bytes:
            upload.read()
            is_busy.set()
            is_given_up.wait()
            return upload.read()

        reading = asyncio.ensure_future(run_apart(work))
        await run_blocking(is_busy.wait)
        upload.close()
        upload.close()
        is_given_up.set()
        await asyncio.wait([reading], timeout=10)
        told.set_result(reading.exception() if reading.done() else None)
        return HttpResponse(200)

    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: Connection(handle), ours
    )
    with theirs:
        theirs.sendall(with_length(b"whole") + b"half")
        assert isinstance(await told, Cancelled)
    transport.close()
