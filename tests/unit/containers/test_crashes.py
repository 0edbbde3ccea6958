"""The engine dies or an effect fails at every point of a container's life.

After the next start of the engine no resource exists that no record justifies, no intent is
open, every state is one that a user may meet, and everything can be removed without a trace.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.records import make_record
from tests.support.stories import STORIES, Story, held
from tests.support.world import AT_REST, DIE, ERROR, UP, Boot, Death, Machine

from estiba.containers import restart as restart_module
from estiba.containers import runs as runs_module
from estiba.containers.record import (
    KIND,
    decode,
)
from estiba.kernel.pidfd import ProcessIdentity
from estiba.model.state import ContainerState
from estiba.store import EventBus, Store

LIFECYCLE = re.compile(r"(create (start die )*(start |destroy )?)?")


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
