"""Blocking iterators as asynchronous ones."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from estiba.kernel.blocking import run_blocking

T = TypeVar("T")

_BATCH_BYTES = 1 << 20
_AHEAD = 16


@dataclass(frozen=True, slots=True)
class _End:
    """The iterator is closed; `failure` is what it raised."""

    failure: BaseException | None


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


async def iterate(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
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
    """A blocking iterator of values, which may wait for the client.

    One thread draws them all, a few ahead of the reader, and closes the iterator.
    """
    loop = asyncio.get_running_loop()
    drawn: asyncio.Queue[T | _End] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    is_left = threading.Event()

    def give(item: T | _End) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(drawn.put_nowait, item)

    def draw() -> None:
        failure = None
        try:
            with contextlib.closing(_Exclusive(values)) as source:
                for value in source:
                    give(value)
                    room.acquire()
                    if is_left.is_set():
                        break
        except BaseException as error:
            failure = error
        give(_End(failure))

    threading.Thread(target=draw, name=f"each {values}", daemon=True).start()
    end: _End | None = None
    try:
        while not isinstance(item := await drawn.get(), _End):
            room.release()
            yield item
        end = item
    finally:
        is_left.set()
        room.release()
        # The step under way is waited for.
        while end is None:
            item = await drawn.get()
            end = item if isinstance(item, _End) else None
    if end.failure is not None:
        raise end.failure
