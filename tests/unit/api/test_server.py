"""What the server refuses before any handler is asked."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from estiba.api.router import Router
from estiba.api.server import Server
from estiba.http1 import Body, Connection, HttpRequest
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
