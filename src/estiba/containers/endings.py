"""How a program is made to end: signals, and patience."""

from __future__ import annotations

import asyncio

import msgspec

from estiba.containers.defaults import DEFAULT_STOP_SIGNAL, DEFAULT_STOP_TIMEOUT_S
from estiba.containers.journal import Journal
from estiba.containers.ports import Exit
from estiba.containers.record import ContainerRecord
from estiba.containers.signals import SIGKILL, parse_signal
from estiba.containers.waiters import Waiters
from estiba.containers.world import World
from estiba.kernel.pidfd import ProcessIdentity, is_alive
from estiba.model.errors import Internal
from estiba.model.state import ContainerState

GRACE_AFTER_KILL_S = 10.0


class Endings:
    """`exit` is resolved by whoever records the end of a run."""

    def __init__(self, journal: Journal, world: World, lock: asyncio.Lock) -> None:
        self.exit = Waiters()
        self._journal = journal
        self._world = world
        self._lock = lock

    @property
    def record(self) -> ContainerRecord:
        return self._journal.record

    async def ask(self, signal: str | None, *, by_user: bool) -> asyncio.Future[Exit]:
        """Sends `signal`, or the one that the container asks for; with the lock held."""
        over = self.exit.future()
        number = parse_signal(signal or self.record.config.stop_signal or DEFAULT_STOP_SIGNAL)
        await self.send(number, by_user=by_user)
        return over

    async def insist(
        self, over: asyncio.Future[Exit], timeout_s: float | None, *, by_user: bool
    ) -> None:
        """Waits for the end that was asked for, and after a while makes it come.

        Raises Internal when it does not come even so.
        """
        if timeout_s is None:
            configured = self.record.config.stop_timeout
            timeout_s = float(DEFAULT_STOP_TIMEOUT_S if configured is None else configured)
        done, _ = await asyncio.wait([over], timeout=None if timeout_s < 0 else timeout_s)
        if done:
            return
        async with self._lock:
            if self.record.state.is_up and not over.done():
                await self.send(SIGKILL, by_user=by_user)
        done, _ = await asyncio.wait([over], timeout=GRACE_AFTER_KILL_S)
        if not done:
            raise overdue(self.record)

    async def send(self, number: int, *, by_user: bool) -> None:
        """Signals the program; with the lock held. `by_user` means that it is to stay down."""
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


def overdue(record: ContainerRecord) -> Internal:
    """Why the end of a run is not recorded long after its SIGKILL, and what to do about it."""
    program, monitor = record.container, record.monitor
    has_ended = program is not None and not is_alive(
        ProcessIdentity(program.pid, program.start_time)
    )
    if has_ended and monitor is not None:
        return Internal(
            f"container {record.name} has ended, but its monitor (conmon, pid {monitor.pid}) does "
            f"not answer: if it is stopped, let it go on with `kill -CONT {monitor.pid}`; if not, "
            f"end it with `kill -KILL {monitor.pid}`, and the exit code is lost"
        )
    return Internal(
        f"container {record.name} does not end after SIGKILL: a process may hang "
        "in the kernel; see `ps` for state D on the host"
    )
