"""Between blocking streams in threads and asynchronous ones in the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from estiba.api.http1 import Body
from estiba.kernel.blocking import run_blocking

T = TypeVar("T")

_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 20


class BodySource:
    """A request's body for a thread: `read` waits for the loop to bring bytes."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()

    def read(self, size: int = _CHUNK, /) -> bytes:
        return asyncio.run_coroutine_threadsafe(self._body.read(size), self._loop).result()


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
