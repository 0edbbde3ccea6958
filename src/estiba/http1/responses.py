"""Answers on the wire: whole ones, and streams that end when the client goes away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from estiba.http1.files import FileBody, Writing, send_file
from estiba.http1.messages import HttpRequest, HttpResponse

_WITHOUT_LENGTH = (204, 304)
_PROBE_PAUSE_S = 1.0


class Wire(Protocol):
    """Where an answer goes."""

    closed: asyncio.Event

    @property
    def may_be_gone(self) -> bool: ...

    async def write(self, data: bytes) -> None: ...

    async def lend_writing(self) -> Writing: ...


async def send_response(wire: Wire, request: HttpRequest, response: HttpResponse) -> None:
    """Raises ConnectionError when the client goes away, and what the body's iterator raises.

    `request.keep_alive` is cleared when only the connection's end can end the answer.
    """
    headers, stream = response.headers, response.body
    bodyless = request.method == "HEAD" or response.status in _WITHOUT_LENGTH
    if isinstance(stream, bytes):
        if response.status not in _WITHOUT_LENGTH:
            headers.setdefault("Content-Length", str(len(stream)))
        await wire.write(_head(response, request) + (b"" if bodyless else stream))
        return
    if isinstance(stream, FileBody):
        headers["Content-Length"] = str(stream.size)
        try:
            await wire.write(_head(response, request))
            if not bodyless:
                await send_file(wire, stream)
        finally:
            stream.close()
        return
    chunked = request.version == "1.1"
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    else:
        request.keep_alive = False
    try:
        await wire.write(_head(response, request))
        if not bodyless:
            await _send_stream(wire, stream, response.filler, chunked=chunked)
    finally:
        closer = getattr(stream, "aclose", None)
        if closer is not None:
            await closer()


async def _send_stream(
    wire: Wire, stream: AsyncIterator[bytes], filler: bytes, *, chunked: bool
) -> None:
    """Sends the pieces as they come; ends the producer when the client goes away."""
    gone = asyncio.ensure_future(wire.closed.wait())
    try:
        while True:
            step = asyncio.ensure_future(anext(stream, None))
            try:
                await _wait_any((step, gone), wire, _framed(filler, chunked=chunked))
            finally:
                if not step.done():
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
            if step.cancelled():
                raise ConnectionResetError("the client went away")
            piece = step.result()
            if piece is None:
                break
            if piece:
                await wire.write(_framed(piece, chunked=chunked))
    finally:
        gone.cancel()
    if chunked:
        await wire.write(b"0\r\n\r\n")


async def _wait_any(tasks: Collection[asyncio.Future[Any]], wire: Wire, filler: bytes) -> None:
    """The kernel of a client that has died refuses what is sent to it at once, but a keep-alive
    probe only after a minute.
    """
    pause_s = _PROBE_PAUSE_S if filler else None
    while not (await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED))[0]:
        if wire.may_be_gone:
            await wire.write(filler)


def _framed(piece: bytes, *, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece


def _head(response: HttpResponse, request: HttpRequest) -> bytes:
    headers = response.headers
    headers["Date"] = _date(int(time.time()))
    if not request.keep_alive:
        headers["Connection"] = "close"
    elif request.version == "1.0":
        headers["Connection"] = "keep-alive"
    return encode_head(response.status, headers)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def encode_head(status: int, headers: dict[str, str]) -> bytes:
    """A status line and headers, up to and with the empty line."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def error_body(message: str) -> bytes:
    """`{"message": …}`, the form of every error of the Engine API."""
    return json.dumps({"message": message}).encode() + b"\n"
