"""A step that waits for another gives its place up, and no place is lost or made by it."""

from __future__ import annotations

import asyncio

import pytest

from estiba.build.running.queues import Gate
from estiba.build.slots import Slot


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def visit(places: asyncio.Semaphore, gate: Gate, leave: asyncio.Event) -> None:
    async with Slot(places) as slot, gate.entered(alone=True, waiting=slot.given_up):
        await leave.wait()


async def test_who_waits_has_no_place() -> None:
    places, gate, leave = asyncio.Semaphore(2), Gate(), asyncio.Event()
    tasks = [asyncio.create_task(visit(places, gate, leave)) for _ in range(5)]
    await settle()
    assert not places.locked(), "one is inside, four wait"
    leave.set()
    await asyncio.gather(*tasks)
    assert gate.is_idle
    for _ in range(2):
        await asyncio.wait_for(places.acquire(), 1)
    assert places.locked()


@pytest.mark.parametrize("has_turn", [False, True])
async def test_who_is_cancelled_while_it_waits(has_turn: bool) -> None:
    """For its turn, or then for a place."""
    places, gate, leave = asyncio.Semaphore(1), Gate(), asyncio.Event()
    first = asyncio.create_task(visit(places, gate, leave))
    await settle()
    places.release()  # one more place
    second = asyncio.create_task(visit(places, gate, leave))
    await settle()
    await places.acquire()  # the one that the second gave up
    if has_turn:
        leave.set()
        taken = asyncio.create_task(places.acquire())
        await first
        await taken
        await settle()
        assert not gate.is_idle and places.locked()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    leave.set()
    await first
    assert gate.is_idle
    assert places.locked() == has_turn
