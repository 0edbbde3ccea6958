"""A plan carried out: stages at once, steps found in the cache or done, layers hashed beside.

Owns the order of things within one build; what a step does stands in `stepwork`, what the cache
keeps in `cache`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from estiba.build import keys
from estiba.build.cache import Session
from estiba.build.effects import entered, settled, settled_apart
from estiba.build.explain import decide_hit, decide_miss
from estiba.build.failure import Failure, StepFailed, reason
from estiba.build.files.model import Taken
from estiba.build.flights import Flights
from estiba.build.ops import (
    CopyOp,
    DirectoryOp,
    ImageInput,
    Input,
    Op,
    Plan,
    RunOp,
    StageInput,
    StagePlan,
    Step,
)
from estiba.build.ports import Frozen, Workspaces
from estiba.build.progress import CANCELLED, Finished, Log, Started, Tell, Vertex
from estiba.build.record import CacheRecord, Facts
from estiba.build.running.targets import forget_untouched
from estiba.build.state import Layer, State, StepResult, finished_layer
from estiba.build.stepwork import ExitError, StepWork
from estiba.build.trees import Trees
from estiba.images.images import Images
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError
from estiba.model.ids import new_id
from estiba.storage.layers import LayerInfo

_KEPT_OUTPUT_LINES = 20
_MAX_OUTPUT_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """`ignored` are the stages that are built anew, None all of them."""

    ignored: Collection[str] | None = ()
    remote: Callable[[list[str]], Awaitable[CacheRecord | None]] | None = None
    """Asks imported caches for a record by its keys; what it gives is whole."""

    def ignores(self, stage: StagePlan) -> bool:
        return (
            self.ignored is None or stage.title in self.ignored or str(stage.index) in self.ignored
        )


@dataclass(slots=True)
class Shared:
    """What all builds of an engine share."""

    images: Images
    workspaces: Workspaces
    flights: Flights[StepResult]
    slots: asyncio.Semaphore
    """One a core: steps that are carried out at this moment."""


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
    keep_failed: Callable[[StagePlan, State, Step, LayerInfo], Awaitable[str]]
    found: list[CacheRecord] = field(default_factory=list)
    _stages: dict[int, asyncio.Task[State]] = field(default_factory=dict)
    _own: dict[str, asyncio.Future[StepResult]] = field(default_factory=dict)
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
            await asyncio.gather(*(layer.info for layer in state.layers))
            return state
        finally:
            await self._settle()

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
        for future in self._own.values():
            if future.done() and not future.cancelled():
                future.exception()  # told by its stage

    def release(self) -> None:
        """Gives up the leases on layers, once the image's record stands."""
        self.shared.images.leases.release(self._leased)
        self._leased.clear()

    # -- stages ----------------------------------------------------------------------------

    async def _stage(self, plan: StagePlan) -> State:
        state = await self._base(plan)
        for step in plan.steps:
            vertex = self.vertices[plan.index, step.index]
            if step.op is None:
                now = time.time_ns()
                self.tell(Started(vertex, now))
                self.tell(Finished(vertex, now, cached=True, result=state.id))
                state = state.after(step, None)
                continue
            state = state.after(step, await self._step(plan, step, step.op, state, vertex))
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
            layers = [await self._held(layer) for layer in self.bases[source].layers]
            state = State(keys.base_id(self.bases[source].layers), tuple(layers))
        else:
            state = State(keys.base_id([]))
        self._tell_base(vertex, state.id)
        return state

    def _tell_base(self, vertex: Vertex, result: str) -> None:
        now = time.time_ns()
        self.tell(Started(vertex, now))
        self.tell(Finished(vertex, now, cached=True, result=result))

    async def _held(self, layer: Digest) -> Layer:
        info = await settled(self.shared.images.held_layer, layer)
        if info is None:
            info = self.shared.images.layer_info(layer)  # says what to do
        self._leased.append(layer)
        return finished_layer(info)

    # -- steps -----------------------------------------------------------------------------

    async def _step(
        self, plan: StagePlan, step: Step, op: Op, state: State, vertex: Vertex
    ) -> StepResult:
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self.tell(Started(vertex, time.time_ns()))

        try:
            async with AsyncExitStack() as stack:
                result, why = await _StepRun(self, plan, step, op, state, vertex, start).run(stack)
        except asyncio.CancelledError:
            if started:
                self.tell(Finished(vertex, time.time_ns(), error=CANCELLED))
            raise
        except StepFailed:
            raise
        except (EstibaError, OSError) as error:
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


