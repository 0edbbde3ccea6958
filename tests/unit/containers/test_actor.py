"""Requests that meet in one container."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.logfiles import line, write_records
from tests.support.records import with_policy
from tests.support.world import Machine

from estiba.containers import engine as engine_module
from estiba.containers.attach import AttachHub, Chunk
from estiba.containers.endings import overdue
from estiba.containers.logs import LogQuery, read_log
from estiba.containers.ports import BroughtUp
from estiba.containers.record import KIND, ContainerRecord, Process
from estiba.kernel.pidfd import identify
from estiba.model.container import LogConfig
from estiba.model.errors import Internal
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


def test_a_run_that_does_not_end_says_whose_fault_it_is() -> None:
    """A monitor that is stopped, or a program that hangs in the kernel."""
    me = identify(os.getpid())
    alive = Process(pid=me.pid, start_time=me.start_time)
    gone = Process(pid=me.pid, start_time=me.start_time - 1)
    record = msgspec.structs.replace(with_policy("no"), container=gone, monitor=alive)
    assert f"its monitor (conmon, pid {me.pid}) does not answer" in str(overdue(record))
    assert f"`kill -CONT {me.pid}`" in str(overdue(record))
    hanging = msgspec.structs.replace(record, container=alive)
    assert "state D" in str(overdue(hanging))


class FakeConsole:
    """A program's side that says one word and then nothing more until its end."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        yield 1, b"hello"
        await self._ended.wait()

    async def write_stdin(self, data: bytes) -> None:
        pass

    async def close_stdin(self) -> None:
        pass

    async def close(self) -> None:
        self._ended.set()


async def test_who_attaches_in_the_middle_of_a_start_sees_the_output(tmp_path: Path) -> None:
    boot = Machine(tmp_path).boot()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    actor.runs.hub = AttachHub(tmp_path)
    boot.world.console = FakeConsole()
    release = boot.world.release

    async def attached(record: ContainerRecord) -> None:
        attached.client = actor.runs.hub.join(stdout=True, stderr=True)  # type: ignore[attr-defined]
        await release(record)

    boot.world.release = attached  # type: ignore[method-assign]
    await actor.start()
    async with asyncio.timeout(5):
        chunks = await attached.client.queue.take()  # type: ignore[attr-defined]
    assert chunks == [(1, b"hello")]
    await actor.runs.hub.close()
    await boot.end()


async def test_who_attaches_at_the_very_end_of_a_run_is_let_go(tmp_path: Path) -> None:
    boot = Machine(tmp_path).boot()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    await actor.start()
    tear_down = boot.world.tear_down

    async def attached(record: ContainerRecord) -> None:
        attached.client = actor.runs.hub.join(stdout=True, stderr=True)  # type: ignore[attr-defined]
        await tear_down(record)

    boot.world.tear_down = attached  # type: ignore[method-assign]
    boot.world.kernel.end(record.id, 0)
    await until(actor.runs.ended.is_set)
    async with asyncio.timeout(5):
        assert await attached.client.queue.take() == []  # type: ignore[attr-defined]
    await boot.end()


async def test_a_log_driver_that_fails_keeps_no_engine_from_starting(tmp_path: Path) -> None:
    """The journal was there when the container started, and is not when the engine does."""
    machine = Machine(tmp_path)
    boot = machine.boot()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    await actor.start()
    log = LogConfig(type="syslog", config={"syslog-format": "none such"})
    host = msgspec.structs.replace(record.host_config, log_config=log)
    broken = msgspec.structs.replace(actor.record, host_config=host)
    await actor._journal.commit(broken, None)
    await boot.end()
    again = machine.boot()
    assert [one.record.id for one in await again.engine.recover()] == [record.id]
    await again.end()


async def test_who_reads_a_log_slowly_sees_the_end_of_its_run_though_the_next_has_begun(
    tmp_path: Path,
) -> None:
    boot = Machine(tmp_path).boot()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    log = tmp_path / "log"
    await actor.start()
    write_records(log, [line(0, "first")])
    following = read_log(log, LogQuery(follow=True), actor.runs.ended)
    assert await anext(following) == (1, b"first\n")
    for _ in range(2):
        boot.world.kernel.end(record.id, 0)
        await until(lambda: not actor.record.state.is_up)
        await actor.start()
    async with asyncio.timeout(5):
        assert await anext(following, None) is None
    await boot.end()


async def test_two_renames_at_once_hold_one_name(tmp_path: Path) -> None:
    boot = Machine(tmp_path).boot()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    await asyncio.gather(boot.engine.rename(actor, "one"), boot.engine.rename(actor, "two"))
    assert actor.record.name == "two"
    boot.engine.check_free("one")
    boot.engine.check_free(record.name)
    assert boot.engine.find("two") is actor
    await boot.end()


async def test_a_removal_by_force_meets_a_first_start(tmp_path: Path) -> None:
    boot = Machine(tmp_path).boot()
    await boot.engine.start_owed()
    record = with_policy("no")
    await boot.engine.create(record)
    actor = boot.engine.actors[record.id]
    bring_up, starting, go_on = boot.world.bring_up, asyncio.Event(), asyncio.Event()

    async def slow_bring_up(record: ContainerRecord) -> BroughtUp:
        starting.set()
        await go_on.wait()
        return await bring_up(record)

    boot.world.bring_up = slow_bring_up  # type: ignore[method-assign]
    start = asyncio.create_task(actor.start())
    await starting.wait()
    removal = asyncio.create_task(actor.remove(force=True))
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(5):
        await asyncio.gather(start, removal)
    assert record.id not in boot.engine.actors
    await boot.end()


async def test_unnamed_containers_made_at_once_never_take_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are drawn by chance, here from three; what takes time comes before or after."""
    drawn = itertools.cycle(["calm_reef", "calm_reef", "dry_dock", "old_pier"])
    monkeypatch.setattr(engine_module, "random_name", lambda _attempt: next(drawn))
    boot = Machine(tmp_path).boot()
    await boot.engine.start_owed()
    records = [
        msgspec.structs.replace(with_policy("no"), id=str(number) * 64, name="")
        for number in range(3)
    ]
    made = await asyncio.gather(*(boot.engine.create(record) for record in records))
    names = {actor.record.name for actor in made}
    assert names == {"calm_reef", "dry_dock", "old_pier"}
    await boot.end()


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_start_that_is_cancelled_as_it_is_written(tmp_path: Path, is_written: bool) -> None:
    """What was told of as started runs on and is watched; what was not leaves no trace."""
    boot = Machine(tmp_path).boot()
    record = with_policy("no")
    await boot.engine.create(record)
    store: Any = boot.engine.world.store
    commit, release = store.commit, boot.world.release
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow_commit(function: Callable[..., Any], *, durable: bool = False) -> Any:
        reached.set()
        await go_on.wait()
        if not is_written:
            raise Internal("the disk is full")
        return await commit(function, durable=durable)

    async def released(record: ContainerRecord) -> None:
        await release(record)
        store.commit = slow_commit

    boot.world.release = released  # type: ignore[method-assign]
    actor = boot.engine.actors[record.id]
    starting = asyncio.create_task(actor.start())
    await reached.wait()
    starting.cancel()
    await asyncio.sleep(0)
    store.commit = commit
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert actor.record.state.is_up == is_written
    if is_written:
        boot.world.kernel.end(record.id, 3)
        await until(lambda: actor.record.state == ContainerState.EXITED)
    actions = [event.action for event in await boot.store.events_since(0, None)]
    assert [a for a in actions if a in ("start", "die")] == ["start", "die"] * is_written
    assert not boot.store.intents(KIND)
    await boot.end()
