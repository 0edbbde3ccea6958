"""A client's connection: requests one after the other, until it is closed or hijacked.

What comes in belongs to the head that is awaited, to the body of the request that is served,
to whoever hijacked the connection, or it is held until its turn. A hijacked connection is a
duplex stream whose halves close apart, which no framework at hand allows: aiohttp ends a
connection on half-close, and ASGI cannot hijack.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from estiba.http1.body import Body
from estiba.http1.files import Writing
from estiba.http1.framing import Framing, framing_of
from estiba.http1.head import HeadReader, ProtocolError
from estiba.http1.loan import Loan
from estiba.http1.messages import Handler, HttpRequest, HttpResponse
from estiba.http1.peers import give_up_when_stalled, has_hung_up, probe_when_idle, wait_read
from estiba.http1.responses import encode_head, error_body, send_response
from estiba.http1.tls import TlsTransport
from estiba.model.errors import InvalidArgument

_log = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 30.0
HANGUP_POLL_S = 1.0
_LINGER_S = 1.0
_WRITE_HIGH_WATER = 1 << 20
_MAX_DRAIN_BYTES = 1 << 30
_MAX_HELD_BYTES = 64 << 10


class Connection(asyncio.Protocol):
    """One task serves it; a request that is sent ahead waits unparsed until its turn."""

    def __init__(
        self, handler: Handler, *, peer: str = "unix", patience_s: float | None = None
    ) -> None:
        """`patience_s` is how long a client may send nothing of a body, or read nothing."""
        self._handler = handler
        self.peer = peer
        self._patience_s = patience_s
        self.idle_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._incoming: asyncio.Future[HttpRequest | None] = self._loop.create_future()
        self._head: HeadReader | None = None
        self._framing: Framing | None = None
        self._body: Body | None = None
        self._raw: Body | None = None
        self._held = b""
        self._is_busy = False
        self._is_deaf = False
        self._error: ProtocolError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._input_ended = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        self.on_made: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        """The client's address; "" on a UNIX socket."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if isinstance(name, tuple) else ""

    # -- transport -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        wire = transport.get_extra_info("socket")
        if wire is not None:
            probe_when_idle(wire)
            if self._patience_s is not None:
                give_up_when_stalled(wire, self._patience_s)
        self._task = asyncio.create_task(self._serve(), name="api connection")
        self.on_made()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.on_closed()
        self._writable.set()
        self._disarm_timer()
        self._end_input()

    def eof_received(self) -> bool:
        """A half-closed client still reads: the write side stays open while work goes on."""
        self._end_input()
        if self._is_busy:
            self._loop.call_soon_threadsafe(self._watch_hangup)
        return self._is_busy

    def _end_input(self) -> None:
        self._input_ended.set()
        if self._raw is not None:
            self._raw.end()
        if self._body is not None:
            self._body.fail(
                ConnectionResetError("the client went away in the middle of its request")
            )
        if self._head is not None:
            self._settle(None)

    def _watch_hangup(self) -> None:
        """While nothing is read, nothing else would tell of the connection's end."""
        if self._transport is None or self._transport.is_closing() or self._head is not None:
            return
        self._disarm_timer()
        if has_hung_up(self._transport):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(HANGUP_POLL_S, self._watch_hangup)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what comes in ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            while data and not self._is_deaf:
                if self._framing is not None:
                    data = self._feed_body(self._framing, data)
                elif self._raw is not None:
                    self._raw.feed(data)
                    return
                elif self._head is not None:
                    data = self._feed_head(self._head, data)
                else:
                    self._hold(data)
                    return
        except ProtocolError as error:
            self._error = error
            self._is_deaf = True
            if self._body is not None:
                self._body.fail(InvalidArgument(error.message))
            self._settle(None)

    def _feed_head(self, head: HeadReader, data: bytes) -> bytes:
        rest = head.feed(data)
        if head.is_complete:
            self._disarm_timer()
            self._begin(head)
        elif head.has_begun and self._timer is None:
            self._timer = self._loop.call_later(HEAD_TIMEOUT_S, self._give_up_head)
        return rest

    def _begin(self, head: HeadReader) -> None:
        self._head = None
        framing = framing_of(head.headers)
        body = Body(self, patience_s=self._patience_s)
        expected = head.headers.get("expect", "100-continue").lower()
        if expected != "100-continue":
            raise ProtocolError(417, f"unknown expectation: {expected[:64]!r}")
        if framing.is_complete:
            body.end()
        else:
            self._framing = framing
            if "expect" in head.headers and head.version != "1.0":
                body.on_first_read = self._send_continue
        self._body = body
        self._is_busy = True
        self.idle_since = None
        self._settle(
            HttpRequest(
                method=head.method,
                target=head.target,
                headers=head.headers,
                body=body,
                connection=self,
                keep_alive=head.keeps_alive,
                version=head.version,
            )
        )

    def _feed_body(self, framing: Framing, data: bytes) -> bytes:
        assert self._body is not None
        pieces, rest = framing.decode(data)
        self._body.feed(b"".join(pieces))
        if framing.is_complete:
            self._framing = None
            self._body.end()
        return rest

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > _MAX_HELD_BYTES:
            self.pause_reading()
            self._loop.call_soon_threadsafe(self._watch_hangup)

    def _take_held(self) -> None:
        held, self._held = self._held, b""
        if len(held) > _MAX_HELD_BYTES:
            self.resume_reading()
        self.data_received(held)

    def _settle(self, request: HttpRequest | None) -> None:
        if not self._incoming.done():
            self._incoming.set_result(request)

    def _give_up_head(self) -> None:
        """A client that sends half a head is cut off; an idle kept-alive one may wait."""
        self._error = ProtocolError(408, f"no whole request came within {HEAD_TIMEOUT_S:g} s")
        self._is_deaf = True
        self._settle(None)

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- serving ---------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while (request := await self._next()) is not None:
                response = await self._handler(request)
                if response.hijacked:
                    return
                if request.body.is_awaited:
                    request.keep_alive = False
                await self._answer(request, response)
                if request.body.is_awaited:
                    break
                await request.body.drain(_MAX_DRAIN_BYTES)
                if not request.keep_alive or not request.body.is_complete or self._error:
                    break
            await self._part()
        except ConnectionError:
            pass
        except Exception:
            _log.exception("connection failed")
        finally:
            self.close()

    async def _answer(self, request: HttpRequest, response: HttpResponse) -> None:
        is_sent = False
        try:
            await send_response(self, request, response)
            is_sent = True
        finally:
            if response.on_end is not None:
                response.on_end(is_sent)

    async def _next(self) -> HttpRequest | None:
        """The next request, or None when no more will come."""
        self._disarm_timer()
        self._is_busy = False
        self.idle_since = self._loop.time()
        self._body = None
        self._incoming = self._loop.create_future()
        if self._held:
            # A thousand requests in one piece must not keep the loop from everybody else.
            await asyncio.sleep(0)
        # Not before: what comes meanwhile belongs behind what is held.
        self._head = HeadReader()
        self._take_held()
        if self._input_ended.is_set():
            self._settle(None)
        return await self._incoming

    async def _part(self) -> None:
        """Says what was wrong, and waits a moment for the client to have heard it.

        A connection closed over unread bytes is reset, and the client never sees the answer.
        """
        if self._error is not None and not self._is_busy:
            message = error_body(self._error.message)
            headers = {
                "Content-Type": "application/json",
                "Connection": "close",
                "Content-Length": str(len(message)),
            }
            await self.write(encode_head(self._error.status, headers) + message)
        is_over = self._framing is None and not self._error and not self._held
        if is_over or self._transport is None or not self._transport.can_write_eof():
            return
        self._is_deaf = self._is_busy = True
        self._transport.write_eof()
        self.resume_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._input_ended.wait()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Ends when the last request's handler has."""
        return self._task

    @property
    def is_gone(self) -> bool:
        """Whether the client is, as far as can be told while nothing is read from it."""
        if self._transport is None or self.closed.is_set():
            return True
        return has_hung_up(self._transport)

    @property
    def may_be_gone(self) -> bool:
        """Whether a client on TCP has ended its input: one that has died looks no different,
        until something is sent to it.
        """
        return self._input_ended.is_set() and bool(self.address)

    async def write(self, data: bytes) -> None:
        """Sends, waiting while the client does not read. Raises ConnectionResetError."""
        if self._transport is None or self.closed.is_set():
            raise ConnectionResetError("the client went away")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def lend_writing(self) -> Writing:
        """The socket, once the kernel has all that was written. Raises ConnectionResetError.

        Nothing is read meanwhile: encryption belongs to one thread at a time.
        """
        transport = self._transport
        if transport is None or self.closed.is_set():
            raise ConnectionResetError("the client went away")
        transport.set_write_buffer_limits(high=0)
        await self._writable.wait()
        if transport.is_closing():
            raise ConnectionResetError("the client went away")
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        fd = transport.get_extra_info("socket").fileno()
        if isinstance(transport, TlsTransport):
            transport.pause_reading()
            return Writing(fd, transport.lend_sealing(), transport.give_back_sealing)
        return Writing(fd, None, lambda: None)

    def _socket_fd(self) -> int | None:
        """The socket, when bytes come in on it as they are."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_protocol() is not self:
            return None
        return int(transport.get_extra_info("socket").fileno())

    async def hijack(self, head: bytes) -> Body:
        """Ends HTTP here: sends `head`; whatever comes in from now on is raw input.

        What a body still holds that the handler did not read is passed over.
        """
        self._raw = Body(self)
        if self._body is not None:
            self._body.discard()
        self._take_held()
        if self._input_ended.is_set():
            self._raw.end()
        await self.write(head)
        return self._raw

    async def wait_read(self) -> None:
        """Returns when a local client has read what was sent, or after a moment."""
        if self._transport is not None:
            await wait_read(self._transport)

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection without sending what is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    # -- the flow of bodies ----------------------------------------------------------------

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def lend(self) -> Loan | None:
        """Hands the reading to a thread; None when the bytes need the loop, as TLS does."""
        fd = self._socket_fd()
        if fd is None or self._transport is None or self._raw is not None:
            return None
        return Loan(self, self._transport, fd)

    def _send_continue(self) -> None:
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
