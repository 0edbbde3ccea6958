"""HTTP/1.1 on a stream transport: parsing by httptools, bodies and hijacks by backpressure.

Owns the connection. A request's body is never held whole: reading stops while nobody takes it.
A hijacked connection is handed over as a duplex stream whose halves close apart, which no
framework at hand allows: aiohttp ends a connection on half-close, and ASGI cannot hijack.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import httptools

from estiba.api.unread import wait_read
from estiba.model.errors import EstibaError, InvalidArgument

_log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 64 * 1024
MAX_URL_BYTES = 32 * 1024
HEADER_TIMEOUT_S = 30.0
_HIGH_WATER = 1 << 20
_LOW_WATER = 1 << 18
_WRITE_HIGH_WATER = 1 << 20
_MAX_DRAIN_BYTES = 1 << 30
_READ_BYTES = 1 << 18
_POLL_MS = 1000


class Flow(Protocol):
    """Where a body comes from, as the body sees it."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def lend(self) -> Loan | None: ...


class Body:
    """A request's body, or the input of a hijacked connection; `b""` is the end."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._paused = False
        self._ready = asyncio.Event()
        self.on_first_read: Callable[[], None] | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._ready.set()
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._flow.pause_reading()

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    def fail(self, error: Exception) -> None:
        """Ends it too soon: whoever reads on gets `error`; harmless after the true end."""
        if not self._ended:
            self._failure = error
            self.end()

    @property
    def is_complete(self) -> bool:
        return self._ended and not self._chunks

    async def read(self, limit: int = 1 << 18) -> bytes:
        """At least one byte and at most `limit`; `b""` at the end.

        Raises ConnectionError when the client goes away first, InvalidArgument for a body
        that is not well formed.
        """
        self._begin()
        while (data := self.take(limit)) is None:
            self._ready.clear()
            await self._ready.wait()
        if self._paused and self._size < _LOW_WATER:
            self._paused = False
            self._flow.resume_reading()
        return data

    def take(self, limit: int) -> bytes | None:
        """What is there, joined up to `limit`; None when nothing is there yet."""
        if not self._chunks:
            if self._failure is not None:
                raise self._failure
            return b"" if self._ended else None
        pieces: list[bytes] = []
        size = 0
        while self._chunks and size < limit:
            piece = self._chunks.popleft()
            if size + len(piece) > limit:
                self._chunks.appendleft(piece[limit - size :])
                piece = piece[: limit - size]
            pieces.append(piece)
            size += len(piece)
        self._size -= size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def lend(self) -> Loan | None:
        """Lets a thread read for itself; None where only the loop can."""
        self._begin()
        return self._flow.lend()

    def _begin(self) -> None:
        if self.on_first_read is not None:
            self.on_first_read()
            self.on_first_read = None

    async def drain(self, limit: int) -> None:
        """Throws the rest away, up to `limit` bytes.

        A connection closed over unread bytes is reset, and the client never sees the answer.
        """
        with contextlib.suppress(EstibaError):
            while limit > 0 and not self.is_complete:
                limit -= len(await self.read()) or limit


@dataclass(slots=True)
class HttpRequest:
    """One request; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: Body
    connection: Connection
    is_upgrade: bool = False
    keep_alive: bool = True
    version: str = "1.1"


