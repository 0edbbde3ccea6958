"""Requests that meet in one container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.support.records import with_policy
from tests.support.world import Machine

from estiba.containers.ports import BroughtUp
from estiba.containers.record import ContainerRecord
from estiba.model.state import ContainerState


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the fakes announce nothing
            await asyncio.sleep(0.001)


async def test_a_removal_by_force_meets_a_restart(tmp_path: Path) -> None:
    """The container was about to restart when the request came, and runs when its turn comes."""
    boot = Machine(tmp_path).boot()
    await boot.engine.start_owed()
    record = with_policy("always")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    await actor.start()
    bring_up, restarting, go_on = boot.world.bring_up, asyncio.Event(), asyncio.Event()

    async def slow_bring_up(record: ContainerRecord) -> BroughtUp:
        restarting.set()
        await go_on.wait()
        return await bring_up(record)

    boot.world.bring_up = slow_bring_up  # type: ignore[method-assign]
    boot.world.kernel.end(record.id, 1)
    await until(restarting.is_set)
    assert actor.record.state == ContainerState.RESTARTING
    removal = asyncio.create_task(actor.remove(force=True))
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(5):
        await removal
    assert record.id not in boot.engine.actors
    assert not boot.world.kernel.of(record.id)
    await boot.end()
