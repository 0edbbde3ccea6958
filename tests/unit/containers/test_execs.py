"""Exec instances: made, started once, watched to their end, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.records import make_record

from estiba.containers import execs as execs_module
from estiba.containers.attach import Chunk
from estiba.containers.execs import Exec, Execs
from estiba.containers.record import ContainerRecord
from estiba.containers.tasks import Tasks
from estiba.model.container import ProcessSpec
from estiba.model.errors import CommandNotFound, Conflict, Internal, InvalidArgument, NotFound
from estiba.model.state import ContainerState

RUNNING = make_record("web", state=ContainerState.RUNNING)
SPEC = ProcessSpec(cmd=["true"])


class FakeProcess:
    """A program whose end the test decides."""

    pid = 4242

    def __init__(self) -> None:
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for _ in ():
            yield 1, b""

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def resize(self, height: int, width: int) -> None: ...

    async def wait_started(self) -> None: ...

    async def wait(self) -> int:
        return await self.exit

    async def kill(self) -> None: ...

    def close(self) -> None: ...


class FakeStarter:
    def __init__(self) -> None:
        self.process: FakeProcess | None = None
        self.error: Exception | None = None

    async def exec(self, record: ContainerRecord, spec: ProcessSpec) -> FakeProcess:
        if self.error is not None:
            raise self.error
        self.process = FakeProcess()
        return self.process


class Stand:
    """Execs over a fake starter."""

    def __init__(self) -> None:
        self.starter = FakeStarter()
        self.execs = Execs(self.starter, Tasks())

    async def started(self) -> tuple[Exec, FakeProcess]:
        instance = self.execs.create(RUNNING, SPEC)
        await self.execs.start(instance, RUNNING, instance.spec)
        assert self.starter.process is not None
        return instance, self.starter.process


@pytest.fixture
async def stand() -> Stand:
    return Stand()


async def ended(instance: Exec) -> None:
    async with asyncio.timeout(5):
        await instance.ended.wait()


async def test_the_life_of_an_exec(stand: Stand) -> None:
    instance = stand.execs.create(RUNNING, SPEC)
    assert stand.execs.find(instance.id) is instance
    assert (instance.started, instance.running, instance.exit_code) == (False, False, None)
    assert stand.execs.of_container(RUNNING.id) == [instance.id]
    await stand.execs.start(instance, RUNNING, instance.spec)
    assert (instance.started, instance.running, instance.pid) == (True, True, 4242)
    assert stand.execs.of_container(RUNNING.id) == [instance.id]
    assert stand.starter.process is not None
    stand.starter.process.exit.set_result(3)
    await ended(instance)
    assert (instance.running, instance.exit_code) == (False, 3)
    assert stand.execs.of_container(RUNNING.id) == []
    assert stand.execs.find(instance.id) is instance


@pytest.mark.parametrize("state", [s for s in ContainerState if s != ContainerState.RUNNING])
async def test_only_a_running_container_takes_execs(stand: Stand, state: ContainerState) -> None:
    record = make_record("web", state=state)
    why = "paused, unpause" if state == ContainerState.PAUSED else "is not running"
    with pytest.raises(Conflict, match=why):
        stand.execs.create(record, SPEC)
    instance = stand.execs.create(RUNNING, SPEC)
    with pytest.raises(Conflict, match=why):
        await stand.execs.start(instance, record, instance.spec)
    assert not instance.started, "it may be started when the container runs again"


async def test_what_is_refused(stand: Stand) -> None:
    with pytest.raises(InvalidArgument, match="No exec command"):
        stand.execs.create(RUNNING, ProcessSpec())
    with pytest.raises(NotFound, match="No such exec instance: abc"):
        stand.execs.find("abc")
    instance, _ = await stand.started()
    with pytest.raises(Conflict, match="is already running"):
        await stand.execs.start(instance, RUNNING, instance.spec)


@pytest.mark.parametrize(
    ("error", "code"), [(CommandNotFound("no such file"), 127), (Internal("crun died"), 126)]
)
async def test_a_program_that_cannot_start_has_ended(
    stand: Stand, error: Exception, code: int
) -> None:
    stand.starter.error = error
    instance = stand.execs.create(RUNNING, SPEC)
    with pytest.raises(type(error)):
        await stand.execs.start(instance, RUNNING, instance.spec)
    assert instance.ended.is_set()
    assert (instance.running, instance.exit_code) == (False, code)


@pytest.mark.parametrize("error", [Internal("the monitor died"), OSError("no such process")])
async def test_a_program_that_cannot_be_watched_has_ended(stand: Stand, error: Exception) -> None:
    instance, process = await stand.started()
    process.exit.set_exception(error)
    await ended(instance)
    assert (instance.running, instance.exit_code) == (False, 126)


async def test_ended_ones_are_forgotten_after_a_while_and_with_their_container(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, process = await stand.started()
    running, _ = await stand.started()
    process.exit.set_result(0)
    await ended(old)
    monkeypatch.setattr(execs_module, "KEPT_AFTER_EXIT_S", -1.0)
    fresh = stand.execs.create(RUNNING, SPEC)
    with pytest.raises(NotFound):
        stand.execs.find(old.id)
    assert stand.execs.find(running.id) is running
    elsewhere = stand.execs.create(make_record("db", state=ContainerState.RUNNING), SPEC)
    stand.execs.end_of_container(RUNNING.id)
    for gone in (running, fresh):
        with pytest.raises(NotFound):
            stand.execs.find(gone.id)
    assert stand.execs.find(elsewhere.id) is elsewhere


async def test_the_bound_counts_what_is_still_needed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs_module, "MAX_EXECS", 3)
    instances = [await stand.started() for _ in range(3)]
    with pytest.raises(Conflict, match="3 exec instances exist"):
        stand.execs.create(RUNNING, SPEC)
    instances[0][1].exit.set_result(0)
    await ended(instances[0][0])
    monkeypatch.setattr(execs_module, "KEPT_AFTER_EXIT_S", -1.0)
    stand.execs.create(RUNNING, SPEC)


async def test_instances_of_a_container_that_removed_itself_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else those that were never started would fill the table for ever."""
    gone: set[str] = set()
    execs = Execs(FakeStarter(), Tasks(), is_gone=gone.__contains__)
    monkeypatch.setattr(execs_module, "MAX_EXECS", 2)
    for _ in range(2):
        execs.create(RUNNING, SPEC)
    other = make_record("other", state=ContainerState.RUNNING)
    with pytest.raises(Conflict):
        execs.create(other, SPEC)
    gone.add(RUNNING.id)
    assert execs.create(other, SPEC)
    assert execs.of_container(RUNNING.id) == []
