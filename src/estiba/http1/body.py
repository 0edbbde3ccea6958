"""A request's body as far as it has come: never held whole, read by the loop or a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from estiba.http1.loan import Loan
from estiba.model.errors import DeadlineExceeded, EstibaError

_HIGH_WATER = 1 << 20
_LOW_WATER = 1 << 18


class Flow(Protocol):
    """Where a body comes from, as the body sees it."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def lend(self) -> Loan | None: ...


class Body:
    """A request's body, or the input of a hijacked connection; `b""` is the end."""

    def __init__(self, flow: Flow, *, patience_s: float | None = None) -> None:
        self._flow = flow
        self.patience_s = patience_s
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._paused = False
        self._discards = False
        self._ready = asyncio.Event()
        self.on_first_read: Callable[[], None] | None = None

    def feed(self, data: bytes) -> None:
        if self._discards or not data:
            return
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

    @property
    def is_awaited(self) -> bool:
        """Whether the client waits to be told that the body is wanted."""
        return self.on_first_read is not None

    async def read(self, limit: int = 1 << 18) -> bytes:
        """At least one byte and at most `limit`; `b""` at the end.

        Raises ConnectionError when the client goes away first, InvalidArgument for a body
        that is not well formed, DeadlineExceeded when nothing comes for `patience_s`.
        """
        self._begin()
        while (data := self.take(limit)) is None:
            self._ready.clear()
            await self._wait_for_more()
        if self._paused and self._size < _LOW_WATER:
            self._paused = False
            self._flow.resume_reading()
        return data

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self.patience_s):
                await self._ready.wait()
        except TimeoutError:
            raise self.too_slow() from None

    def too_slow(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"nothing of the request's body came for {self.patience_s:g} seconds: send it again"
        )

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

    def discard(self) -> None:
        """Nobody will read it: throws away what is there and what is still to come."""
        self._discards = True
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._flow.resume_reading()
