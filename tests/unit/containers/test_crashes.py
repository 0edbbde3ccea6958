"""The engine dies or an effect fails at every point of a container's life.

After the next start of the engine no resource exists that no record justifies, no intent is
open, every state is one that a user may meet, and everything can be removed without a trace.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.support.records import make_record, with_policy
from tests.support.world import AT_REST, DIE, ERROR, UP, Boot, Death, Machine

from estiba.containers import restart as restart_module
from estiba.containers import runs as runs_module
from estiba.containers.actor import Actor
from estiba.containers.record import (
    KIND,
    AttachedNetwork,
    ContainerRecord,
    MountPlan,
    decode,
)
from estiba.kernel.pidfd import ProcessIdentity
from estiba.model.container import EndpointSettings, HostConfig, PortBinding
from estiba.model.errors import (
    Conflict,
    EstibaError,
    Forbidden,
    Internal,
    NotFound,
    NotModified,
)
from estiba.model.state import ContainerState
from estiba.store import EventBus, Store

DEADLINE_S = 2.0
VOLUMES = [MountPlan(type="volume", name="v" * 64, destination="/data", anonymous=True)]
LIFECYCLE = re.compile(r"(create (start die )*(start |destroy )?)?")


@dataclass
class Story:
    """What a user does to one container; an act that fails is done once more."""

    boot: Boot
    record: ContainerRecord
    problems: list[str] = field(default_factory=list)

    @property
    def actor(self) -> Actor:
        return self.boot.engine.actors[self.record.id]

    async def act(self, what: Callable[[], Awaitable[Any]]) -> None:
        for attempt in ("first", "second"):
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await what()
                return
            except (NotModified, NotFound, KeyError):
                return
            except TimeoutError:
                self.problems.append(f"the {attempt} attempt hangs")
                return
            except (EstibaError, OSError) as error:
                failure = error
        self.problems.append(f"fails again: {failure!r}")

    async def create(self) -> None:
        await self.act(lambda: self.boot.engine.create(self.record))

    async def start(self) -> None:
        await self.act(lambda: self.actor.start())

    async def exits(self, code: int) -> None:
        """The program ends by itself, and the engine notices."""

        async def end() -> None:
            noticed = self.actor.wait_future("next-exit")
            self.boot.world.kernel.end(self.record.id, code)
            await noticed

        if self.record.id in self.boot.world.kernel.runs:
            await self.act(end)

    async def until(self, condition: Callable[[], bool]) -> None:
        if not await held(condition):
            self.problems.append("waits in vain")


async def held(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true before the deadline."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - the fakes announce nothing
                await asyncio.sleep(0.0005)
            return True
    return False


async def whole_life(story: Story) -> None:
    await story.create()
    await story.start()
    await story.act(lambda: story.actor.pause())
    await story.act(lambda: story.actor.unpause())
    await story.act(lambda: story.actor.stop())
    await story.start()
    await story.exits(3)
    await story.act(lambda: story.actor.restart())
    await story.act(lambda: story.actor.remove(force=True, volumes=True))


async def connect(actor: Actor, network: str) -> None:
    """Once more after a failure it is connected already, if the failure came late."""
    with suppress(Forbidden):
        await actor.connections.connect(network, EndpointSettings())


async def disconnect(actor: Actor, network: str) -> None:
    """A failure of the database leaves it disconnected, and the next start records that."""
    try:
        await actor.connections.disconnect(network, force=False)
    except Internal as error:
        if "is not connected" not in error.message:
            raise


async def joins_and_leaves(story: Story) -> None:
    port = {"80/tcp": [PortBinding(host_port="80")]}
    await story.create()
    await story.act(lambda: connect(story.actor, "early"))
    await story.start()
    await story.act(lambda: connect(story.actor, "late"))
    await story.act(lambda: story.actor.connections.publish(port, {}))
    await story.act(lambda: disconnect(story.actor, "own"))
    await story.act(lambda: story.actor.stop())
    await story.act(lambda: disconnect(story.actor, "early"))
    await story.act(lambda: story.actor.remove(volumes=True))


async def stubborn_program(story: Story) -> None:
    story.boot.world.kernel.ignores_sigterm = True
    await story.create()
    await story.act(lambda: story.boot.engine.rename(story.actor, "renamed"))
    await story.start()
    await story.act(lambda: story.actor.stop(timeout_s=0))
    await story.act(lambda: story.actor.remove(volumes=True))


async def never_started(story: Story) -> None:
    await story.create()
    await story.act(lambda: story.actor.remove(volumes=True))


async def kill_if_up(actor: Actor) -> None:
    """A kill that failed after its signal has done its work; the second has nothing to do."""
    with suppress(Conflict):
        await actor.kill("KILL")


async def killed_while_paused(story: Story) -> None:
    story.boot.world.kernel.freezer_holds_kill = True
    await story.create()
    await story.start()
    await story.act(lambda: story.actor.pause())
    await story.act(lambda: kill_if_up(story.actor))
    await story.act(lambda: story.actor.remove(volumes=True))


async def removes_itself(story: Story) -> None:
    await story.create()
    await story.start()
    await story.exits(0)
    await story.until(lambda: story.record.id not in story.boot.engine.actors)


async def restarts_twice(story: Story) -> None:
    kernel, engine = story.boot.world.kernel, story.boot.engine

    def is_settled() -> bool:
        """Up again, or given up."""
        if story.record.id not in engine.actors:
            return True
        state = story.actor.record.state
        return state.is_up or (
            state == ContainerState.EXITED and not story.actor.runs._restart_task
        )

    await story.create()
    await story.start()
    for _ in range(2):
        if story.record.id in kernel.runs:
            await story.exits(1)
            await held(is_settled)
    await story.exits(1)
    await story.act(lambda: story.actor.remove(force=True, volumes=True))


AUTO_REMOVE = make_record(
    "gone", mounts=VOLUMES, host_config=HostConfig(network_mode="none", auto_remove=True)
)
STORIES: dict[str, tuple[Callable[[Story], Awaitable[None]], ContainerRecord]] = {
    "whole life": (whole_life, make_record("web", mounts=VOLUMES)),
    "joins and leaves": (
        joins_and_leaves,
        make_record(
            "guest",
            host_config=HostConfig(network_mode="own"),
            networks=[AttachedNetwork(network="own", requested=EndpointSettings())],
        ),
    ),
    "stubborn program": (stubborn_program, make_record("mule", mounts=VOLUMES)),
    "never started": (never_started, make_record("idle", mounts=VOLUMES)),
    "killed while paused": (killed_while_paused, make_record("frozen", mounts=VOLUMES)),
    "removes itself": (removes_itself, AUTO_REMOVE),
    "restarts twice": (restarts_twice, with_policy("on-failure", 2, name="phoenix")),
}


# -- what must hold ------------------------------------------------------------------------


def problems_of(boot: Boot, *, torn_down: bool = True) -> list[str]:
    """Everything that is wrong with a machine whose engine is at rest, one line each.

    `torn_down` says that no tear-down has failed since the engine started.
    """
    kernel, engine = boot.world.kernel, boot.engine
    stored = {row.id: decode(row.body) for row in boot.store.load(KIND)}
    found = [f"open intent: {intent.id}" for intent in boot.store.intents(KIND)]
    held_records = {key: actor.record for key, actor in engine.actors.items()}
    if held_records != stored:
        found.append(f"memory and disk differ: {held_records} and {stored}")
    if engine._names != {record.name: record.id for record in stored.values()}:
        found.append(f"names differ: {engine._names}")
    for container_id in {*kernel.resources, *stored}:
        record, resources = stored.get(container_id), kernel.of(container_id)
        if record is None:
            found.append(f"no record justifies {sorted(resources)}")
            continue
        if record.state not in ("created", "running", "paused", "exited"):
            found.append(f"rests in state {record.state}")
        wanted = UP if record.state.is_up else AT_REST
        if resources != wanted and (torn_down or record.state.is_up or resources < AT_REST):
            found.append(f"{record.state} has {sorted(resources)}")
        named = {net.network for net in record.networks} if record.state.is_up else set()
        if kernel.networks.get(container_id, set()) != named and (torn_down or record.state.is_up):
            found.append(f"on {kernel.networks.get(container_id)} and the record says {named}")
        published = list(record.host_config.port_bindings) if record.state.is_up else []
        if kernel.ports.get(container_id, []) != published and (torn_down or record.state.is_up):
            found.append(f"ports {kernel.ports.get(container_id)} and not {published}")
        run = kernel.runs.get(container_id)
        if record.state.is_up and (run is None or not run.released or run.ended.is_set()):
            found.append(f"{record.state} and its program does not run")
        if run is not None and run.paused and run.exit is not None:
            found.append("it was killed and cannot die, because it is frozen")
        if record.state.is_up and run is not None and run.process != record.container:
            found.append(f"{record.state} and the record names another process")
        if not record.state.is_up and (record.container or record.monitor):
            found.append(f"{record.state} and the record names a process")
    volumes = {name for record in stored.values() for name in record.anonymous_volumes}
    if kernel.volumes != volumes:
        found.append(f"volumes {kernel.volumes} for {volumes}")
    return found


async def event_problems(boot: Boot) -> list[str]:
    """The events tell a life that can have been, which ends in the state that is."""
    lives: dict[str, str] = {}
    for event in await boot.store.events_since(0, None):
        if event.action in ("create", "start", "die", "destroy"):
            lives[event.actor_id] = lives.get(event.actor_id, "") + event.action + " "
    found = [f"events: {life}" for life in lives.values() if not LIFECYCLE.fullmatch(life)]
    up = {key for key, actor in boot.engine.actors.items() if actor.record.state.is_up}
    told = {key for key, life in lives.items() if life.endswith("start ")}
    exist = {key for key, life in lives.items() if not life.endswith("destroy ")}
    if told != up or exist != set(boot.engine.actors):
        found.append(f"events {lives} do not tell what is up: {up}")
    return found


# -- running a story -----------------------------------------------------------------------


class Stage:
    """Fresh machines, and what the runs on them found."""

    def __init__(self, template: Path) -> None:
        self._template = template
        self._machine: Machine | None = None
        self.found: list[str] = []

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """Whether that process is on the machine of this moment."""
        assert self._machine is not None
        runs = self._machine.kernel.runs.values()
        return any(run.process.pid == identity.pid and not run.ended.is_set() for run in runs)

    @contextmanager
    def machine(self) -> Iterator[Machine]:
        with TemporaryDirectory(dir=self._template.parent) as directory:
            shutil.copy(self._template, Path(directory) / "estiba.db")
            self._machine = Machine(Path(directory))
            yield self._machine

    def note(self, where: str, problems: list[str]) -> None:
        self.found += [f"{where}: {problem}" for problem in problems]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("FIRST_DELAY_S", "MAX_DELAY_S"):
        monkeypatch.setattr(restart_module, name, 0.0)
    template = tmp_path / "template.db"
    Store.open(template, EventBus()).close()
    made = Stage(template)
    monkeypatch.setattr(runs_module, "is_alive", made.is_alive)
    return made


async def play(machine: Machine, name: str, faults: Mapping[int, str]) -> tuple[Boot, Story]:
    """Runs a story until its end or the engine's; the engine has ended then."""
    tell, record = STORIES[name]
    boot = machine.boot(faults)
    story = Story(boot, record)
    await boot.engine.recover()
    await boot.engine.settle_connections()
    await boot.engine.start_owed()
    telling = asyncio.create_task(tell(story))
    dying = asyncio.create_task(boot.world.died.wait())
    await asyncio.wait([telling, dying], return_when=asyncio.FIRST_COMPLETED)
    if not boot.world.is_dead:
        passed = dict(enumerate(boot.world.points))
        torn = not any("tear_down" in passed.get(number, "") for number in faults)
        await held(lambda: not problems_of(boot, torn_down=torn))
        story.problems += problems_of(boot, torn_down=torn) + await event_problems(boot)
    for task in (telling, dying):
        task.cancel()
    outcome, _ = await asyncio.gather(telling, dying, return_exceptions=True)
    await boot.end()
    if isinstance(outcome, Exception):
        raise outcome
    return boot, story


