"""Between blocking streams in threads and asynchronous ones in the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from estiba.api.http1 import Body
from estiba.kernel.blocking import run_blocking

T = TypeVar("T")

_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 20
_AHEAD_BYTES = 8 << 20


class BodySource:
    """A request's body for a thread, read ahead by the loop so that neither waits for a hop."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._pump = self._loop.create_task(self._read_ahead(), name="request body")

    async def _read_ahead(self) -> None:
        while data := await self._body.read(_BATCH_BYTES):
            with self._changed:
                self._pieces.append(data)
                self._size += len(data)
                is_full = self._size >= _AHEAD_BYTES
                self._changed.notify()
            if is_full:
                # The reader's call to set it runs in this loop, so only after this wait begins.
                self._room.clear()
                await self._room.wait()
        with self._changed:
            self._ended = True
            self._changed.notify()

    def close(self) -> None:
        """Stops reading ahead; called in the loop when nobody reads any more."""
        self._pump.cancel()

    def read(self, size: int = _CHUNK, /) -> bytes:
        with self._changed:
            while not self._pieces and not self._ended:
                self._changed.wait()
            if not self._pieces:
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


async def iterate(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator of bytes, drawn in a thread, small pieces joined."""

    def batch() -> bytes:
        collected = []
        size = 0
        for piece in pieces:
            collected.append(piece)
            size += len(piece)
            if size >= _BATCH_BYTES:
                break
        return b"".join(collected)

    try:
        while data := await run_blocking(batch):
            yield data
    finally:
        closer: Callable[[], Any] | None = getattr(pieces, "close", None)
        if closer is not None:
            await run_blocking(closer)


async def each(values: Iterator[T]) -> AsyncIterator[T]:
    """A blocking iterator of values, drawn in a thread one by one."""
    end: Any = object()
    try:
        while (value := await run_blocking(next, values, end)) is not end:
            yield value
    finally:
        closer: Callable[[], Any] | None = getattr(values, "close", None)
        if closer is not None:
            await run_blocking(closer)
