"""One step's way: its keys, the cache, and the work if it must be done."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from estiba.build import keys
from estiba.build.effects import entered, settled, settled_apart
from estiba.build.explain import JOINED, decide_hit, decide_miss
from estiba.build.failure import Failure, StepFailed, is_nearly_full
from estiba.build.files.model import Taken
from estiba.build.ops import CopyOp, DirectoryOp, Input, Op, RunOp, StagePlan, Step
from estiba.build.ports import RunLimits
from estiba.build.progress import Finished, Log, Vertex
from estiba.build.record import CacheRecord, Facts
from estiba.build.running.targets import forget_untouched
from estiba.build.slots import Slot
from estiba.build.state import Layer, State, StepResult
from estiba.build.stepwork import ExitError
from estiba.kernel.blocking import run_blocking
from estiba.model.digest import Digest
from estiba.model.errors import (
    CommandNotExecutable,
    EstibaError,
    FailedPrecondition,
    LimitExceeded,
)
from estiba.model.ids import new_id

if TYPE_CHECKING:
    from estiba.build.solver import Solver

_KEPT_OUTPUT_LINES = 20
_MAX_OUTPUT_BYTES = 16 << 10


@dataclass(slots=True)
class StepRun:
    """One step's way: keys, cache, and the work if it must be done."""

    solver: Solver
    plan: StagePlan
    step: Step
    op: Op
    state: State
    vertex: Vertex
    start: Callable[[], None]
    decided: Callable[[bool], None]
    """Told whether the cache hit, once that is known."""

    output: deque[bytes] = field(default_factory=lambda: deque(maxlen=_KEPT_OUTPUT_LINES))
    identities: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)
    slot: Slot = field(init=False)

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
        self.decided(False)
        explaining = None if is_ignored else asyncio.ensure_future(self._miss())
        result = await self._fly(found_keys, taken, is_ignored)
        why = await explaining if explaining else "miss: the cache is not to be used"
        return result, JOINED if result.cached else why

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
            found |= _seen_limits(work.around.limits)
        return found

    def _hit(self, record: CacheRecord) -> str:
        return decide_hit(record, time.time_ns())

    def _miss(self) -> Awaitable[str]:
        """Compares with the records of now, which may be many, beside the work."""
        return run_blocking(
            decide_miss,
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
        self.decided(True)
        solver.found.append(record)
        await settled(solver.session.cache.add_keys, record, wanted)
        layer = await solver.held(record.layer) if record.layer else None
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
        own = solver.own.get(key)
        if own is not None:
            result = await asyncio.shield(own)
            return StepResult(result.record_id, result.layer, result.created_ns, cached=True)
        future: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        solver.own[key] = future
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
        layer = await self.solver.held(info.diff_id)
        return StepResult(result.record_id, layer, result.created_ns, cached=True)

    async def _do(self, wanted: list[str], taken: Taken | None) -> StepResult:
        async with Slot(self.solver.shared.slots) as self.slot:
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
        try:
            await settled(spaces.prepare, record_id, lowers)
            async with entered(spaces.mounted(record_id)) as root:
                if isinstance(op, DirectoryOp) and await solver.work.has_directory(op, root):
                    await settled(spaces.discard, record_id)
                    await settled(solver.session.add, record)
                    return StepResult(record_id, None, record.created_ns)
                untouched = await self._act(root, taken, spaces.upper(record_id))
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

    async def _act(self, root: Path, taken: Taken | None, upper: Path) -> tuple[str, ...]:
        """Directories that only the engine's own mounts brought into the step's layer."""
        op, work = self.op, self.solver.work
        match op:
            case RunOp():
                return await self._run(op, root)
            case CopyOp():
                assert taken is not None
                await work.copy(op, taken, root, upper)
            case DirectoryOp():
                await work.directory(op, root)
        return ()

    async def _run(self, op: RunOp, root: Path) -> tuple[str, ...]:
        wanted, host = self.plan.platform, self.solver.shared.images.host
        try:
            return await self.solver.work.run(op, root, self._say, self.slot.given_up)
        except CommandNotExecutable as error:
            if wanted.architecture == host.architecture:
                raise
            raise FailedPrecondition(
                f"this host ({host}) cannot run programs for {wanted}: register an emulator with "
                f"the kernel (Debian: qemu-user-static and binfmt-support): {error}"
            ) from error

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
            if solver.keep_failed is None:
                raise FailedPrecondition("nothing is kept of what fails")
            if await settled(is_nearly_full, spaces.upper(record_id)):
                raise LimitExceeded("what filled the disk is not kept")
            frozen = await settled(spaces.freeze, record_id)

            def keep(diff_id: Digest) -> None:
                solver.shared.images.leases.take([diff_id])
                leased.append(diff_id)

            info = await settled_apart(spaces.commit, frozen, keep)
            state = await solver.keep_failed(self.plan, self.state, self.step, info)
        except BaseException as left:
            await settled(spaces.discard, record_id)
            if not isinstance(left, EstibaError | OSError):
                raise
        finally:
            solver.shared.images.leases.release(leased)
        text = b"".join(self.output).decode(errors="replace")
        lines = text.splitlines()[-_KEPT_OUTPUT_LINES:]
        failure = Failure(
            self.vertex, self.step.instruction.span, error.code, "\n".join(lines), state
        )
        solver.tell(Finished(self.vertex, time.time_ns(), error=str(error)))
        return StepFailed(str(error), failure)


def _seen_limits(limits: RunLimits) -> dict[str, str]:
    """Those that the client gave and that programs commonly write down or obey."""
    found = {}
    if limits.shm_bytes:
        found["shm size"] = str(limits.shm_bytes)
    if limits.ulimits:
        found["ulimits"] = " ".join(
            sorted(f"{one.name}={one.soft}:{one.hard}" for one in limits.ulimits)
        )
    return found


def _inputs(op: Op) -> list[Input]:
    match op:
        case CopyOp():
            return [source for source, _ in op.groups]
        case RunOp():
            return [mount.input for mount in op.mounts if mount.input is not None]
        case DirectoryOp():
            return []
