"""A machine in memory: kernel resources that outlive an engine, and engines that can die.

`Kernel` is what stays when a process is killed: resources by container, programs, volumes.
`FakeWorld` is one engine's hands in it (`containers.ports.Steps`, `Connecting` and
`Controls`). Every effect
passes a numbered point at which a test lets the call fail or the whole engine die; a dead
engine can do nothing any more, however its code reacts.
"""

from __future__ import annotations

import asyncio
import errno
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from estiba.containers.attach import Console
from estiba.containers.engine import Engine
from estiba.containers.health import RunProbe
from estiba.containers.ports import BroughtUp, Exit, Paths
from estiba.containers.record import AttachedNetwork, ContainerRecord, Process
from estiba.containers.world import World
from estiba.model.container import PortBinding, Resources
from estiba.model.errors import Internal
from estiba.network.record import Endpoint, NetworkRecord
from estiba.store import EventBus, Intent, Record, Store, Transaction

T = TypeVar("T")

ERROR = "error"
DIE = "die"
AT_REST = frozenset({"directory", "snapshot"})
UP = AT_REST | {"mount", "network", "process"}


class Death(BaseException):
    """The engine was killed at this instant."""


@dataclass(slots=True)
class Run:
    """One run of a program; its exit status stays until the run is torn down."""

    process: Process
    released: bool = False
    paused: bool = False
    holds_kill: bool = False
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, code: int) -> None:
        self.exit = self.exit or Exit(code)
        if not (self.paused and self.holds_kill):
            self.ended.set()

    def thaw(self) -> None:
        self.paused = False
        if self.exit is not None:
            self.ended.set()


