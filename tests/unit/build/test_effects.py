"""Blocking effects that are awaited: a cancellation at any moment leaves none half done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from estiba.build.effects import entered, settled, settled_apart

Settled = Callable[..., Coroutine[Any, Any, Any]]
BOTH = pytest.mark.parametrize("settle", [settled, settled_apart])


class Effect:
    """Blocks a thread until it is let go."""

    def __init__(self, *, fails: bool = False) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.is_over = False
        self._fails = fails

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(10)
        self.is_over = True
        if self._fails:
            raise OSError("no room")
        return "done"


async def begun(effect: Effect) -> None:
    assert await asyncio.to_thread(effect.begun.wait, 10)


@BOTH
async def test_result_and_error(settle: Settled) -> None:
    def divide(a: int, *, b: int) -> int:
        return a // b

    assert await settle(divide, 6, b=3) == 2
    with pytest.raises(ZeroDivisionError):
        await settle(divide, 6, b=0)


@BOTH
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_caller_waits_for_the_end(
    settle: Settled, fails: bool, times: int
) -> None:
    effect = Effect(fails=fails)
    task = asyncio.create_task(settle(effect))
    await begun(effect)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    effect.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert effect.is_over


@BOTH
async def test_a_caller_that_is_cancelled_in_its_first_moment(settle: Settled) -> None:
    """Either nothing was begun, or it is over."""
    effect = Effect()
    effect.go.set()
    task = asyncio.create_task(settle(effect))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert effect.begun.is_set() == effect.is_over


class Place:
    """A context manager of threads, that keeps a list of what happened."""

    def __init__(self, *, fails: str = "") -> None:
        self.log: list[str] = []
        self.enter, self.leave = Effect(fails=fails == "enter"), Effect(fails=fails == "leave")

    def __enter__(self) -> str:
        try:
            self.enter()
        finally:
            self.log.append("tried")
        self.log.append("in")
        return "value"

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.log.append("out")

    def open(self) -> Place:
        self.enter.go.set()
        self.leave.go.set()
        return self


async def inside(place: Place, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with entered(place) as value:  # type: ignore[var-annotated]
        place.log.append(value)
        await body()


async def nothing() -> None:
    return


async def test_in_and_out() -> None:
    place = Place().open()
    await inside(place, nothing)
    assert place.log == ["tried", "in", "value", "out"]


async def test_left_after_an_error_in_the_body() -> None:
    async def fail() -> None:
        raise LookupError

    place = Place().open()
    with pytest.raises(LookupError):
        await inside(place, fail)
    assert place.log[-1] == "out"


async def test_what_could_not_be_entered_is_not_left() -> None:
    place = Place(fails="enter").open()
    with pytest.raises(OSError, match="no room"):
        await inside(place, nothing)
    assert place.log == ["tried"]


async def test_an_error_on_leaving_is_told() -> None:
    place = Place(fails="leave").open()
    with pytest.raises(OSError, match="no room"):
        await inside(place, nothing)


@pytest.mark.parametrize("fails", ["", "enter"])
async def test_cancelled_on_the_way_in(fails: str) -> None:
    place = Place(fails=fails)
    place.leave.go.set()
    task = asyncio.create_task(inside(place, nothing))
    await begun(place.enter)
    task.cancel()
    await asyncio.sleep(0)
    place.enter.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.log == (["tried"] if fails else ["tried", "in", "out"])


async def test_cancelled_on_the_way_in_and_again_on_the_way_out() -> None:
    place = Place()
    task = asyncio.create_task(inside(place, nothing))
    await begun(place.enter)
    task.cancel()
    await asyncio.sleep(0)
    place.enter.go.set()
    await begun(place.leave)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    place.leave.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.log == ["tried", "in", "out"]


async def test_cancelled_inside() -> None:
    arrived = asyncio.Event()

    async def stay() -> None:
        arrived.set()
        await asyncio.Event().wait()

    place = Place().open()
    task = asyncio.create_task(inside(place, stay))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.log[-1] == "out"


async def test_cancelled_on_the_way_out() -> None:
    place = Place()
    place.enter.go.set()
    task = asyncio.create_task(inside(place, nothing))
    await begun(place.leave)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    place.leave.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.log[-1] == "out"
