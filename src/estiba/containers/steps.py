"""The effects of a container's life on the kernel: snapshot, network, bundle, monitor, runtime.

Each is idempotent, and every resource it makes is named by the container's id, so recovery
needs no journal to undo them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from estiba.containers.attach import Console
from estiba.containers.connections import bound_ports
from estiba.containers.plugging import Plugging
from estiba.containers.ports import BroughtUp, Exit, Paths
from estiba.containers.record import AttachedNetwork, ContainerRecord, Process
from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup_stats import oom_kills
from estiba.kernel.inotify import SignWatch
from estiba.kernel.pidfd import ProcessIdentity
from estiba.kernel.procfs import end_processes
from estiba.model.container import OF_CONTAINER
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError
from estiba.network.record import NetworkRecord
from estiba.runtime.bundle import Bundle
from estiba.runtime.conmon import Conmon
from estiba.runtime.monitor import MonitorRequest
from estiba.runtime.oci import OciRuntime
from estiba.runtime.rootfs import ensure_mount_points
from estiba.runtime.workdir import ensure_working_directory

_log = logging.getLogger(__name__)


class Rootfs(Protocol):
    """Snapshots of the storage package; all methods block."""

    def prepare(self, key: str, layers: list[Digest], mounted: Sequence[Digest] = ()) -> None: ...

    def mount(self, key: str, target: Path) -> None: ...

    def unmount(self, target: Path) -> None: ...

    def remove(self, key: str) -> None: ...


class MountSources(Protocol):
    """Where the data of a container's mounts lies on the host; all methods block."""

    def make(self, record: ContainerRecord, rootfs: Path) -> None:
        """Makes volumes and missing bind sources; fills empty volumes from the image."""

    def prepare(self, record: ContainerRecord, rootfs: Path) -> None:
        """As `make`, and mounts the volumes."""

    def needs_rootfs(self, record: ContainerRecord) -> bool:
        """Whether `prepare` reads the image."""

    def release(self, record: ContainerRecord) -> None:
        """Lets go of what `prepare` and the mounts of the runtime-spec hold on the host."""


MemoryEvents = Callable[[ContainerRecord], Path | None]
"""The file of the container's cgroup that changes when memory is lacking, on cgroup v2."""

RemoveGroup = Callable[[ContainerRecord], None]
"""Removes the container's cgroup; harmless when it is gone. Raises OSError while it is in use."""

BuildSpec = Callable[[ContainerRecord, Path | None, Path], dict[str, Any]]
"""(record, network namespace or None for the host's, mounted root) → OCI runtime-spec."""