async def recovered(machine: Machine, faults: Mapping[int, str]) -> tuple[Boot, list[str]]:
    """Starts an engine on what the last one left; its problems when it came to rest."""
    boot = machine.boot(faults)
    try:
        await boot.engine.recover()
        await boot.engine.settle_connections()
        await boot.engine.start_owed()
    except Death:
        return boot, []
    if faults:
        return boot, []
    await held(lambda: not problems_of(boot))
    return boot, problems_of(boot) + await event_problems(boot)


async def aftermath(machine: Machine, stage: Stage, where: str) -> None:
    """The next engine puts everything right, and then all can be removed."""
    boot, problems = await recovered(machine, {})
    stage.note(f"{where}, recovered", problems)
    for actor in list(boot.engine.actors.values()):
        await actor.remove(force=True, volumes=True)
    stage.note(f"{where}, removed", problems_of(boot))
    if machine.kernel.resources or machine.kernel.volumes or boot.engine.actors:
        stage.note(where, ["something stays after removal"])
    await boot.end()


async def points_of(stage: Stage, name: str) -> list[str]:
    """The points that an undisturbed run of the story passes."""
    with stage.machine() as machine:
        boot, story = await play(machine, name, {})
        stage.note("undisturbed", story.problems)
        if machine.kernel.resources or machine.kernel.volumes:
            stage.note("undisturbed", [f"leaves {machine.kernel.resources}"])
        return boot.world.points


