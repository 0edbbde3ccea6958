"""A stream that is closed has closed all that it draws from by then, begun or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from estiba.api.context import first, head_first, json_lines, progress
from estiba.api.through import Through, through

Wrap = Callable[[AsyncIterator[Any]], Any]


class Work:
    """Something that takes several turns of the loop to be put away."""

    def __init__(self) -> None:
        self.is_put_away = False

    async def told(self) -> AsyncIterator[Any]:
        try:
            while True:
                yield {"a": 1}
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            self.is_put_away = True


async def as_events(values: AsyncIterator[Any]) -> Any:
    return head_first(json_lines(await first(values)))


async def as_progress(values: AsyncIterator[Any]) -> Any:
    return progress(await first(values))


@pytest.mark.parametrize("wrap", [as_events, as_progress, first])
@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_the_end_is_that_of_the_source(wrap: Wrap, taken: int) -> None:
    work = Work()
    stream = await wrap(work.told())
    for _ in range(taken):
        await anext(stream)
    await stream.aclose()
    assert work.is_put_away
    await stream.aclose()
    assert await anext(stream, None) is None


async def test_a_stream_that_is_cut_off_before_its_turn() -> None:
    """As that of a client that leaves while it is written to: the next piece is never begun."""
    work = Work()
    stream = await as_progress(work.told())
    await anext(stream)
    step = asyncio.ensure_future(anext(stream, None))
    step.cancel()
    await asyncio.wait([step])
    await stream.aclose()
    assert work.is_put_away


async def test_the_source_is_closed_when_its_reader_cannot_be() -> None:
    work = Work()

    @through
    async def reader(values: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for value in values:
                yield value
        finally:
            raise OSError("no room")

    stream: Through[Any] = reader(work.told())
    await anext(stream)
    with pytest.raises(OSError, match="no room"):
        await stream.aclose()
    assert work.is_put_away