@dataclass(slots=True)
class HttpResponse:
    """`body` is bytes, or an iterator that is streamed in chunks."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    hijacked: bool = False


class Loan:
    """The right to read a connection's socket, held by a thread while the loop lets it be.

    Nothing in the loop waits for what comes in meanwhile: reading is paused, and the
    connection's only task serves the request whose body this is.
    """

    def __init__(self, connection: Connection, transport: asyncio.Transport, fd: int) -> None:
        self._connection = connection
        self._transport = transport
        # The loop may close its own at any time, and the number would soon be another file.
        self._fd = os.dup(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        transport.pause_reading()

    def pull(self) -> None:
        """Reads once, or waits for a second in vain. Blocks."""
        if not self._poll.poll(_POLL_MS):
            return
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._connection.data_received(data)
        else:
            self._connection.eof_received()

    def give_back(self) -> None:
        """Called in the loop, when no thread reads any more."""
        os.close(self._fd)
        if not self._transport.is_closing():
            self._transport.resume_reading()


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Connection(asyncio.Protocol):
    """One client connection: requests one after the other, until closed or hijacked."""

    def __init__(self, handler: Handler, *, peer: str = "unix") -> None:
        self._handler = handler
        self.peer = peer
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._requests: asyncio.Queue[HttpRequest | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: Body | None = None
        self._raw: Body | None = None
        self._has_eof = False
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._failed = False
        self.on_closed: Callable[[], None] = lambda: None

    # -- transport -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        self._task = asyncio.create_task(self._serve(), name="api connection")
        self._arm_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.on_closed()
        self._writable.set()
        self._disarm_timer()
        if self._body is not None:
            self._body.fail(_gone())
        if self._raw is not None:
            self._raw.end()
        self._requests.put_nowait(None)

    def eof_received(self) -> bool:
        """A half-closed client still reads: the write side stays open while work goes on."""
        self._has_eof = True
        if self._raw is not None:
            self._raw.end()
            return True
        if self._body is not None:
            self._body.fail(_gone())
        self._requests.put_nowait(None)
        return self._busy

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._feed_upgraded(data)
            return
        if self._failed:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._raw = Body(self)
            self._feed_upgraded(data[upgrade.args[0] :])
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            self._fail(error)

    def _feed_upgraded(self, data: bytes) -> None:
        """The parser stops at the head of an upgrade; the request's body is still to come.

        An empty piece of it would read as its end.
        """
        if data and self._missing and self._body is not None:
            own, data = data[: self._missing], data[self._missing :]
            self._missing -= len(own)
            self._body.feed(own)
            if not self._missing:
                self._body.end()
        if data and self._raw is not None:
            self._raw.feed(data)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        if self._transport is not None and not self._busy:
            message = b'{"message":"malformed HTTP request"}\n'
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(message), message)
            )
            self._transport.close()
        if self._body is not None:
            self._body.fail(InvalidArgument("the request's body is not well-formed HTTP"))
        self._requests.put_nowait(None)

    # -- parser callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > MAX_URL_BYTES:
            raise ValueError("URL too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too long")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._disarm_timer()
        self._body = Body(self)
        request = HttpRequest(
            method=self._parser.get_method().decode("ascii"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            body=self._body,
            connection=self,
            is_upgrade=self._parser.should_upgrade(),
            keep_alive=self._parser.should_keep_alive(),
            version=self._parser.get_http_version(),
        )
        if self._headers.get("expect", "").lower() == "100-continue":
            self._body.on_first_read = self._send_continue
        self._requests.put_nowait(request)

    def on_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        if self._body is None:
            return
        if self._parser.should_upgrade():
            length = self._headers.get("content-length", "0")
            self._missing = int(length) if length.isdecimal() else 0
        if not self._missing:
            self._body.end()

    # -- serving ---------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while (request := await self._requests.get()) is not None:
                self._busy = True
                response = await self._handler(request)
                if response.hijacked:
                    return
                await self._respond(request, response)
                self._busy = False
                self._target, self._header_bytes = b"", 0
                await request.body.drain(_MAX_DRAIN_BYTES)
                if not request.body.is_complete:
                    break
                if not request.keep_alive or request.is_upgrade or self._failed:
                    break
                self._arm_timer()
        except ConnectionError:
            pass
        except Exception:
            _log.exception("connection failed")
        finally:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.close()

    async def _respond(self, request: HttpRequest, response: HttpResponse) -> None:
        bodyless = request.method == "HEAD" or response.status in (204, 304)
        headers = response.headers
        if isinstance(response.body, bytes):
            if response.status not in (204, 304):
                headers.setdefault("Content-Length", str(len(response.body)))
            body = b"" if bodyless else response.body
            await self.write(self._head(response.status, headers, request) + body)
            return
        chunked = request.version == "1.1"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            request.keep_alive = False
        await self.write(self._head(response.status, headers, request))
        stream = response.body
        try:
            if not bodyless:
                await self._stream(stream, chunked=chunked)
        finally:
            closer = getattr(stream, "aclose", None)
            if closer is not None:
                await closer()

    async def _stream(self, stream: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Sends the pieces as they come; ends the producer when the client goes away."""
        gone = asyncio.ensure_future(self.closed.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(stream, None))
                await asyncio.wait([step, gone], return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                    raise ConnectionResetError("the client went away")
                piece = step.result()
                if piece is None:
                    break
                if piece:
                    await self.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        finally:
            gone.cancel()
        if chunked:
            await self.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: dict[str, str], request: HttpRequest) -> bytes:
        if not request.keep_alive:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def write(self, data: bytes) -> None:
        """Sends, waiting while the client does not read. Raises ConnectionResetError."""
        if self._transport is None or self.closed.is_set():
            raise ConnectionResetError("the client went away")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def hijack(self, head: bytes) -> Body:
        """Ends HTTP here: sends `head`; whatever comes in from now on is raw input."""
        if self._raw is None:
            self._raw = Body(self)
            if self._has_eof:
                self._raw.end()
        await self.write(head)
        return self._raw

    async def wait_read(self) -> None:
        """Returns when a local client has read what was sent, or after a moment."""
        if self._transport is not None:
            await wait_read(self._transport)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def lend(self) -> Loan | None:
        """Hands the reading to a thread; None when the bytes need the loop, as TLS does."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._raw is not None:
            return None
        if transport.get_protocol() is not self:
            return None
        return Loan(self, transport, transport.get_extra_info("socket").fileno())

    def _send_continue(self) -> None:
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _arm_timer(self) -> None:
        """A client that sends half a head is cut off; an idle kept-alive one may wait."""
        self._disarm_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEADER_TIMEOUT_S, self._check_idle)

    def _check_idle(self) -> None:
        if self._header_bytes or self._target:
            self.close()

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _gone() -> ConnectionError:
    return ConnectionResetError("the client went away in the middle of its request")
