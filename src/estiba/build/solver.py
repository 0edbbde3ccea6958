"""A plan carried out: stages at once, steps found in the cache or done, layers hashed beside.

Owns the order of things within one build; what a step does stands in `stepwork`, what the cache
keeps in `cache`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec

from estiba.build import keys
from estiba.build.cache import Session
from estiba.build.effects import finished, settled, settled_apart
from estiba.build.failure import Failure, StepFailed, reason
from estiba.build.flights import Flights
from estiba.build.ops import (
    ImageInput,
    Op,
    Plan,
    StageInput,
    StagePlan,
    Step,
)
from estiba.build.ports import Frozen, Workspaces
from estiba.build.progress import CANCELLED, Finished, Started, Tell, Vertex
from estiba.build.record import CacheRecord
from estiba.build.state import Layer, State, StepResult, finished_layer
from estiba.build.steprun import StepRun
from estiba.build.stepwork import StepWork
from estiba.build.trees import Trees
from estiba.images.images import Images
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError
from estiba.storage.layers import LayerInfo


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """`ignored` are the stages that are built anew, None all of them."""

    ignored: Collection[str] | None = ()
    remote: Callable[[list[str]], Awaitable[CacheRecord | None]] | None = None
    """Asks imported caches for a record by its keys; what it gives is whole."""

    def ignores(self, stage: StagePlan) -> bool:
        if self.ignored is None:
            return True
        # Names of stages stand in lower case, however a Dockerfile writes them.
        return not {stage.title, str(stage.index)}.isdisjoint(one.lower() for one in self.ignored)


@dataclass(slots=True)
class Shared:
    """What all builds of an engine share."""

    images: Images
    workspaces: Workspaces
    flights: Flights[StepResult]
    slots: asyncio.Semaphore
    """How many steps may be carried out at once."""


@dataclass(slots=True)
class Solver:
    """Of one build: `solve` it once."""

    shared: Shared
    plan: Plan
    session: Session
    work: StepWork
    trees: Trees
    bases: Mapping[ImageInput, ImageRecord]
    policy: CachePolicy
    tell: Tell
    vertices: dict[tuple[int, int], Vertex]
    keep_failed: Callable[[StagePlan, State, Step, LayerInfo], Awaitable[str]] | None
    found: list[CacheRecord] = field(default_factory=list)
    _stages: dict[int, asyncio.Task[State]] = field(default_factory=dict)
    own: dict[str, asyncio.Future[StepResult]] = field(default_factory=dict)
    _commits: set[asyncio.Task[LayerInfo]] = field(default_factory=set)
    _leased: list[Digest] = field(default_factory=list)

    async def solve(self) -> State:
        """The state of the target, all its layers in the store.

        Raises StepFailed for the first step that fails; whatever was finished stays in the cache.
        """
        try:
            for stage in self.plan.stages:
                self._start(stage.index)
            state = await self._first_failure(self._stages[self.plan.target])
            # Who is cancelled here must not cancel them: other builds may stand on them.
            await asyncio.gather(*(asyncio.shield(layer.info) for layer in state.layers))
            return state
        finally:
            await finished(self._settle())

    async def stage(self, index: int) -> State:
        """Waits for a stage that another one needs."""
        return await asyncio.shield(self._stages[index])

    def states(self) -> dict[int, State]:
        """Of the stages that are finished."""
        return {
            index: task.result()
            for index, task in self._stages.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    def _start(self, index: int) -> None:
        name = f"build stage {index}"
        self._stages[index] = asyncio.create_task(self._stage(self.plan.stage(index)), name=name)

    async def _first_failure(self, target: asyncio.Task[State]) -> State:
        """The target's state; a failure anywhere ends the build at once."""
        left = set(self._stages.values())
        while target in left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if target in done:
                break
        return target.result()

    async def _settle(self) -> None:
        """Ends what is under way; layers of finished steps are still put in the store."""
        for task in self._stages.values():
            task.cancel()
        await asyncio.gather(*self._stages.values(), return_exceptions=True)
        while self._commits:
            await asyncio.wait(self._commits)
            self._commits = {task for task in self._commits if not task.done()}
        for future in self.own.values():
            if future.done() and not future.cancelled():
                future.exception()  # told by its stage

    def release(self) -> None:
        """Gives up the leases on layers, once the image's record stands."""
        self.shared.images.leases.release(self._leased)
        self._leased.clear()

    # -- stages ----------------------------------------------------------------------------

    async def _stage(self, plan: StagePlan) -> State:
        state = await self._base(plan)
        silent: list[Vertex] = []

        def decided(is_hit: bool) -> None:
            """Instructions that only change the config were there before when the next step was."""
            now = time.time_ns()
            for vertex in silent:
                self.tell(Started(vertex, now))
                self.tell(Finished(vertex, now, cached=is_hit, result=state.id))
            silent.clear()

        for step in plan.steps:
            vertex = self.vertices[plan.index, step.index]
            if step.op is None:
                silent.append(vertex)
                if state.was_built:
                    decided(False)
                state = state.after(step, None)
                continue
            result = await self._step(plan, step, step.op, state, vertex, decided)
            state = state.after(step, result)
        decided(state.was_found)
        return state

    async def _base(self, plan: StagePlan) -> State:
        vertex = self.vertices[plan.index, -1]
        source = plan.base
        if isinstance(source, StageInput):
            below = await self.stage(source.index)
            self._tell_base(vertex, below.id)
            # Its steps are this stage's base, and stand in its history.
            return State(below.id, below.base, below.done, below.was_built)
        if isinstance(source, ImageInput):
            layers = [await self.held(layer) for layer in self.bases[source].layers]
            state = State(keys.base_id(self.bases[source].layers), tuple(layers))
        else:
            state = State(keys.base_id([]))
        self._tell_base(vertex, state.id)
        return state

    def _tell_base(self, vertex: Vertex, result: str) -> None:
        now = time.time_ns()
        self.tell(Started(vertex, now))
        self.tell(Finished(vertex, now, cached=True, result=result))

    async def held(self, layer: Digest) -> Layer:
        return finished_layer(await settled(self._hold, layer))

    def _hold(self, layer: Digest) -> LayerInfo:
        """The lease and the note of it are one, whoever is cancelled meanwhile. Blocks."""
        while (info := self.shared.images.held_layer(layer)) is None:
            self.shared.images.layer_info(layer)  # raises, and says what to do
        self._leased.append(layer)
        return info

    # -- steps -----------------------------------------------------------------------------

    async def _step(
        self,
        plan: StagePlan,
        step: Step,
        op: Op,
        state: State,
        vertex: Vertex,
        decided: Callable[[bool], None],
    ) -> StepResult:
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self.tell(Started(vertex, time.time_ns()))

        try:
            async with AsyncExitStack() as stack:
                run = StepRun(self, plan, step, op, state, vertex, start, decided)
                result, why = await run.run(stack)
        except asyncio.CancelledError:
            if started:
                self.tell(Finished(vertex, time.time_ns(), error=CANCELLED))
            raise
        except StepFailed:
            raise
        except (EstibaError, OSError) as error:
            decided(False)
            start()
            failed = StepFailed(reason(error), Failure(vertex, step.instruction.span))
            self.tell(Finished(vertex, time.time_ns(), error=str(failed)))
            raise failed from error
        start()
        self.tell(
            Finished(
                vertex, time.time_ns(), cached=result.cached, reason=why, result=result.record_id
            )
        )
        return result

    def commit(
        self, frozen: Frozen, record: CacheRecord, failure: Failure
    ) -> asyncio.Task[LayerInfo]:
        """Hashes and stores a finished step's layer, then its record, beside what comes next.

        `failure` is what a want of space, for instance, is told as.
        """
        work = self._commit(frozen, record, failure)
        task = asyncio.create_task(work, name=f"layer of {record.id[:12]}")
        self._commits.add(task)
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return task

    def keep(self, diff_id: Digest) -> None:
        """Leases a layer for as long as the build lasts."""
        self.shared.images.leases.take([diff_id])
        self._leased.append(diff_id)

    async def _commit(self, frozen: Frozen, record: CacheRecord, failure: Failure) -> LayerInfo:
        try:
            info = await settled_apart(self.shared.workspaces.commit, frozen, self.keep)
            whole = msgspec.structs.replace(record, layer=info.diff_id, size_bytes=info.size_bytes)
            await settled(self.session.add, whole)
            return info
        except (EstibaError, OSError) as error:
            await settled(self.shared.workspaces.discard, record.id)
            raise StepFailed(f"the step's layer: {reason(error)}", failure) from error
