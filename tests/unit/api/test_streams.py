"""Hijacked connections, over real sockets."""

from __future__ import annotations

import asyncio
import socket

from estiba.api.streams import RawStream
from estiba.http1 import Connection, HttpRequest, HttpResponse

HEAD = (
    b"POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
    b"Content-Length: 13\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
BODY = b'{"Tty": true}'


async def test_output_follows_a_head_that_was_read() -> None:
    """docker-py reads the head through a buffer, and never looks at what else is in there."""
    loop = asyncio.get_running_loop()
    requests: asyncio.Queue[HttpRequest] = asyncio.Queue()
    is_over = asyncio.Event()

    async def handle(request: HttpRequest) -> HttpResponse:
        requests.put_nowait(request)
        await is_over.wait()
        return HttpResponse(hijacked=True)

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    await loop.connect_accepted_socket(lambda: Connection(handle), ours)
    await loop.sock_sendall(theirs, HEAD + BODY)
    stream = await RawStream.open(await requests.get(), tty=True, version=(1, 51))
    write = asyncio.ensure_future(stream.write(1, b"output"))
    done, _ = await asyncio.wait([write], timeout=0.01)
    assert not done
    head = await loop.sock_recv(theirs, 65536)
    assert head.startswith(b"HTTP/1.1 101 ") and head.endswith(b"\r\n\r\n")
    await write
    assert await loop.sock_recv(theirs, 65536) == b"output"
    await stream.write(1, b"more, ")
    await stream.write(1, b"at once")
    assert await loop.sock_recv(theirs, 65536) == b"more, at once"
    is_over.set()
    assert await loop.sock_recv(theirs, 65536) == b""
    theirs.close()
