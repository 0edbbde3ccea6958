"""One plugin's process: started, watched, ended; taken over by an engine that starts again.

It is no child of the engine and has no monitor: the runtime detaches it, and nobody asks how it
ended. What it writes goes to a file that is cut now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from estiba.kernel import failpoint, spawn
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.mounts import MountFlag, is_mounted, mount, mounted_under, unmount
from estiba.kernel.pidfd import ProcessIdentity, identify, is_alive, send_signal, wait_exit
from estiba.kernel.trees import remove_tree
from estiba.managed.record import PluginRecord
from estiba.managed.sandbox import Paths, cgroup_of, spec_of
from estiba.model.errors import EstibaError, Unavailable
from estiba.runtime.failures import explain, read_message
from estiba.runtime.oci import OciRuntime
from estiba.runtime.rootfs import ensure_mount_points
from estiba.security.profiles.profile import Host

_log = logging.getLogger(__name__)

_READY_S = 15.0
_STOP_S = 10.0
_POLL_S = 0.02
_MAX_LOG_BYTES = 8 << 20
_SHOWN_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Engine:
    """What all plugins share."""

    paths: Paths
    runtime: OciRuntime
    hierarchies: Hierarchies
    host: Host
    cgroup_parent: str
    seccomp: str

    @property
    def own_runtime(self) -> OciRuntime:
        """With its state apart from that of containers."""
        return replace(self.runtime, root=self.paths.state, shortcut=None)


class Process:
    """Of one plugin; one call at a time."""

    def __init__(self, engine: Engine, plugin_id: str) -> None:
        self._engine = engine
        self._id = plugin_id
        self._run = engine.paths.run(plugin_id)
        self._group = cgroup_of(engine.cgroup_parent, plugin_id)

    @property
    def identity(self) -> ProcessIdentity | None:
        """Of the process that runs, whichever engine started it."""
        try:
            pid, started = map(int, (self._run / "identity").read_text().split())
        except (OSError, ValueError):
            return None
        found = ProcessIdentity(pid, started)
        return found if is_alive(found) else None

    async def start(self, record: PluginRecord) -> ProcessIdentity:
        """Runs it and waits for its socket; nothing is left when it raises.

        Raises FailedPrecondition, InvalidArgument, Unavailable, CommandNotFound.
        """
        try:
            await run_blocking(self._prepare, record)
            identity = await self._launch(record)
            failpoint.hit("managed.launched")
            await self._wait_ready(record, identity)
        except BaseException:
            await asyncio.shield(self.end())
            raise
        return identity

    def _prepare(self, record: PluginRecord) -> None:
        paths = self._engine.paths
        self._clear()
        for path in (paths.sockets / self._id, self._run):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.socket(record).unlink(missing_ok=True)
        ensure_mount_points(paths.rootfs(record))
        if record.config.propagated_mount:
            place = paths.propagated(self._id)
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not is_mounted(place):
                mount(str(place), place, "", MountFlag.BIND)
            mount("", place, "", MountFlag.SHARED)
        spec = spec_of(
            record,
            paths,
            self._engine.host,
            cgroup=self._group,
            seccomp=self._engine.seccomp,
        )
        (self._run / "config.json").write_bytes(msgspec.json.encode(spec))

    async def _launch(self, record: PluginRecord) -> ProcessIdentity:
        log, pid_file = self._run / "runtime.log", self._run / "pid"
        words = ["run", "--detach", "--bundle", str(self._run), "--pid-file", str(pid_file)]
        runtime = self._engine.own_runtime
        runtime.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = os.open(
            self._run / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            child = spawn.start(
                runtime.command(*words, self._id, log=log),
                stdout=output,
                stderr=output,
                new_session=True,
            )
        except OSError as error:
            raise runtime.unusable(error) from error
        finally:
            os.close(output)
        if await child.wait() != 0:
            message = read_message(log.read_bytes()) if log.exists() else ""
            program = record.config.entrypoint[0]
            raise explain(message or self._last_words(), program=program, doing="run")
        try:
            identity = identify(int(pid_file.read_text()))
        except (ProcessLookupError, ValueError, FileNotFoundError) as error:
            raise self._ended(record) from error
        (self._run / "identity").write_text(f"{identity.pid} {identity.start_time}")
        return identity

    async def _wait_ready(self, record: PluginRecord, identity: ProcessIdentity) -> None:
        path = self._engine.paths.socket(record)
        try:
            async with asyncio.timeout(_READY_S):
                while not path.is_socket():
                    if not is_alive(identity):
                        raise self._ended(record)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"plugin {record.name} made no socket {record.config.interface.socket} within "
                f"{_READY_S:g} s: {self._last_words() or 'it wrote nothing'}"
            ) from None

    def _ended(self, record: PluginRecord) -> Unavailable:
        return Unavailable(
            f"plugin {record.name} ended at once: {self._last_words() or 'it wrote nothing'}"
        )

    def _last_words(self) -> str:
        try:
            with (self._run / "log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _SHOWN_BYTES))
                data = file.read(_SHOWN_BYTES)
        except OSError:
            return ""
        return "".join(c if c.isprintable() else " " for c in data.decode(errors="replace")).strip()

    def trim_log(self) -> None:
        """A plugin that writes much does not fill the disk."""
        path = self._run / "log"
        with contextlib.suppress(OSError):
            if path.stat().st_size > _MAX_LOG_BYTES:
                os.truncate(path, 0)

    async def end(self) -> None:
        """Ends and removes whatever there is of it; harmless when there is nothing."""
        identity = self.identity
        if identity is not None:
            await _terminate(identity)
        runtime = self._engine.own_runtime
        if (runtime.root / self._id).exists():
            with contextlib.suppress(EstibaError):
                await runtime.delete(self._id, force=True)
        await run_blocking(self._clear)

    def _clear(self) -> None:
        for pid in self._engine.hierarchies.processes(self._group):
            with contextlib.suppress(ProcessLookupError):
                send_signal(identify(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._engine.hierarchies.remove(self._group)
        for point in mounted_under(self._engine.paths.propagated(self._id)):
            unmount(point)
        remove_tree(self._run)
        remove_tree(self._engine.paths.sockets / self._id)
        remove_tree(self._engine.paths.state / self._id)


async def _terminate(identity: ProcessIdentity) -> None:
    for number, patience_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        with contextlib.suppress(ProcessLookupError):
            send_signal(identity, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await wait_exit(identity)
                return
    _log.error("process %d of a plugin does not end", identity.pid)


def known_runs(paths: Paths) -> set[str]:
    """Ids of all plugins that an engine ever started and did not clear away."""
    places = (paths.sockets, paths.sockets / ".run", paths.state)
    return {
        entry.name
        for place in places
        if place.is_dir()
        for entry in place.iterdir()
        if not entry.name.startswith(".") and Path(entry).is_dir()
    }
