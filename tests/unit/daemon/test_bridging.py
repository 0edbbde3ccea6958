"""Blocking iterators read by the event loop, and readers that go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from estiba.daemon.adapters.bridging import each, iterate


async def test_small_pieces_are_joined() -> None:
    assert [data async for data in iterate(iter([b"a", b"b", b""]))] == [b"ab"]
    assert [value async for value in each(iter([1, 2]))] == [1, 2]


@pytest.mark.parametrize("read", [iterate, each])
async def test_a_reader_that_leaves_in_the_middle_of_a_step(read: Callable[..., Any]) -> None:
    """The thread is still in the generator, which lets go of what it holds all the same."""
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            begun.set()
            assert go_on.wait(5)
            yield b"x"
            yield b"y"
        finally:
            closed.set()

    step = asyncio.ensure_future(anext(read(pieces())))
    await asyncio.to_thread(begun.wait, 5)
    step.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert closed.is_set()


async def test_values_come_before_the_error_that_ends_them() -> None:
    def values() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    seen = []
    with pytest.raises(ValueError, match="no more"):
        async for value in each(values()):
            seen.append(value)
    assert seen == [1, 2]


async def test_values_are_drawn_a_few_ahead_and_no_more() -> None:
    drawn, closed = [], threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                drawn.append(len(drawn))
                yield drawn[-1]
        finally:
            closed.set()

    reader = each(endless())
    assert [await anext(reader) for _ in range(100)] == list(range(100))
    await reader.aclose()
    assert closed.is_set()
    assert len(drawn) < 150