def verdict(stage: Stage) -> None:
    assert not stage.found, "\n" + "\n".join(dict.fromkeys(stage.found))


@pytest.mark.parametrize("name", STORIES)
async def test_death_at_every_point(stage: Stage, name: str) -> None:
    for number, point in enumerate(await points_of(stage, name)):
        with stage.machine() as machine:
            boot, _ = await play(machine, name, {number: DIE})
            assert boot.world.is_dead
            await aftermath(machine, stage, f"died at {number} {point}")
    verdict(stage)


@pytest.mark.parametrize("name", STORIES)
async def test_an_error_at_every_point(stage: Stage, name: str) -> None:
    for number, point in enumerate(await points_of(stage, name)):
        with stage.machine() as machine:
            _, story = await play(machine, name, {number: ERROR})
            where = f"error at {number} {point}"
            stage.note(where, story.problems)
            await aftermath(machine, stage, where)
    verdict(stage)


@pytest.mark.parametrize("name", STORIES)
async def test_death_after_an_error(stage: Stage, name: str) -> None:
    """The undoing of a failed act is cut off, wherever."""
    for number, point in enumerate(await points_of(stage, name)):
        for later in range(number + 1, number + 10):
            with stage.machine() as machine:
                boot, _ = await play(machine, name, {number: ERROR, later: DIE})
                where = f"error at {number} {point}, died at {later} {boot.world.points[-1]}"
                await aftermath(machine, stage, where)
                if not boot.world.is_dead:
                    break
    verdict(stage)


