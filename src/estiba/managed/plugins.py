"""Plugins that the engine runs itself: switched on and off, kept running, known to its drivers."""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.pidfd import ProcessIdentity, wait_exit
from estiba.managed.catalog import Catalog
from estiba.managed.config import implements
from estiba.managed.process import Engine, Process, known_runs
from estiba.managed.record import PluginRecord
from estiba.model.errors import Conflict, EstibaError, NotFound
from estiba.plugins.places import Address
from estiba.plugins.registry import Registry

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 60.0
_SOUND_S = 10.0
"""A plugin that ran that long is started again at once."""

_LOOK_S = 60.0

Spawn = Callable[..., object]
UsersOf = Callable[[set[str]], list[str]]


class ManagedPlugins:
    """Made once an engine; `start` before anything that may need a plugin."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        registry: Registry,
        users_of: UsersOf,
    ) -> None:
        """`users_of` says what on this engine uses a plugin of any of these names."""
        self.catalog = catalog
        self._engine = engine
        self._registry = registry
        self._users_of = users_of
        self._locks: dict[str, asyncio.Lock] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, asyncio.Event] = {}
        """Set once the first start of one that is watched is over."""

    # -- the engine's life -----------------------------------------------------------------

    async def start(self) -> None:
        """Takes over what runs and ends what should not; what should run and does not is started
        beside, so that one that does not come up holds up nobody but its users."""
        await run_blocking(self.catalog.open)
        wanted = {record.id: record for record in self.catalog.all() if record.enabled}
        strays = await run_blocking(known_runs, self._engine.paths)
        await asyncio.gather(
            *(Process(self._engine, stray).end() for stray in strays - set(wanted))
        )
        for record in wanted.values():
            self._resume(record)

    def _resume(self, record: PluginRecord) -> None:
        identity = Process(self._engine, record.id).identity
        if identity is not None and not self._engine.paths.socket(record).is_socket():
            identity = None
        self._register(record)
        self._watch(record, identity)

    async def settled(self, names: Collection[str]) -> None:
        """Waits until those of the plugins that are being started run or have failed to."""
        for record in self.catalog.all():
            tried = self._tried.get(record.id)
            if tried is not None and {record.name, record.name.removesuffix(":latest")} & {*names}:
                await tried.wait()

    async def close(self) -> None:
        """Lets go of all; they run on."""
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        self._watches.clear()

    # -- on and off ------------------------------------------------------------------------

    async def enable(self, ref: str, timeout_s: float) -> None:
        """Raises NotFound, Conflict when it is on, and what keeps it from running."""
        async with self._one(ref) as record:
            if record.enabled:
                raise Conflict(f"plugin already enabled: plugin {record.name} is enabled")
            identity = await Process(self._engine, record.id).start(record)
            failpoint.hit("managed.started")
            record = await run_blocking(
                self.catalog.switch, record, enabled=True, timeout_s=timeout_s
            )
            self._register(record)
            self._watch(record, identity)

    async def disable(self, ref: str, *, force: bool) -> None:
        """Raises NotFound, Conflict when it is off, or in use and not forced."""
        async with self._one(ref) as record:
            if not record.enabled:
                raise Conflict(
                    f"plugin is already disabled: plugin {record.name} found but disabled"
                )
            self._check_unused(record, force)
            await self._turn_off(record)

    async def remove(self, ref: str, *, force: bool) -> None:
        """Raises NotFound, Conflict when it is on or in use and not forced."""
        async with self._one(ref) as record:
            self._check_unused(record, force)
            if record.enabled:
                if not force:
                    raise Conflict(f"plugin {record.name} is enabled: disable it first")
                record = await self._turn_off(record)
            await Process(self._engine, record.id).end()
            await run_blocking(self.catalog.remove, record)
        self._locks.pop(record.id, None)

    async def set(self, ref: str, arguments: list[str]) -> None:
        async with self._one(ref) as record:
            await run_blocking(self.catalog.set, record, arguments)

    async def _turn_off(self, record: PluginRecord) -> PluginRecord:
        task = self._watches.pop(record.id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._tried.pop(record.id, None)
        self._registry.unregister(record.name)
        record = await run_blocking(self.catalog.switch, record, enabled=False)
        failpoint.hit("managed.switched-off")
        await Process(self._engine, record.id).end()
        return record

    def _check_unused(self, record: PluginRecord, force: bool) -> None:
        users = [] if force else self._users_of({record.name, record.name.removesuffix(":latest")})
        if users:
            raise Conflict(f"plugin {record.name} is in use: {', '.join(users[:8])}")

    @asynccontextmanager
    async def _one(self, ref: str) -> AsyncIterator[PluginRecord]:
        """One change of a plugin at a time."""
        plugin_id = self.catalog.find(ref).id
        async with self._locks.setdefault(plugin_id, asyncio.Lock()):
            with self.catalog.claimed(plugin_id):
                yield self.catalog.find(plugin_id)

    # -- running ---------------------------------------------------------------------------

    def _register(self, record: PluginRecord) -> None:
        address = Address(path=str(self._engine.paths.socket(record)), is_confined=True)
        self._registry.register(
            record.name,
            address,
            implements(record.config),
            lambda told: self._host_path(record, told),
            timeout_s=record.timeout_s,
        )

    def _host_path(self, record: PluginRecord, told: str) -> str:
        """Where the host finds what the plugin calls `told`; no link leads out of its own.

        Raises NotFound when nothing is there.
        """
        base, inside = self._engine.paths.rootfs(record), posixpath.normpath(told)
        propagated = posixpath.normpath(record.config.propagated_mount or "/")
        if propagated != "/" and (inside + "/").startswith(propagated + "/"):
            base = self._engine.paths.propagated(record.id)
            inside = inside[len(propagated) :]
        inside = inside.lstrip("/")
        try:
            with opened_root(base) as root:
                place = open_in_root(root, inside or ".", os.O_PATH)
                try:
                    return os.readlink(f"/proc/self/fd/{place}")
                finally:
                    os.close(place)
        except OSError as error:
            raise NotFound(
                f"plugin {record.name} has nothing at {told[:128]}: {error.strerror}"
            ) from error

    def _watch(self, record: PluginRecord, identity: ProcessIdentity | None) -> None:
        """Without `identity` it is started first."""
        tried = self._tried[record.id] = asyncio.Event()
        work: Coroutine[Any, Any, None] = self._keep_running(record, identity, tried)
        task = asyncio.create_task(work, name=f"plugin {record.name}")
        # Whoever waits must not wait for ever when the task is cancelled before it has begun.
        task.add_done_callback(lambda _: tried.set())
        self._watches[record.id] = task

    async def _keep_running(
        self, record: PluginRecord, identity: ProcessIdentity | None, tried: asyncio.Event
    ) -> None:
        """Starts it again whenever it ends; slower and slower while it does not stay."""
        process, pause_s = Process(self._engine, record.id), _FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        if identity is None:
            await process.end()  # what an earlier engine has left of it
            identity = await self._try(process, record)
        tried.set()
        while True:
            if identity is not None:
                began = loop.time()
                await self._follow(process, identity)
                _log.warning("plugin %s has ended: it is started again", record.name)
                pause_s = _FIRST_PAUSE_S if loop.time() - began > _SOUND_S else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            identity = await self._try(process, record)

    @staticmethod
    async def _try(process: Process, record: PluginRecord) -> ProcessIdentity | None:
        """None when it does not start: what it depends on may be mended later."""
        try:
            return await process.start(record)
        except (EstibaError, OSError) as error:
            _log.error("plugin %s does not start: %s", record.name, error)
            return None

    @staticmethod
    async def _follow(process: Process, identity: ProcessIdentity) -> None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    return await wait_exit(identity)
            except TimeoutError:
                await run_blocking(process.trim_log)