@dataclass(slots=True)
class _StepRun:
    """One step's way: keys, cache, and the work if it must be done."""

    solver: Solver
    plan: StagePlan
    step: Step
    op: Op
    state: State
    vertex: Vertex
    start: Callable[[], None]
    output: deque[bytes] = field(default_factory=lambda: deque(maxlen=_KEPT_OUTPUT_LINES))
    identities: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)

    async def run(self, stack: AsyncExitStack) -> tuple[StepResult, str]:
        """The result, and why the cache hit or missed."""
        solver, op = self.solver, self.op
        if isinstance(op, RunOp):
            solver.work.check(op)
        inputs = _inputs(op)
        self.identities = [await solver.trees.identity(source) for source in inputs]
        is_ignored = solver.policy.ignores(self.plan)
        found_keys: list[str] = []
        if all(self.identities):
            found_keys.append(self._key(self.identities))
            if not is_ignored and (record := await self._find(found_keys)):
                return await self._use(record, found_keys), self._hit(record)
        taken = None
        if not all(self.identities) or (isinstance(op, CopyOp) and inputs):
            self.start()
            taken, self.content = await self._content(inputs, stack)
            found_keys.append(self._key(self.content))
            if not is_ignored and (record := await self._find(found_keys[-1:])):
                return await self._use(record, found_keys), self._hit(record)
        why = "miss: the cache is not to be used" if is_ignored else self._miss()
        return await self._fly(found_keys, taken, is_ignored), why

    def _key(self, identities: list[str]) -> str:
        around = [part for pair in self._around().items() for part in pair]
        return keys.step_key(self.state.id, self.op, identities, around)

    def _around(self) -> dict[str, str]:
        """The client's wishes that change what the step makes, by their names."""
        work = self.solver.work
        found: dict[str, str] = {}
        if work.around.newest_ns is not None:
            found["SOURCE_DATE_EPOCH"] = str(work.around.newest_ns)
        if isinstance(self.op, RunOp):
            found["network"] = work.network(self.op)
            found["extra hosts"] = " ".join(work.around.extra_hosts)
            found["platform"] = str(self.plan.platform)
        return found

    def _hit(self, record: CacheRecord) -> str:
        return decide_hit(record, time.time_ns())

    def _miss(self) -> str:
        return decide_miss(
            self._facts(),
            self._parent(),
            self.solver.session.cache.records(),
            parent_was_built=self.state.was_built,
        )

    def _facts(self) -> Facts:
        text = self.step.instruction.text
        inputs = self.content or self.identities
        return keys.facts(self.op, text, self.plan.title, self.files, inputs, self._around())

    def _parent(self) -> str:
        """A linked copy stands on nothing."""
        return "" if isinstance(self.op, CopyOp) and self.op.link else self.state.id

    async def _find(self, wanted: list[str]) -> CacheRecord | None:
        record = self.solver.session.find(wanted)
        if record is None and self.solver.policy.remote is not None:
            record = await self.solver.policy.remote(wanted)
        return record

    async def _use(self, record: CacheRecord, wanted: list[str]) -> StepResult:
        solver = self.solver
        solver.found.append(record)
        await settled(solver.session.cache.add_keys, record, wanted)
        layer = await solver._held(record.layer) if record.layer else None
        return StepResult(record.id, layer, record.created_ns, cached=True)

    async def _content(
        self, inputs: list[Input], stack: AsyncExitStack
    ) -> tuple[Taken | None, list[str]]:
        """What the inputs hold, by a look at them."""
        if isinstance(self.op, CopyOp):
            taken = await self.solver.work.taken(self.op, stack)
            self.files = taken.files
            return taken, [taken.digest]
        assert isinstance(self.op, RunOp)
        content = []
        files: dict[str, str] = {}
        mounts = [mount for mount in self.op.mounts if mount.input is not None]
        for mount, identity in zip(mounts, self.identities, strict=True):
            if identity:
                content.append(identity)
                continue
            digest, listed = await self.solver.work.bind_content(mount)
            content.append(digest)
            files |= listed
        self.files = files
        return None, content

    # -- the work --------------------------------------------------------------------------

    async def _fly(self, wanted: list[str], taken: Taken | None, is_ignored: bool) -> StepResult:
        """Once for all who want the same now; in one build, once for good."""
        solver = self.solver
        key = wanted[-1]
        own = solver._own.get(key)
        if own is not None:
            result = await asyncio.shield(own)
            return StepResult(result.record_id, result.layer, result.created_ns, cached=True)
        future: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        solver._own[key] = future
        try:
            if is_ignored:
                result = await self._do(wanted, taken)
            else:
                result = await self._do_or_join(key, wanted, taken)
        except BaseException as error:
            future.set_exception(
                error
                if isinstance(error, Exception)
                else StepFailed(
                    "the step was given up", Failure(self.vertex, self.step.instruction.span)
                )
            )
            future.exception()
            raise
        future.set_result(result)
        return result

    async def _do_or_join(self, key: str, wanted: list[str], taken: Taken | None) -> StepResult:
        result, is_mine = await self.solver.shared.flights.join(
            key,
            lambda: self._do(wanted, taken),
            until=lambda result: result.layer.info if result.layer else None,
        )
        if is_mine or result.layer is None:
            return result
        # The other build holds it no longer than it lasts itself.
        info = await asyncio.shield(result.layer.info)
        self.solver.session.find(wanted)
        layer = await self.solver._held(info.diff_id)
        return StepResult(result.record_id, layer, result.created_ns, cached=True)

    async def _do(self, wanted: list[str], taken: Taken | None) -> StepResult:
        async with self.solver.shared.slots:
            self.start()
            return await self._do_now(wanted, taken)

    async def _do_now(self, wanted: list[str], taken: Taken | None) -> StepResult:
        solver, op = self.solver, self.op
        record_id = new_id()
        record = CacheRecord(
            id=record_id,
            keys=wanted,
            parent=self._parent(),
            description=self.vertex.name,
            facts=self._facts(),
            created_ns=time.time_ns(),
            last_used_ns=time.time_ns(),
            uses=1,
        )
        lowers = () if isinstance(op, CopyOp) and op.link else self.state.lowers
        spaces = solver.shared.workspaces
        await settled(spaces.prepare, record_id, lowers)
        try:
            async with entered(spaces.mounted(record_id)) as root:
                if isinstance(op, DirectoryOp) and await solver.work.has_directory(op, root):
                    await settled(spaces.discard, record_id)
                    await settled(solver.session.add, record)
                    return StepResult(record_id, None, record.created_ns)
                untouched = await self._act(root, taken)
            if untouched:
                await settled(forget_untouched, spaces.upper(record_id), untouched)
            frozen = await settled(spaces.freeze, record_id, newest_ns=solver.work.around.newest_ns)
        except ExitError as error:
            raise await self._exited(error, record_id) from error
        except BaseException:
            await settled(spaces.discard, record_id)
            raise
        info = solver.commit(frozen, record, Failure(self.vertex, self.step.instruction.span))
        return StepResult(record_id, Layer(frozen, info), record.created_ns)

    async def _act(self, root: Path, taken: Taken | None) -> tuple[str, ...]:
        """Directories that only the engine's own mounts brought into the step's layer."""
        op, work = self.op, self.solver.work
        match op:
            case RunOp():
                return await work.run(op, root, self._say)
            case CopyOp():
                assert taken is not None
                await work.copy(op, taken, root)
            case DirectoryOp():
                await work.directory(op, root)
        return ()
        return ()

    def _say(self, stream: int, data: bytes) -> None:
        self.output.append(data[-_MAX_OUTPUT_BYTES:])
        self.solver.tell(Log(self.vertex, stream, data))

    async def _exited(self, error: ExitError, record_id: str) -> StepFailed:
        """Keeps what the step left, for whoever wants to look at it."""
        solver = self.solver
        spaces = solver.shared.workspaces
        leased: list[Digest] = []
        state = ""
        try:
            frozen = await settled(spaces.freeze, record_id)

            def keep(diff_id: Digest) -> None:
                solver.shared.images.leases.take([diff_id])
                leased.append(diff_id)

            info = await settled_apart(spaces.commit, frozen, keep)
            state = await solver.keep_failed(self.plan, self.state, self.step, info)
        except (EstibaError, OSError):
            await settled(spaces.discard, record_id)
        finally:
            solver.shared.images.leases.release(leased)
        text = b"".join(self.output).decode(errors="replace")
        lines = text.splitlines()[-_KEPT_OUTPUT_LINES:]
        failure = Failure(
            self.vertex, self.step.instruction.span, error.code, "\n".join(lines), state
        )
        solver.tell(Finished(self.vertex, time.time_ns(), error=str(error)))
        return StepFailed(str(error), failure)


def _inputs(op: Op) -> list[Input]:
    match op:
        case CopyOp():
            return [source for source, _ in op.groups]
        case RunOp():
            return [mount.input for mount in op.mounts if mount.input is not None]
        case DirectoryOp():
            return []
