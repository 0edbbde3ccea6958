"""Further programs in running containers: made, started once, inspected, forgotten.

An exec lives in memory only, as in Docker: it does not outlive the engine's knowledge of it,
but a detached program runs on when the engine ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from estiba.containers.attach import Chunk
from estiba.containers.record import ContainerRecord
from estiba.containers.tasks import Tasks
from estiba.kernel.cgroup_moves import expect_move
from estiba.model.container import ProcessSpec
from estiba.model.errors import Conflict, EstibaError, InvalidArgument, NotFound
from estiba.model.ids import new_id
from estiba.model.state import ContainerState

KEPT_AFTER_EXIT_S = 300.0
MAX_EXECS = 10_000


class ExecProcess(Protocol):
    """A program that the runtime started in a container."""

    @property
    def pid(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def resize(self, height: int, width: int) -> None: ...

    async def wait_started(self) -> None: ...

    async def wait(self) -> int: ...

    async def kill(self) -> None: ...

    def close(self) -> None: ...


class ExecStarter(Protocol):
    """Starts programs; raises CommandNotFound and CommandNotExecutable as a start does."""

    async def exec(self, record: ContainerRecord, spec: ProcessSpec) -> ExecProcess: ...


@dataclass(slots=True)
class Exec:
    """One exec instance; `exit_code` is None until it ended."""

    id: str
    container_id: str
    spec: ProcessSpec
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    process: ExecProcess | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0


class Execs:
    """All exec instances of the engine."""

    def __init__(
        self,
        starter: ExecStarter,
        tasks: Tasks,
        *,
        is_gone: Callable[[str], bool] = lambda _container_id: False,
    ) -> None:
        self._starter = starter
        self._tasks = tasks
        self._is_gone = is_gone
        self._execs: dict[str, Exec] = {}

    def create(self, record: ContainerRecord, spec: ProcessSpec) -> Exec:
        """A new instance for a container that runs.

        Raises Conflict when it does not run, InvalidArgument without a command.
        """
        _check_running(record)
        if not spec.cmd:
            raise InvalidArgument("No exec command specified")
        self._forget_old()
        expect_move()
        instance = Exec(new_id(), record.id, spec)
        self._execs[instance.id] = instance
        return instance

    def find(self, exec_id: str) -> Exec:
        instance = self._execs.get(exec_id)
        if instance is None:
            raise NotFound(f"No such exec instance: {exec_id[:128]}")
        return instance

    def of_container(self, container_id: str) -> list[str]:
        """Ids of those of the container that have not ended."""
        return [
            instance.id
            for instance in self._execs.values()
            if instance.container_id == container_id and not instance.ended.is_set()
        ]

    async def start(
        self, instance: Exec, record: ContainerRecord, spec: ProcessSpec
    ) -> ExecProcess:
        """Starts the program as `spec` says now. Raises Conflict when it was started before."""
        check_not_started(instance)
        _check_running(record)
        instance.started = True
        try:
            process = await self._starter.exec(record, spec)
        except BaseException as error:
            instance.exit_code = getattr(error, "exit_code", 126)
            self._end(instance)
            raise
        instance.process, instance.pid, instance.running = process, process.pid, True
        self._tasks.spawn(self._watch(instance, process), name=f"exec {instance.id[:12]}")
        return process

    def end_of_container(self, container_id: str) -> None:
        """Forgets the instances of a container that was removed."""
        for exec_id in [e.id for e in self._execs.values() if e.container_id == container_id]:
            del self._execs[exec_id]

    async def _watch(self, instance: Exec, process: ExecProcess) -> None:
        try:
            instance.exit_code = await process.wait()
        except (EstibaError, OSError) as error:
            instance.exit_code = getattr(error, "exit_code", 126)
        self._end(instance)

    def _end(self, instance: Exec) -> None:
        instance.running = False
        instance.ended_at = time.monotonic()
        instance.ended.set()

    def _forget_old(self) -> None:
        limit = time.monotonic() - KEPT_AFTER_EXIT_S
        for instance in list(self._execs.values()):
            is_old = instance.ended_at and instance.ended_at < limit
            if is_old or self._is_gone(instance.container_id):
                del self._execs[instance.id]
        if len(self._execs) >= MAX_EXECS:
            raise Conflict(f"{MAX_EXECS} exec instances exist: start or wait for some first")


def check_not_started(instance: Exec) -> None:
    """Raises Conflict, in Docker's words, for one that runs or has run."""
    if instance.started and not instance.ended.is_set():
        raise Conflict(f"exec command {instance.id} is already running")
    if instance.started:
        raise Conflict(f"Error: Exec command {instance.id} has already run")


def _check_running(record: ContainerRecord) -> None:
    if record.state == ContainerState.PAUSED:
        raise Conflict(f"Container {record.id} is paused, unpause the container before exec")
    if record.state != ContainerState.RUNNING:
        raise Conflict(f"container {record.id} is not running")
