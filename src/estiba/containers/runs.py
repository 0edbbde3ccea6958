"""The runs of one container: begun, watched, ended, and begun again by its restart policy.

All that changes the record is called with the container's lock held, or takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from typing import Protocol

import msgspec

from estiba.containers.attach import AttachHub
from estiba.containers.endings import Endings
from estiba.containers.forward import Forwarder, open_forwarder
from estiba.containers.health import HealthWatch, plan_health
from estiba.containers.journal import Journal, events_down, events_up
from estiba.containers.ports import Exit
from estiba.containers.record import ContainerRecord, Health, ProbeResult
from estiba.containers.restart import decide_restart, delay_s
from estiba.containers.sinks import check_sink
from estiba.containers.world import World
from estiba.kernel.pidfd import ProcessIdentity, is_alive
from estiba.model.errors import Conflict, EstibaError, NotModified
from estiba.model.state import ContainerState, move

_log = logging.getLogger(__name__)

_TEAR_DOWN_ATTEMPTS = 3
_LAST_LINES_S = 2.0


class RemoveIfOwed(Protocol):
    async def __call__(self, *, has_run: bool) -> None: ...


class Runs:
    """`remove_if_owed` is awaited, with the lock held, once the end of a run has been recorded
    or a start has failed: some containers remove themselves then.
    """

    def __init__(
        self,
        journal: Journal,
        world: World,
        lock: asyncio.Lock,
        endings: Endings,
        *,
        remove_if_owed: RemoveIfOwed,
    ) -> None:
        self.hub = AttachHub(world.paths.data_root / "tmp")
        self.ended = asyncio.Event()
        """Set once the last run has ended, by when a log follower ends too. Each run has one of
        its own: a follower that is slow would miss the end of a run that another follows."""
        self._journal = journal
        self._world = world
        self._lock = lock
        self._endings = endings
        self._remove_if_owed = remove_if_owed
        self._tasks: list[asyncio.Task[None]] = []
        self._restart_task: asyncio.Task[None] | None = None
        self._forwarding: asyncio.Task[None] | None = None
        self._stopped_as_unhealthy = False
        if not self.record.state.is_up:
            self.ended.set()

    @property
    def record(self) -> ContainerRecord:
        return self._journal.record

    # -- the beginning ---------------------------------------------------------------------

    async def start(self, *, restart_count: int = 0) -> None:
        """Raises NotModified when it runs already, Conflict when it is paused, and whatever
        kept it from starting; the record then bears the exit code and the error.
        """
        self.cancel_restart()
        record = self.record
        if record.state == ContainerState.RUNNING:
            raise NotModified(f"container {record.name} is already running")
        if record.state == ContainerState.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        target = move(record.state, "start", name=record.name)
        await self._journal.begin("start")
        try:
            check_sink(record)
            up = await self._world.steps.bring_up(record)
            pending = msgspec.structs.replace(
                record,
                container=up.container,
                monitor=up.monitor,
                networks=up.networks,
                ports=up.ports,
            )
            self._journal.hold(pending)
            await self._connect_clients(pending)
            await self._world.steps.release(pending)
            running = msgspec.structs.replace(
                pending,
                state=target,
                started_ns=time.time_ns(),
                exit_code=0,
                error="",
                oom_killed=False,
                stopped_by_user=False,
                restart_count=restart_count,
                health=Health() if plan_health(record.config) else None,
            )
            await self._journal.commit(running, "start", ends="start", events=events_up(pending))
        except BaseException as error:
            if self.record.state.is_up:
                self.watch()  # cancelled when it was told of as started already
            else:
                await asyncio.shield(self._undo_start(record, error))
            raise
        self.watch()
        linking = self._world.linking(record.id)
        if linking:
            await self._world.connecting.tell_linking(linking)
        # Whoever attached since the program was released took it for one that does not run.
        with contextlib.suppress(EstibaError):
            await self._connect_clients(self.record)

    async def _connect_clients(self, record: ContainerRecord) -> None:
        """Raises FailedPrecondition when the monitor is gone."""
        if self.hub.has_clients and not self.hub.is_connected:
            self.hub.connect(await self._world.steps.open_console(record), name=record.name)

    async def _undo_start(self, record: ContainerRecord, error: BaseException) -> None:
        code = getattr(error, "exit_code", 128)
        await self.hub.close()
        try:
            await self._world.steps.tear_down(self.record)
        except (EstibaError, OSError):
            _log.exception("container %s: left for its next start or removal", record.name)
        self._journal.hold(record)
        state = record.state
        if state == ContainerState.RESTARTING:
            state = move(state, "give up restart", name=record.name)
        failed = msgspec.structs.replace(
            record, state=state, exit_code=code, error=str(error), container=None, monitor=None
        )
        await self._journal.commit(failed, None, ends="start")
        self._endings.exit.resolve(Exit(code))
        await self._remove_if_owed(has_run=False)

    async def undo_interrupted(self) -> None:
        """What recovery does with a start that a crash cut off: as if it had not begun."""
        await self._world.steps.tear_down(self.record)
        stopped = msgspec.structs.replace(self.record, container=None, monitor=None)
        await self._journal.commit(stopped, None, ends="start")

    @property
    def is_watched(self) -> bool:
        """Whether the monitor of the run lives."""
        monitor = self.record.monitor
        return monitor is not None and is_alive(ProcessIdentity(monitor.pid, monitor.start_time))

    def watch(self) -> asyncio.Task[None]:
        """Watches a container that is up, after a start or after the engine's own restart.

        The task ends when the end of the run has been recorded.
        """
        name = self.record.name
        tasks = self._world.tasks
        self.ended = asyncio.Event()
        self._tasks = [tasks.spawn(self._watch_exit(self.record), name=f"exit {name}")]
        self._watch_memory(self.record)
        self._forward()
        plan = plan_health(self.record.config)
        if plan is not None:
            probe = self._world.probe(self.record)
            watch = HealthWatch(plan, probe, self._report_health, is_paused=self._is_paused)
            health = self.record.health or Health()
            self._tasks.append(tasks.spawn(watch.run(health), name=f"health {name}"))
        return self._tasks[0]

    def _is_paused(self) -> bool:
        return self.record.state == ContainerState.PAUSED

    def _forward(self) -> None:
        """Begins to send the lines on. After a start it is too late to fail for that."""
        try:
            forwarder = open_forwarder(self.record, self._world.paths)
        except EstibaError as error:
            _log.warning("container %s: its lines are not sent on: %s", self.record.name, error)
            return
        if forwarder is not None:
            self._forwarding = self._world.tasks.spawn(
                self._send_on(forwarder, self.ended, self._forwarding),
                name=f"forward {self.record.name}",
            )

    async def _send_on(
        self, forwarder: Forwarder, ended: asyncio.Event, before: asyncio.Task[None] | None
    ) -> None:
        """One after the other: the run `before` may still wait for the receiver."""
        if before is not None:
            await asyncio.wait({before})
        await forwarder.run(ended)

    async def last_lines_sent(self) -> None:
        """Waits until what the container wrote is sent on; not long, its receiver may be away."""
        if self._forwarding is not None:
            await asyncio.wait({self._forwarding}, timeout=_LAST_LINES_S)

    # -- the end of a run ------------------------------------------------------------------

    async def _watch_exit(self, record: ContainerRecord) -> None:
        outcome = await self._world.steps.wait_exit(record)
        for attempt in itertools.count():
            try:
                async with self._lock:
                    if self.record.container == record.container and self.record.state.is_up:
                        await self._ended(outcome, insist=attempt < _TEAR_DOWN_ATTEMPTS)
                    await self._remove_if_owed(has_run=True)
                return
            except (EstibaError, OSError):
                _log.exception("container %s: its end is tried again", self.record.name)
            await asyncio.sleep(delay_s(attempt))

    async def _ended(self, outcome: Exit, *, insist: bool) -> None:
        """Records the end of a run; without `insist` even if not all of it can be torn down."""
        for task in self._tasks[1:]:
            task.cancel()
        self._tasks = self._tasks[:1]
        await self.hub.finish()
        try:
            await self._world.steps.tear_down(self.record)
        except (EstibaError, OSError):
            if insist:
                raise
            _log.exception("container %s: left for its next start or removal", self.record.name)
        record = self.record
        ran_s = (time.time_ns() - record.started_ns) / 1e9
        restart = decide_restart(
            record, exit_code=outcome.code, ran_s=ran_s, unhealthy=self._stopped_as_unhealthy
        )
        state = move(record.state, "exit", name=record.name)
        if restart is not None and not self._world.is_quiet:
            state = move(state, "await restart", name=record.name)
        finished = msgspec.structs.replace(
            record,
            state=state,
            finished_ns=time.time_ns(),
            exit_code=outcome.code,
            oom_killed=outcome.oom_killed,
            error=outcome.error,
            container=None,
            monitor=None,
            networks=[net.at_rest for net in record.networks],
        )
        if outcome.oom_killed and not record.oom_killed:
            await self._journal.announce("oom")
        facts = {"exitCode": str(outcome.code), "execDuration": str(int(ran_s))}
        down = events_down(record)
        await self._journal.commit(finished, "die", ends="kill", attributes=facts, events=down)
        self._stopped_as_unhealthy = False
        # Clients that attached since the last output took it for one that runs.
        self.hub.end_clients()
        self.ended.set()
        self._endings.exit.resolve(outcome)
        if state == ContainerState.RESTARTING and restart is not None:
            self._schedule_restart(restart.delay_s, restart.count)

    def _watch_memory(self, run: ContainerRecord) -> None:
        def killed() -> None:
            self._world.tasks.spawn(self._ran_out_of_memory(run), name=f"oom {run.name}")

        self._world.steps.watch_memory(run, killed)

    async def _ran_out_of_memory(self, run: ContainerRecord) -> None:
        """One of its processes was killed; the container itself may go on."""
        async with self._lock:
            same = self.record.state.is_up and self.record.container == run.container
            if same and not self.record.oom_killed:
                record = msgspec.structs.replace(self.record, oom_killed=True)
                await self._journal.commit(record, "oom")

    def _schedule_restart(self, delay_s: float, count: int) -> None:
        async def restart_later() -> None:
            await asyncio.sleep(delay_s)
            async with self._lock:
                if self.record.state == ContainerState.RESTARTING:
                    self._restart_task = None
                    await self._restart_once(count)

        self._restart_task = self._world.tasks.spawn(
            restart_later(), name=f"restart {self.record.name}"
        )

    async def _restart_once(self, count: int) -> None:
        try:
            await self.start(restart_count=count)
        except (EstibaError, OSError) as error:
            record = msgspec.structs.replace(
                self.record, restart_count=count, state=ContainerState.EXITED
            )
            restart = decide_restart(record, exit_code=record.exit_code or 128, ran_s=0)
            if restart is None:
                await self._journal.commit(record, None)
                return
            waiting = msgspec.structs.replace(
                record, state=ContainerState.RESTARTING, error=str(error)
            )
            await self._journal.commit(waiting, None)
            self._schedule_restart(restart.delay_s, restart.count)

    def cancel_restart(self) -> None:
        """Harmless when none is awaited."""
        task, self._restart_task = self._restart_task, None
        if task is not None:
            task.cancel()

    async def give_up_restart(self) -> None:
        """A stop or kill of a container that waits for its restart."""
        self.cancel_restart()
        state = move(self.record.state, "give up restart", name=self.record.name)
        given_up = msgspec.structs.replace(self.record, state=state, stopped_by_user=True)
        await self._journal.commit(given_up, "stop")

    async def _report_health(self, health: Health, _result: ProbeResult) -> None:
        async with self._lock:
            before = self.record.health
            if not self.record.state.is_up:
                return
            changed = before is None or before.status != health.status
            action = f"health_status: {health.status}" if changed else None
            await self._journal.commit(msgspec.structs.replace(self.record, health=health), action)
            policy = self.record.host_config.restart_policy.name
            if changed and health.status == "unhealthy" and policy == "on-unhealthy":
                self._stopped_as_unhealthy = True
                self._world.tasks.spawn(
                    self._stop_unhealthy(), name=f"unhealthy {self.record.name}"
                )

    async def _stop_unhealthy(self) -> None:
        async with self._lock:
            if not self.record.state.is_up:
                return
            over = await self._endings.ask(None, by_user=False)
        await self._endings.insist(over, None, by_user=False)
