"""What the server refuses before any handler is asked, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from estiba.api import server as served
from estiba.api.context import Context, first, progress, stream
from estiba.api.router import Router
from estiba.api.server import Server
from estiba.http1 import Body, Connection, HttpRequest, HttpResponse
from estiba.http1.tls import TlsProtocol


async def status(server: Server, target: str, *, peer: str = "tcp", **headers: str) -> int:
    """There are no handlers, so 501 means that the request was let through."""
    connection = Connection(server.handle, peer=peer)
    body = Body(connection)
    body.end()
    given = {name: value for name, value in headers.items() if value}
    return (await server.handle(HttpRequest("GET", target, given, body, connection))).status


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("/info", "127.0.0.1:2375", 501),
        ("/info", "[::1]:2375", 501),
        ("/info", "LOCALHOST", 501),
        ("/info", "known.test", 501),
        ("/info", "evil.test", 403),
        ("/info", "[evil", 403),
        ("/info", "", 400),
        ("http://127.0.0.1/v1.41/info", "127.0.0.1", 501),
        ("http://evil.test/info", "127.0.0.1", 403),
        ("/%zz", "127.0.0.1", 400),
        ("/info?a=%", "127.0.0.1", 400),
        ("//info", "127.0.0.1", 501),
        ("/unknown", "127.0.0.1", 404),
        ("*", "127.0.0.1", 404),
    ],
)
async def test_hosts_and_targets_over_tcp(target: str, host: str, expected: int) -> None:
    server = Server(Router(), allowed_hosts=frozenset({"known.test"}))
    assert await status(server, target, host=host) == expected


async def test_local_clients_may_call_the_host_anything() -> None:
    server = Server(Router())
    assert await status(server, "/info", peer="unix", host="docker") == 501
    assert await status(server, "/info", peer="unix", host="docker", origin="http://x") == 403
    assert await status(server, "/info", host="127.0.0.1:1", origin="http://127.0.0.1:2") == 403
    assert await status(server, "/info", host="127.0.0.1:1", origin="null") == 403
    assert await status(server, "/info", host="127.0.0.1:1", origin="http://127.0.0.1:1") == 501


async def test_who_speaks_no_tls_is_told_so_and_forgotten() -> None:
    """In Docker's words, which its client shows."""
    server = Server(Router())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(
        lambda: TlsProtocol(context, server._connection("tcp")), ours
    )
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.read() == (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        )
    assert not server._connections
    writer.close()


# -- the end -------------------------------------------------------------------------------


class Told:
    """An endless answer, put away over several turns of the loop once `go` is set."""

    def __init__(self) -> None:
        self.begun, self.ending, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.is_put_away = False

    async def lines(self) -> AsyncIterator[Any]:
        try:
            while True:
                yield "x" * (1 << 16)
                self.begun.set()
        finally:
            self.ending.set()
            async with asyncio.timeout(10):
                await self.go.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            self.is_put_away = True

    async def answer(self, _: Context) -> HttpResponse:
        return stream(progress(await first(self.lines())), "application/json")


async def asked(told: Told) -> tuple[Server, Connection, socket.socket]:
    """A connection on which the answer has begun; nobody reads it."""
    router = Router()
    router.add("SystemEvents", told.answer)
    server = Server(router)
    connection = server._connection("unix")
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, ours)
    theirs.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await told.begun.wait()
    return server, connection, theirs


async def test_the_end_waits_for_what_an_answer_holds_that_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "_ENDING_S", (0.05, 10.0))
    told = Told()
    server, connection, wire = await asked(told)
    stalled, pause = asyncio.Event(), connection.pause_writing
    monkeypatch.setattr(connection, "pause_writing", lambda: (pause(), stalled.set()))
    await stalled.wait()
    told.go.set()
    await server.close()
    assert told.is_put_away
    wire.close()


async def test_the_end_waits_for_a_client_that_has_left() -> None:
    told = Told()
    server, connection, wire = await asked(told)
    wire.close()
    await told.ending.wait()
    assert connection not in server._connections
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    told.go.set()
    await closing
    assert told.is_put_away


async def test_a_handler_that_hangs_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served, "_ENDING_S", (0.0, 0.0))
    told = Told()
    server, connection, wire = await asked(told)
    await server.close()
    assert "1 requests have not ended" in caplog.text
    told.go.set()
    assert connection.task is not None
    await asyncio.wait([connection.task])
    assert told.is_put_away
    wire.close()


async def test_who_comes_at_the_end_is_sent_away() -> None:
    server = Server(Router())
    await server.close()
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(
        lambda: server._connection("unix"), ours
    )
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