@pytest.mark.parametrize("fault", [DIE, ERROR])
@pytest.mark.parametrize("name", STORIES)
async def test_recovery_that_dies_or_fails_itself(stage: Stage, name: str, fault: str) -> None:
    for number, point in enumerate(await points_of(stage, name)):
        again = 0
        while True:
            with stage.machine() as machine:
                await play(machine, name, {number: DIE})
                boot, _ = await recovered(machine, {again: fault})
                passed = len(boot.world.points)
                await boot.end()
                where = f"died at {number} {point}, {fault} in recovery at {again}"
                await aftermath(machine, stage, where)
            if again >= passed:
                break
            again += 1
    verdict(stage)


@pytest.mark.parametrize("verb", ["pause", "unpause"])
async def test_death_between_the_freezer_and_its_commit(stage: Stage, verb: str) -> None:
    with stage.machine() as machine:
        machine.kernel.freezer_holds_kill = True
        boot = machine.boot()
        await boot.engine.recover()
        actor = await boot.engine.create(make_record())
        await actor.start()
        if verb == "unpause":
            await actor.pause()
        boot.world.faults = {len(boot.world.points) + 1: DIE}
        with pytest.raises(Death):
            await getattr(actor, verb)()
        await boot.end()
        boot, problems = await recovered(machine, {})
        record = boot.engine.find("web").record
        frozen = machine.kernel.runs[record.id].paused
        await boot.end()
        assert problems == []
        assert frozen == (record.state == ContainerState.PAUSED)
