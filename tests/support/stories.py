"""What users do to a container, for engines that die and effects that fail meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from estiba.containers.actor import Actor
from estiba.containers.record import (
    AttachedNetwork,
    ContainerRecord,
    MountPlan,
)
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
from tests.support.records import make_record, with_policy
from tests.support.world import Boot

DEADLINE_S = 30.0
SETTLING_S = 2.0
"""After a restart that may never come."""

VOLUMES = [MountPlan(type="volume", name="v" * 64, destination="/data", anonymous=True)]


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


async def held(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
    """Whether `condition` comes true before the deadline."""
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
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
            await held(is_settled, SETTLING_S)
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
