"""Blocking iterators as asynchronous ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from estiba.kernel.blocking import run_apart, run_blocking

T = TypeVar("T")

_BATCH_BYTES = 1 << 20


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
    """A blocking iterator of values, which may wait for the client, drawn one by one."""
    end: Any = object()
    try:
        while (value := await run_apart(next, values, end)) is not end:
            yield value
    finally:
        closer: Callable[[], Any] | None = getattr(values, "close", None)
        if closer is not None:
            await run_blocking(closer)
