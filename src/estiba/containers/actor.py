"""One container: the sole writer of its record and of its kernel resources.

Every change has the same shape: decide, note the intent, take idempotent steps, then one
commit that writes state and event and deletes the intent. The lock is held over a change and
never over a wait for the program to end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from estiba.containers.connections import Connections
from estiba.containers.endings import GRACE_AFTER_KILL_S, Endings, overdue
from estiba.containers.journal import Journal
from estiba.containers.limits import updated as with_update
from estiba.containers.ports import Exit
from estiba.containers.record import KIND, ContainerRecord
from estiba.containers.runs import Runs
from estiba.containers.signals import SIGKILL, is_stop_signal, parse_signal
from estiba.containers.waiters import Waiters
from estiba.containers.world import World
from estiba.model.container import Resources, RestartPolicy
from estiba.model.errors import Conflict, NotFound, NotModified
from estiba.model.state import ContainerState, move
from estiba.store import Intent


class Actor:
    """Made by the engine for every container that exists."""

    def __init__(self, record: ContainerRecord, world: World) -> None:
        self._journal = Journal(record, world)
        self._world = world
        self._lock = asyncio.Lock()
        self.endings = Endings(self._journal, world, self._lock)
        self.runs = Runs(
            self._journal, world, self._lock, self.endings, remove_if_owed=self._remove_if_owed
        )
        self.connections = Connections(self._journal, world, self._lock)
        self._removal = Waiters()
        self._restarts_under_way = 0

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
            await self.runs.start()

    async def stop(self, *, signal: str | None = None, timeout_s: float | None = None) -> None:
        """Asks the program to end, and after `timeout_s` (negative: never) kills it.

        Raises NotModified when it does not run.
        """
        async with self._lock:
            if self.record.state == ContainerState.RESTARTING:
                await self.runs.give_up_restart()
                return
            if not self.record.state.is_up:
                raise NotModified(f"container {self.record.name} is not running")
            over = await self.endings.ask(signal, by_user=True)
        await self.endings.insist(over, timeout_s, by_user=True)
        await self.announce("stop")

    async def kill(self, signal: str) -> None:
        """Sends a signal to the program, and waits for its end if that is SIGKILL.

        Raises Conflict when it does not run, Internal when it does not end.
        """
        number = parse_signal(signal)
        async with self._lock:
            record = self.record
            stops = is_stop_signal(number, record.config.stop_signal)
            if stops and record.state == ContainerState.RESTARTING:
                await self.runs.give_up_restart()
                return
            if not record.state.is_up:
                raise Conflict(
                    f"cannot kill container: {record.name}: container {record.id} is not running"
                )
            exit_future = self.endings.exit.future()
            await self.endings.send(number, by_user=stops)
        if number == SIGKILL:
            done, _ = await asyncio.wait([exit_future], timeout=GRACE_AFTER_KILL_S)
            if not done:
                raise overdue(self.record)

    async def restart(self, *, signal: str | None = None, timeout_s: float | None = None) -> None:
        """Stops, if it runs, and starts; one that removes itself at its end stays this time."""
        self._restarts_under_way += 1
        try:
            with contextlib.suppress(NotModified):
                await self.stop(signal=signal, timeout_s=timeout_s)
            async with self._lock:
                await self.runs.start()
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

    async def rename(self, name: str) -> str:
        """The name that it had. Raises AlreadyExists when the new one is taken."""
        async with self._lock:
            old = self.record.name
            networks = [net.renamed(old, name) for net in self.record.networks]
            renamed = msgspec.structs.replace(self.record, name=name, networks=networks)
            await self._journal.commit(renamed, "rename", attributes={"oldName": f"/{old}"})
            if renamed.state.is_up:
                await self.connections.rename(name)
            return old

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

    async def annotate(self, name: str, value: str) -> None:
        """Sets an annotation, or takes it away if `value` is empty."""
        async with self._lock:
            host = self.record.host_config
            others = {key: text for key, text in host.annotations.items() if key != name}
            annotations = {**others, name: value} if value else others
            host = msgspec.structs.replace(host, annotations=annotations)
            updated = msgspec.structs.replace(self.record, host_config=host)
            await self._journal.commit(updated, "update")

    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Removes the container and what it owns.

        Raises Conflict while it is up or about to be, unless `force`.
        """
        killed = False
        while True:
            restarts = self.record.state == ContainerState.RESTARTING
            if force and (self.record.state.is_up or restarts):
                killed = True
                with contextlib.suppress(Conflict):
                    await self.kill("SIGKILL")
            async with self._lock:
                if killed and self._world.is_gone(self.record.id):
                    return  # it removed itself when it ended
                if force and not killed and self.record.state.is_up:
                    continue  # a start was under way
                if not force and self.record.state == ContainerState.RESTARTING:
                    raise Conflict(
                        f'cannot remove container "{self.record.name}": container is restarting: '
                        "stop the container before removing or force remove"
                    )
                await self._remove(volumes=volumes)
                return

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
        self.runs.cancel_restart()
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
        await self.runs.hub.close()
        await self._world.steps.tear_down(record)
        await self.runs.last_lines_sent()
        await self._world.steps.discard(record)
        if volumes:
            await self._world.remove_volumes(record)

        await self._journal.erase()
        outcome = Exit(record.exit_code)
        self.endings.exit.resolve(outcome)
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

    async def _remove_if_owed(self, *, has_run: bool) -> None:
        record = self.record
        if not record.host_config.auto_remove or self._world.is_gone(record.id):
            return
        stays = self._restarts_under_way > 0 or self._world.is_quiet
        over = record.state in (ContainerState.EXITED, ContainerState.REMOVING)
        if not has_run or (over and not stays):
            await self._remove(volumes=True)

    # -- waiting ---------------------------------------------------------------------------

    def wait_future(self, condition: str) -> asyncio.Future[Exit]:
        """A future for `not-running`, `next-exit` or `removed`, registered at once."""
        if condition == "removed":
            return self._removal.future()
        if condition == "next-exit":
            return self.endings.exit.future()
        if self.record.state.is_up or self.record.state == ContainerState.RESTARTING:
            return self.endings.exit.future()
        done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        done.set_result(Exit(self.record.exit_code, error=self.record.error))
        return done

    async def announce(self, action: str, attributes: dict[str, str] | None = None) -> None:
        """Records an event that changes no state, such as attach or exec_start."""
        await self._journal.announce(action, attributes)
