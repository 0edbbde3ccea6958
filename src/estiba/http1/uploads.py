"""A request's body for a thread that blocks on it: archives, the bulk of what comes in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque

from estiba.http1 import Body, Loan
from estiba.model.errors import Cancelled

_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 20
_AHEAD_BYTES = 8 << 20


class Upload:
    """`read` is for one thread at a time, all else for the loop.

    On a plain socket the thread reads for itself: for every piece that passes through the
    loop two threads would wait for the interpreter's lock. TLS is decrypted in the loop.
    """

    def __init__(self, body: Body) -> None:
        loan = body.lend()
        self._source: _Lent | _ReadAhead = _ReadAhead(body) if loan is None else _Lent(body, loan)

    def read(self, size: int = _CHUNK, /) -> bytes:
        """At least one byte, `b""` at the end. Raises as `Body.read`, or Cancelled. Blocks."""
        return self._source.read(size)

    def close(self) -> None:
        """Gives the connection back, or lets `read` do so if a thread is still in it."""
        self._source.close()


class _Lent:
    def __init__(self, body: Body, loan: Loan) -> None:
        self._body = body
        self._loan = loan
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._is_given_back = False

    def read(self, size: int) -> bytes:
        patience_s, since = self._body.patience_s, time.monotonic()
        with self._lock:
            if self._is_given_back:  # while the thread was busy with an earlier piece
                raise Cancelled("the request was given up")
            while (data := self._body.take(size)) is None:
                if self._closed:
                    raise Cancelled("the request was given up")
                if patience_s is not None and time.monotonic() > since + patience_s:
                    raise self._body.too_slow()
                self._loan.pull()
            return data

    def close(self) -> None:
        self._closed = True
        if not self._lock.acquire(blocking=False):
            # A thread waits for the client. It looks up once a second.
            self._loop.call_later(0.5, self.close)
            return
        try:
            if not self._is_given_back:
                self._is_given_back = True
                self._loan.give_back()
        finally:
            self._lock.release()


class _ReadAhead:
    """Read by the loop, ahead, so that neither side waits for a hop."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._pump = self._loop.create_task(self._read_ahead(), name="request body")

    async def _read_ahead(self) -> None:
        try:
            while data := await self._body.read(_BATCH_BYTES):
                with self._changed:
                    self._pieces.append(data)
                    self._size += len(data)
                    is_full = self._size >= _AHEAD_BYTES
                    self._changed.notify()
                if is_full:
                    # The reader's call to set it runs in this loop, so after this wait begins.
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def close(self) -> None:
        self._failure = self._failure or Cancelled("the request was given up")
        self._pump.cancel()

    def read(self, size: int) -> bytes:
        with self._changed:
            while not self._pieces and not self._ended:
                self._changed.wait()
            if not self._pieces:
                if self._failure is not None:
                    raise self._failure
                return b""
            data = self._pieces.popleft()
            if len(data) > size:
                self._pieces.appendleft(data[size:])
                data = data[:size]
            was_full = self._size >= _AHEAD_BYTES
            self._size -= len(data)
            if was_full and self._size < _AHEAD_BYTES:
                self._loop.call_soon_threadsafe(self._room.set)
        return data
