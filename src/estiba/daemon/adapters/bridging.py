"""Blocking iterators as asynchronous ones."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from estiba.kernel.blocking import run_apart, run_blocking

T = TypeVar("T")

_BATCH_BYTES = 1 << 20


class _Exclusive(Generic[T]):
    """One thread in an iterator at a time.

    A reader that is cancelled leaves its thread in there, and a generator that runs cannot be
    closed: what it holds, a mount for instance, would be let go whenever chance has it.
    """

    def __init__(self, values: Iterator[T]) -> None:
        self._values = values
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._values)

    def close(self) -> None:
        """Waits for the step under way, if any."""
        closer: Callable[[], Any] | None = getattr(self._values, "close", None)
        if closer is not None:
            with self._lock:
                closer()


async def iterate(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator of bytes, drawn in a thread, small pieces joined."""
    source = _Exclusive(pieces)

    def batch() -> bytes:
        collected = []
        size = 0
        for piece in source:
            collected.append(piece)
            size += len(piece)
            if size >= _BATCH_BYTES:
                break
        return b"".join(collected)

    try:
        while data := await run_blocking(batch):
            yield data
    finally:
        await run_blocking(source.close)


async def each(values: Iterator[T]) -> AsyncGenerator[T, None]:
    """A blocking iterator of values, which may wait for the client, drawn one by one."""
    source = _Exclusive(values)
    end: Any = object()
    try:
        while (value := await run_apart(next, source, end)) is not end:
            yield value
    finally:
        await run_apart(source.close)
