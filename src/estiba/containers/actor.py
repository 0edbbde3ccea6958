"""One container: the sole writer of its record and of its kernel resources.

Every change has the same shape: decide, note the intent, take idempotent steps, then one
commit that writes state and event and deletes the intent. The lock is held over a change and
never over a wait for the program to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator

import msgspec

from estiba.containers.attach import AttachHub
from estiba.containers.forward import check_sink, open_forwarder
from estiba.containers.health import HealthWatch, plan_health
from estiba.containers.journal import Journal, events_down, events_up
from estiba.containers.limits import updated as with_update
from estiba.containers.ports import Exit
from estiba.containers.record import KIND, ContainerRecord, Health, ProbeResult
from estiba.containers.restart import decide_restart, delay_s
from estiba.containers.signals import SIGKILL, is_stop_signal, parse_signal
from estiba.containers.waiters import Waiters
from estiba.containers.world import World
from estiba.kernel.pidfd import ProcessIdentity, is_alive
from estiba.model.container import Resources, RestartPolicy
from estiba.model.errors import Conflict, EstibaError, Internal, NotFound, NotModified
from estiba.model.state import ContainerState, move
from estiba.store import Intent

_log = logging.getLogger(__name__)

_GRACE_AFTER_KILL_S = 10.0
_TEAR_DOWN_ATTEMPTS = 3


class Actor:
    """Made by the engine for every container that exists."""

    def __init__(self, record: ContainerRecord, world: World) -> None:
        self._journal = Journal(record, world)
        self.hub = AttachHub(world.paths.data_root / "tmp")
        self.ended = asyncio.Event()
        """Set while no run is under way; a log follower ends then."""
        self._world = world
        self._lock = asyncio.Lock()
        self._exit = Waiters()
        self._removal = Waiters()
        self._run_tasks: list[asyncio.Task[None]] = []
        self._restart_task: asyncio.Task[None] | None = None
        self._stopped_as_unhealthy = False
        self._restarts_under_way = 0
        if not record.state.is_up:
            self.ended.set()

    @property
    def record(self) -> ContainerRecord:
        """As it was last written, but for a start under way."""
        return self._journal.record

    # -- changes ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the program.

        Raises NotModified when it runs already, and whatever kept it from starting; the
        record then bears the exit code and the error.
        """
        async with self._lock:
            self._cancel_restart()
            await self._start()

    async def _start(self, *, restart_count: int = 0, action: str = "start") -> None:
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
            if self.hub.has_clients:
                self.hub.connect(await self._world.steps.open_console(pending), name=record.name)
            await self._world.steps.release(pending)
            running = msgspec.structs.replace(
                pending,
                state=target,
                started_ns=time.time_ns(),
                finished_ns=0,
                exit_code=0,
                error="",
                oom_killed=False,
                stopped_by_user=False,
                restart_count=restart_count,
                health=Health() if plan_health(record.config) else None,
            )
            await self._journal.commit(running, action, ends="start", events=events_up(pending))
        except BaseException as error:
            await asyncio.shield(self._undo_start(record, error))
            raise
        self.watch_run()

    async def _undo_start(self, record: ContainerRecord, error: BaseException) -> None:
        code = getattr(error, "exit_code", 128)
        await self.hub.close()
        with contextlib.suppress(EstibaError, OSError):
            await self._world.steps.tear_down(self.record)
        self._journal.hold(record)
        state = record.state
        if state == ContainerState.RESTARTING:
            state = move(state, "give up restart", name=record.name)
        failed = msgspec.structs.replace(
            record, state=state, exit_code=code, error=str(error), container=None, monitor=None
        )
        await self._journal.commit(failed, None, ends="start")
        self._exit.resolve(Exit(code))
        if record.host_config.auto_remove:
            await self._remove(volumes=True)

    async def undo_interrupted_start(self) -> None:
        """What recovery does with a start that a crash cut off: as if it had not begun."""
        await self._world.steps.tear_down(self.record)
        stopped = msgspec.structs.replace(self.record, container=None, monitor=None)
        await self._journal.commit(stopped, None, ends="start")

    @property
    def is_watched(self) -> bool:
        """Whether the monitor of the run lives."""
        monitor = self.record.monitor
        return monitor is not None and is_alive(ProcessIdentity(monitor.pid, monitor.start_time))

    def watch_run(self) -> asyncio.Task[None]:
        """Watches a container that is up, after a start or after the engine's own restart.

        The task ends when the end of the run has been recorded.
        """
        name = self.record.name
        tasks = self._world.tasks
        self.ended.clear()
        self._run_tasks = [tasks.spawn(self._watch_exit(self.record), name=f"exit {name}")]
        self._watch_memory(self.record)
        forwarder = open_forwarder(self.record, self._world.paths)
        if forwarder is not None:
            tasks.spawn(forwarder.run(self.ended), name=f"forward {name}")
        plan = plan_health(self.record.config)
        if plan is not None:
            probe = self._world.probe(self.record)
            watch = HealthWatch(plan, probe, self._report_health)
            health = self.record.health or Health()
            self._run_tasks.append(tasks.spawn(watch.run(health), name=f"health {name}"))
        return self._run_tasks[0]

    async def stop(self, *, signal: str | None = None, timeout_s: float | None = None) -> None:
        """Asks the program to end, and after `timeout_s` (negative: never) kills it.

        Raises NotModified when it does not run.
        """
        async with self._lock:
            if self.record.state == ContainerState.RESTARTING:
                await self._give_up_restart()
                return
            if not self.record.state.is_up:
                raise NotModified(f"container {self.record.name} is not running")
            over = await self._ask_to_end(signal, by_user=True)
        await self._insist(over, timeout_s, by_user=True)
        await self.announce("stop")

    async def _ask_to_end(self, signal: str | None, *, by_user: bool) -> asyncio.Future[Exit]:
        over = self._exit.future()
        number = parse_signal(signal or self.record.config.stop_signal or "SIGTERM")
        await self._send(number, by_user=by_user)
        return over

    async def _insist(
        self, over: asyncio.Future[Exit], timeout_s: float | None, *, by_user: bool
    ) -> None:
        """Waits for the end that was asked for, and after a while makes it come."""
        if timeout_s is None:
            configured = self.record.config.stop_timeout
            timeout_s = 10.0 if configured is None else float(configured)
        done, _ = await asyncio.wait([over], timeout=None if timeout_s < 0 else timeout_s)
        if done:
            return
        async with self._lock:
            if self.record.state.is_up and not over.done():
                await self._send(SIGKILL, by_user=by_user)
        done, _ = await asyncio.wait([over], timeout=_GRACE_AFTER_KILL_S)
        if not done:
            raise Internal(
                f"container {self.record.name} does not end after SIGKILL: a process may hang "
                "in the kernel; see `ps` for state D on the host"
            )

    async def kill(self, signal: str) -> None:
        """Sends a signal to the program. Raises Conflict when it does not run."""
        number = parse_signal(signal)
        async with self._lock:
            record = self.record
            stops = is_stop_signal(number, record.config.stop_signal)
            if stops and record.state == ContainerState.RESTARTING:
                await self._give_up_restart()
                return
            if not record.state.is_up:
                raise Conflict(
                    f"cannot kill container: {record.name}: container {record.id} is not running"
                )
            exit_future = self._exit.future()
            await self._send(number, by_user=stops)
        if number == SIGKILL:
            await asyncio.wait([exit_future], timeout=_GRACE_AFTER_KILL_S)

    async def _send(self, number: int, *, by_user: bool) -> None:
        record = self.record
        if by_user and not record.stopped_by_user:
            record = msgspec.structs.replace(record, stopped_by_user=True)
        if record.state == ContainerState.PAUSED and number == SIGKILL:
            await self._journal.begin("kill")
            await self.kill_frozen(record)
            return
        await self._world.controls.signal(record, number)
        await self._journal.commit(record, "kill", attributes={"signal": str(number)})

    async def kill_frozen(self, record: ContainerRecord | None = None) -> None:
        """A frozen program dies of SIGKILL only when it thaws (cgroup v1). Harmless twice."""
        record = record or msgspec.structs.replace(self.record, stopped_by_user=True)
        if record.state == ContainerState.PAUSED:
            await self._world.controls.signal(record, SIGKILL)
            await self._world.controls.unpause(record)
        facts = {"signal": str(SIGKILL)}
        await self._journal.commit(record, "kill", attributes=facts, ends="kill")

    async def restart(self, *, signal: str | None = None, timeout_s: float | None = None) -> None:
        """Stops, if it runs, and starts; one that removes itself at its end stays this time."""
        self._restarts_under_way += 1
        try:
            with contextlib.suppress(NotModified):
                await self.stop(signal=signal, timeout_s=timeout_s)
            async with self._lock:
                await self._start()
        finally:
            self._restarts_under_way -= 1
        await self.announce("restart")

    async def pause(self, *, briefly: bool = False) -> None:
        """Freezes all processes. Raises Conflict unless it runs.

        `briefly` is for the engine's own ends: its next start ends the pause too.
        """
        async with self._lock:
            target = move(self.record.state, "pause", name=self.record.name)
            await self._journal.begin("pause")
            try:
                await self._world.controls.pause(self.record)
            except BaseException:
                await asyncio.shield(self.thaw("pause"))
                raise
            paused = msgspec.structs.replace(self.record, state=target)
            thaw = Intent(f"unpause {paused.id}", KIND, paused.id, "unpause") if briefly else None
            await self._journal.commit(paused, "pause", ends="pause", begins=thaw)

    async def unpause(self) -> None:
        """Thaws all processes. Raises Conflict unless it is paused."""
        async with self._lock:
            move(self.record.state, "unpause", name=self.record.name)
            await self._journal.begin("unpause")
            await self.thaw("unpause")

    async def thaw(self, intent: str) -> None:
        """Undoes a pause that was cut off, or finishes an unpause."""
        record, action = self.record, None
        if record.state.is_up:
            await self._world.controls.unpause(record)
        if record.state == ContainerState.PAUSED:
            action = "unpause"
            state = move(record.state, action, name=record.name)
            record = msgspec.structs.replace(record, state=state)
        await self._journal.commit(record, action, ends=intent)

    async def rename(self, name: str) -> None:
        """Raises AlreadyExists when the name is taken."""
        async with self._lock:
            old = self.record.name
            renamed = msgspec.structs.replace(self.record, name=name)
            await self._journal.commit(renamed, "rename", attributes={"oldName": f"/{old}"})

    async def update(self, resources: Resources, policy: RestartPolicy | None) -> None:
        """Changes limits, of the running container too, and the restart policy."""
        async with self._lock:
            host = with_update(self.record.host_config, resources)
            if policy is not None and policy.name:
                host = msgspec.structs.replace(host, restart_policy=policy)
            updated = msgspec.structs.replace(self.record, host_config=host)
            if updated.state.is_up:
                await self._world.controls.update(updated, resources)
            await self._journal.commit(updated, "update")

    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Removes the container and what it owns.

        Raises Conflict while it is up or about to be, unless `force`.
        """
        restarts = self.record.state == ContainerState.RESTARTING
        killed = force and (self.record.state.is_up or restarts)
        if killed:
            with contextlib.suppress(Conflict):
                await self.kill("SIGKILL")
        async with self._lock:
            if killed and self._world.is_gone(self.record.id):
                return  # it removed itself when it ended
            if not force and self.record.state == ContainerState.RESTARTING:
                raise Conflict(
                    f'cannot remove container "{self.record.name}": container is restarting: '
                    "stop the container before removing or force remove"
                )
            await self._remove(volumes=volumes)

    async def _remove(self, *, volumes: bool) -> None:
        record = self.record
        if self._world.is_gone(record.id):
            raise NotFound(f"No such container: {record.id}")
        if record.state.is_up:
            paused = record.state == ContainerState.PAUSED
            advice = (
                "paused and must be unpaused first"
                if paused
                else "running: stop the container before removing or force remove"
            )
            raise Conflict(f'cannot remove container "{record.name}": container is {advice}')
        self._cancel_restart()
        body = b'{"volumes":true}' if volumes else b"{}"
        removing = msgspec.structs.replace(
            record, state=move(record.state, "remove", name=record.name)
        )
        intent = Intent(f"remove {record.id}", KIND, record.id, "remove", body)
        await self._journal.commit(removing, None, begins=intent)
        await self.finish_removal(volumes=volumes)

    async def finish_removal(self, *, volumes: bool) -> None:
        """Rolls a removal forward: from the intent on there is no way back."""
        record = self.record
        await self.hub.close()
        await self._world.steps.tear_down(record)
        await self._world.steps.discard(record)
        if volumes:
            await self._world.remove_volumes(record)

        await self._journal.erase()
        outcome = Exit(record.exit_code)
        self._exit.resolve(outcome)
        self._removal.resolve(outcome)

    @contextlib.asynccontextmanager
    async def held_at_rest(self) -> AsyncIterator[ContainerRecord]:
        """Holds off the start and the removal of a container that is not up."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._lock)
            if self._world.is_gone(self.record.id):
                raise NotFound(f"No such container: {self.record.id}")
            if self.record.state.is_up:
                await stack.aclose()
            yield self.record

    # -- the end of a run ------------------------------------------------------------------

    async def _watch_exit(self, record: ContainerRecord) -> None:
        outcome = await self._world.steps.wait_exit(record)
        for attempt in itertools.count():
            try:
                async with self._lock:
                    if self.record.container == record.container and self.record.state.is_up:
                        await self._ended(outcome, insist=attempt < _TEAR_DOWN_ATTEMPTS)
                    await self._remove_if_owed()
                return
            except (EstibaError, OSError):
                _log.exception("container %s: its end is tried again", self.record.name)
            await asyncio.sleep(delay_s(attempt))

    async def _ended(self, outcome: Exit, *, insist: bool) -> None:
        """Records the end of a run; without `insist` even if not all of it can be torn down."""
        for task in self._run_tasks[1:]:
            task.cancel()
        self._run_tasks = self._run_tasks[:1]
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
        )
        attributes = {"exitCode": str(outcome.code), "execDuration": str(int(ran_s))}
        if outcome.oom_killed and not record.oom_killed:
            await self.announce("oom")
        await self._journal.commit(
            finished,
            "die",
            ends="kill",
            attributes=attributes,
            events=events_down(record),
        )
        self._stopped_as_unhealthy = False
        self.ended.set()
        self._exit.resolve(outcome)
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

    async def _remove_if_owed(self) -> None:
        record = self.record
        over = record.state in (ContainerState.EXITED, ContainerState.REMOVING)
        gone = self._world.is_gone(record.id)
        stays = self._restarts_under_way > 0 or self._world.is_quiet
        if over and record.host_config.auto_remove and not gone and not stays:
            await self._remove(volumes=True)

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
            await self._start(restart_count=count)
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

    def _cancel_restart(self) -> None:
        task, self._restart_task = self._restart_task, None
        if task is not None:
            task.cancel()

    async def _give_up_restart(self) -> None:
        self._cancel_restart()
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
            over = await self._ask_to_end(None, by_user=False)
        await self._insist(over, None, by_user=False)

    # -- waiting ---------------------------------------------------------------------------

    def wait_future(self, condition: str) -> asyncio.Future[Exit]:
        """A future for `not-running`, `next-exit` or `removed`, registered at once."""
        if condition == "removed":
            return self._removal.future()
        if condition == "next-exit":
            return self._exit.future()
        if self.record.state.is_up or self.record.state == ContainerState.RESTARTING:
            return self._exit.future()
        done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        done.set_result(Exit(self.record.exit_code, error=self.record.error))
        return done

    async def announce(self, action: str, attributes: dict[str, str] | None = None) -> None:
        """Records an event that changes no state, such as attach or exec_start."""
        await self._journal.announce(action, attributes)