@dataclass(slots=True)
class KernelSteps:
    """`containers.ports.Steps` and `Connecting` on the real kernel."""

    paths: Paths
    snapshots: Rootfs
    plugging: Plugging
    sources: MountSources
    monitor: Conmon
    runtimes: Mapping[str, OciRuntime]
    build_spec: BuildSpec
    remove_group: RemoveGroup
    memory_events: MemoryEvents
    oom_counter: Callable[[ContainerRecord], Path | None]
    signs: SignWatch

    # -- create and remove -----------------------------------------------------------------

    async def prepare(self, record: ContainerRecord) -> None:
        await run_blocking(self._prepare, record)

    def _prepare(self, record: ContainerRecord) -> None:
        self.paths.state(record.id).mkdir(mode=0o710, parents=True, exist_ok=True)
        self.snapshots.prepare(record.id, record.layers, record.mounted_layers)
        failpoint.hit("prepare.snapshot")
        rootfs = self.paths.rootfs(record.id)
        workdir = record.config.working_dir
        try:
            if workdir not in ("", "/") or self.sources.needs_rootfs(record):
                rootfs.mkdir(parents=True, exist_ok=True)
                self.snapshots.mount(record.id, rootfs)
                ensure_working_directory(rootfs, workdir)
            self.sources.make(record, rootfs)
        finally:
            self.sources.release(record)
            self.snapshots.unmount(rootfs)
            self._remove_run(record.id)

    async def discard(self, record: ContainerRecord) -> None:
        await run_blocking(self._discard, record)

    def _discard(self, record: ContainerRecord) -> None:
        self.snapshots.unmount(self.paths.rootfs(record.id))
        self.sources.release(record)
        self._remove_run(record.id)
        failpoint.hit("discard.run")
        self.snapshots.remove(record.id)
        failpoint.hit("discard.snapshot")
        shutil.rmtree(self.paths.state(record.id), ignore_errors=True)

    def _remove_run(self, container_id: str) -> None:
        shutil.rmtree(self.paths.run(container_id), ignore_errors=True)

    # -- start -----------------------------------------------------------------------------

    async def bring_up(self, record: ContainerRecord) -> BroughtUp:
        bundle = Bundle(self.paths.run(record.id))
        failpoint.hit("start.begun")
        netns, networks = await run_blocking(self._mount_and_connect, record, bundle)
        failpoint.hit("start.connected")
        await run_blocking(self._write_bundle, record, networks, netns, bundle)
        failpoint.hit("start.bundle")
        monitored = await self.monitor.start(
            MonitorRequest(
                container_id=record.id,
                bundle=bundle,
                runtime=self._runtime(record),
                program=record.path,
                log_path=self._log_path(record),
                tty=record.config.tty,
                open_stdin=record.config.open_stdin,
                stdin_once=record.config.stdin_once,
            )
        )
        failpoint.hit("start.created")
        return BroughtUp(
            container=_process(monitored.container),
            monitor=_process(monitored.monitor),
            networks=networks,
            ports=bound_ports(networks),
        )

    def _mount_and_connect(
        self, record: ContainerRecord, bundle: Bundle
    ) -> tuple[Path | None, list[AttachedNetwork]]:
        bundle.rootfs.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.snapshots.mount(record.id, bundle.rootfs)
        ensure_mount_points(bundle.rootfs)
        failpoint.hit("start.mounted")
        self.sources.prepare(record, bundle.rootfs)
        mode = record.host_config.network_mode
        if mode == "host" or mode.startswith(OF_CONTAINER):
            return None, self.plugging.join_all(record)
        sandbox = self.plugging.networks.open_sandbox(record.id)
        failpoint.hit("start.sandbox")
        return sandbox, self.plugging.join_all(record)

    def _write_bundle(
        self,
        record: ContainerRecord,
        networks: list[AttachedNetwork],
        netns: Path | None,
        bundle: Bundle,
    ) -> None:
        self.plugging.host_files.write(record, networks)
        joined = msgspec.structs.replace(record, networks=networks)
        bundle.write(self.build_spec(joined, netns, bundle.rootfs))

    async def release(self, record: ContainerRecord) -> None:
        failpoint.hit("start.releasing")
        await self._runtime(record).start(record.id, program=record.path)
        failpoint.hit("start.released")

    async def open_console(self, record: ContainerRecord) -> Console:
        return await self.monitor.attach(Bundle(self.paths.run(record.id)), tty=record.config.tty)

    # -- networks of a container that is up ------------------------------------------------

    def find(self, reference: str) -> NetworkRecord:
        return self.plugging.networks.network(reference)

    async def join(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        return await run_blocking(self.plugging.join, record, net)

    async def leave(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        return await run_blocking(self.plugging.leave, record, net)

    async def publish(self, record: ContainerRecord) -> list[AttachedNetwork]:
        return await run_blocking(self.plugging.publish, record)

    async def rename(self, record: ContainerRecord, name: str) -> list[AttachedNetwork]:
        return await run_blocking(self.plugging.rename, record, name)

    async def restore(self, record: ContainerRecord) -> None:
        await run_blocking(self.plugging.restore, record)

    async def tell_linking(self, parents: list[ContainerRecord]) -> None:
        await run_blocking(self.plugging.tell_linking, parents)

    async def forget_link(self, record: ContainerRecord, names: str) -> None:
        await run_blocking(self.plugging.forget_link, record, names)

    # -- the end of a run ------------------------------------------------------------------

    async def wait_exit(self, record: ContainerRecord) -> Exit:
        if record.monitor is None:
            return Exit(137, error="the record names no monitor")
        status = await self.monitor.wait_exit(
            record.id,
            Bundle(self.paths.run(record.id)),
            ProcessIdentity(record.monitor.pid, record.monitor.start_time),
        )
        lost = "the container's monitor was killed, and the container with it"
        oom_killed = status.oom_killed or (status.code == 137 and self._lacked_memory(record))
        return Exit(status.code, oom_killed, error=lost if status.is_lost else "")

    def _lacked_memory(self, record: ContainerRecord) -> bool:
        """The monitor misses the sign when it sees the end first; the kernel has counted."""
        counter = self.oom_counter(record)
        return counter is not None and oom_kills(counter) > 0

    def watch_memory(self, record: ContainerRecord, killed: Callable[[], None]) -> None:
        """On version 1 the monitor leaves its mark at once, on version 2 only at the end."""
        mark = Bundle(self.paths.run(record.id)).oom_mark
        events = self.memory_events(record)
        try:
            if events is None:
                self.signs.watch(record.id, mark.parent, mark.exists, killed)
            else:
                self.signs.watch(record.id, events, lambda: oom_kills(events) > 0, killed)
        except OSError as error:
            _log.warning("container %s: lack of memory is seen at its end: %s", record.name, error)

    async def tear_down(self, record: ContainerRecord) -> None:
        self.signs.forget(record.id)
        bundle = Bundle(self.paths.run(record.id))
        if record.monitor is None and await run_blocking(bundle.path.exists):
            # A start that a crash cut off: the monitor may still be at work.
            await end_processes([str(bundle.path)])
        with contextlib.suppress(EstibaError):
            await self._runtime(record).delete(record.id, force=True)
        failpoint.hit("teardown.deleted")
        await run_blocking(self._let_go, record, bundle)

    def _let_go(self, record: ContainerRecord, bundle: Bundle) -> None:
        for endpoint in record.endpoints:
            self.plugging.networks.disconnect(record.id, endpoint)
        self.plugging.networks.close_sandbox(record.id)
        self.plugging.forget(record)
        failpoint.hit("teardown.disconnected")
        self.snapshots.unmount(bundle.rootfs)
        self.sources.release(record)
        failpoint.hit("teardown.unmounted")
        self.monitor.forget(record.id)
        self._remove_run(record.id)
        # A runtime that fails to create a container may forget the group that it made.
        self.remove_group(record)

    # -- small things ----------------------------------------------------------------------

    def _runtime(self, record: ContainerRecord) -> OciRuntime:
        return self.runtimes[record.runtime]

    def _log_path(self, record: ContainerRecord) -> Path | None:
        return None if record.host_config.log_config.type == "none" else self.paths.log(record.id)


def _process(identity: ProcessIdentity) -> Process:
    return Process(pid=identity.pid, start_time=identity.start_time)