@dataclass(slots=True)
class Kernel:
    """What stays when an engine dies."""

    resources: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    runs: dict[str, Run] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    networks: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names of the networks that a container is plugged into."""

    ports: dict[str, list[str]] = field(default_factory=dict)
    """Published ports of a container."""

    ignores_sigterm: bool = False
    freezer_holds_kill: bool = False
    """As cgroup v1 does: a frozen program dies of SIGKILL only when it thaws."""

    _pids: int = 1000

    def new_run(self, container_id: str) -> Run:
        self._pids += 1
        process = Process(pid=self._pids, start_time=self._pids)
        self.runs[container_id] = Run(process, holds_kill=self.freezer_holds_kill)
        return self.runs[container_id]

    def end(self, container_id: str, code: int) -> None:
        """The program ends by itself."""
        self.runs[container_id].end(code)

    def of(self, container_id: str) -> set[str]:
        return set(self.resources.get(container_id, ()))


class FakeWorld:
    """One engine's hands; `faults` maps the number of a point to `error` or `die`."""

    def __init__(
        self, kernel: Kernel | None = None, faults: Mapping[int, str] | None = None
    ) -> None:
        self.kernel = kernel or Kernel()
        self.faults = dict(faults or {})
        self.points: list[str] = []
        self.calls: list[str] = []
        self.died = asyncio.Event()
        self.probe_code = 0
        self.console: Console | None = None

    # -- faults ----------------------------------------------------------------------------

    @property
    def is_dead(self) -> bool:
        return self.died.is_set()

    def point(self, name: str, *, can_fail: bool = True) -> None:
        """Raises what the test wants to happen here."""
        if self.is_dead:
            raise Death(name)
        number = len(self.points)
        self.points.append(name)
        wanted = self.faults.get(number)
        if wanted == DIE:
            self.died.set()
            raise Death(name)
        if wanted == ERROR and can_fail:
            raise OSError(errno.EIO, f"fault at {name}")

    def _make(self, record: ContainerRecord, verb: str, kind: str) -> None:
        self.point(f"{verb}.{kind}")
        self.kernel.resources[record.id].add(kind)

    def _drop(self, record: ContainerRecord, verb: str, kind: str) -> None:
        self.point(f"{verb}.{kind}")
        self.kernel.resources[record.id].discard(kind)
        if not self.kernel.resources[record.id]:
            del self.kernel.resources[record.id]

    # -- Steps -----------------------------------------------------------------------------

    async def prepare(self, record: ContainerRecord) -> None:
        self.calls.append(f"prepare {record.name}")
        self._make(record, "prepare", "directory")
        self._make(record, "prepare", "snapshot")
        for name in record.anonymous_volumes:
            self.point("prepare.volume")
            self.kernel.volumes.add(name)

    async def discard(self, record: ContainerRecord) -> None:
        self.calls.append(f"discard {record.name}")
        self._drop(record, "discard", "snapshot")
        self._drop(record, "discard", "directory")

    async def bring_up(self, record: ContainerRecord) -> BroughtUp:
        self.calls.append(f"bring_up {record.name}")
        self._make(record, "bring_up", "mount")
        self._make(record, "bring_up", "network")
        self._make(record, "bring_up", "process")
        run = self.kernel.new_run(record.id)
        self.kernel.networks[record.id] = {net.network for net in record.networks}
        self.kernel.ports[record.id] = list(record.host_config.port_bindings)
        networks = [_plugged(record, net) for net in record.networks]
        ports = {"80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="49153")]}
        return BroughtUp(run.process, run.process, networks=networks, ports=ports)

    async def release(self, record: ContainerRecord) -> None:
        self.calls.append(f"release {record.name}")
        self.point("release")
        self.kernel.runs[record.id].released = True

    async def tear_down(self, record: ContainerRecord) -> None:
        self.calls.append(f"tear_down {record.name}")
        self._drop(record, "tear_down", "process")
        run = self.kernel.runs.pop(record.id, None)
        if run is not None:
            run.thaw()
            run.end(137)
        self._drop(record, "tear_down", "network")
        self.kernel.networks.pop(record.id, None)
        self.kernel.ports.pop(record.id, None)
        self._drop(record, "tear_down", "mount")

    def watch_memory(self, record: ContainerRecord, killed: Callable[[], None]) -> None:
        self.calls.append(f"watch_memory {record.name}")

    async def wait_exit(self, record: ContainerRecord) -> Exit:
        run = self.kernel.runs.get(record.id)
        if run is None or run.process != record.monitor:
            return Exit(137, error="the monitor is gone")
        await run.ended.wait()
        self.point("exit seen", can_fail=False)
        return run.exit or Exit(137)

    async def open_console(self, record: ContainerRecord) -> Console:
        self.calls.append(f"open_console {record.name}")
        self.point("open_console")
        assert self.console is not None
        return self.console

    async def remove_volumes(self, record: ContainerRecord) -> None:
        for name in record.anonymous_volumes:
            self.point("remove_volumes")
            self.kernel.volumes.discard(name)

    # -- Connecting ------------------------------------------------------------------------

    def find(self, reference: str) -> NetworkRecord:
        name = reference.removeprefix("id-")
        return NetworkRecord(id=f"id-{name}", name=name, driver="bridge", created_ns=0)

    async def join(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        self.point("join.plugged")
        self.kernel.networks[record.id].add(net.network)
        self.point("join.told")
        return [*record.networks, _plugged(record, net)]

    async def leave(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        self.point("leave.unplugged")
        self.kernel.networks[record.id].discard(net.network)
        self.point("leave.told", can_fail=False)
        return [other for other in record.networks if other.network != net.network]

    async def publish(self, record: ContainerRecord) -> list[AttachedNetwork]:
        self.point("publish")
        self.kernel.ports[record.id] = list(record.host_config.port_bindings)
        self.point("published")
        return record.networks

    async def rename(self, record: ContainerRecord, name: str) -> list[AttachedNetwork]:
        return record.networks

    async def restore(self, record: ContainerRecord) -> None:
        self.point("restore.networks")
        self.kernel.networks[record.id] = {net.network for net in record.networks}
        self.point("restore.ports")
        self.kernel.ports[record.id] = list(record.host_config.port_bindings)

    async def tell_linking(self, parents: list[ContainerRecord]) -> None:
        self.point("tell")

    async def forget_link(self, record: ContainerRecord, names: str) -> None:
        self.point("forget link")

    # -- Controls --------------------------------------------------------------------------

    async def signal(self, record: ContainerRecord, number: int) -> None:
        self.calls.append(f"signal {number} {record.name}")
        self.point("signal")
        run = self.kernel.runs.get(record.id)
        if run is None:
            return  # as for a program that has ended and was torn down
        if number == 9 or (number in (2, 3, 15) and not self.kernel.ignores_sigterm):
            run.end(128 + number)

    async def pause(self, record: ContainerRecord) -> None:
        self.calls.append(f"pause {record.name}")
        self.point("pause")
        self.kernel.runs[record.id].paused = True

    async def unpause(self, record: ContainerRecord) -> None:
        self.calls.append(f"unpause {record.name}")
        self.point("unpause")
        if (run := self.kernel.runs.get(record.id)) is not None:
            run.thaw()

    async def update(self, record: ContainerRecord, resources: Resources) -> None:
        self.calls.append(f"update {record.name}")
        self.point("update")

    async def resize(self, record: ContainerRecord, height: int, width: int) -> None:
        self.calls.append(f"resize {record.name} {height}x{width}")

    async def reopen_log(self, record: ContainerRecord) -> None:
        self.calls.append(f"reopen_log {record.name}")

    def probe(self, record: ContainerRecord) -> RunProbe:
        async def run(_argv: list[str], _timeout_s: float) -> tuple[int, str]:
            return self.probe_code, f"code {self.probe_code}"

        return run


def _plugged(record: ContainerRecord, net: AttachedNetwork) -> AttachedNetwork:
    endpoint = Endpoint(
        id=f"{record.name} on {net.network}",
        network_id=f"id-{net.network}",
        network_name=net.network,
        driver="bridge",
        container_id=record.id,
        container_name=record.name,
        requested=net.requested,
    )
    return AttachedNetwork(network=net.network, requested=net.requested, endpoint=endpoint)


class MortalStore:
    """The real database in the hands of an engine that can die around every commit.

    Nobody cuts the power here, so nothing waits for the disk.
    """

    def __init__(self, store: Store, world: FakeWorld) -> None:
        self.real = store
        self._world = world

    async def commit(self, function: Callable[[Transaction], T], *, durable: bool = False) -> T:
        try:
            self._world.point("commit")
        except OSError as error:
            raise Internal(f"cannot write the state database: {error}") from error
        result = await self.real.commit(function)
        self._world.point("committed", can_fail=False)
        return result

    def load(self, kind: str) -> list[Record]:
        return self.real.load(kind)

    def intents(self, kind: str) -> list[Intent]:
        return self.real.intents(kind)


@dataclass(slots=True)
class Boot:
    """One life of an engine on a machine."""

    engine: Engine
    world: FakeWorld
    store: Store

    async def end(self) -> None:
        """The process is gone: its tasks, and nothing of the kernel."""
        self.world.died.set()
        await self.engine.world.tasks.close()
        self.store.close()


@dataclass(slots=True)
class Machine:
    """A kernel and a disk on which engines live one after the other."""

    directory: Path
    kernel: Kernel = field(default_factory=Kernel)

    def boot(self, faults: Mapping[int, str] | None = None) -> Boot:
        """A new engine, which has not recovered yet."""
        world = FakeWorld(self.kernel, faults)
        store = Store.open(self.directory / "estiba.db", EventBus(asyncio.get_running_loop()))
        paths = Paths(self.directory / "data", self.directory / "run")
        mortal: Any = MortalStore(store, world)
        engine = Engine(
            World(mortal, paths, world, world, world, world.probe, world.remove_volumes)
        )
        return Boot(engine, world, store)
