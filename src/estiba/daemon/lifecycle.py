"""A whole engine from its start to its end.

Start: images and volumes → networks → finish or undo open intents → re-adopt live containers →
sweep → restart policies → listen. Plugins of the engine's own start beside. SIGTERM is the same
path as a crash: containers run on, and the next start finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from estiba.api.server import Listener, Server
from estiba.containers.record import ContainerRecord
from estiba.daemon.core import Core
from estiba.kernel.blocking import run_blocking
from estiba.kernel.mounts import mounted_under, unmount
from estiba.model.errors import InvalidArgument, NotFound

_STARTS_S = 5.0
"""What a container waits for, a plugin or a server with its volume, may never come: the engine
serves meanwhile."""


@dataclass(slots=True)
class Daemon:
    """A whole engine; `start` it, wait, `close` it."""

    core: Core
    server: Server
    listeners: list[Listener]

    async def start(self) -> None:
        """Makes the state true, then serves."""
        await run_blocking(self._open)
        await self.core.managed.start()
        await self.core.build_executor.sweep()
        up = await self.core.engine.recover()
        endpoints = [endpoint for actor in up for endpoint in actor.record.endpoints]
        await run_blocking(self.core.networks.restore, endpoints)
        await run_blocking(self.core.volumes.restore, self.core.engine.volumes_in_use())
        await self.core.engine.settle_connections()
        linking = [actor.record for actor in up if actor.record.links]
        await self.core.engine.world.connecting.tell_linking(linking)
        await run_blocking(self._sweep, {actor.record.id for actor in up})
        tasks = self.core.engine.world.tasks
        tasks.spawn(self.core.log_keeper.run(), name="log keeper")
        starts = tasks.spawn(self.core.engine.start_owed(self._ready), name="restart policies")
        await asyncio.wait([starts], timeout=_STARTS_S)
        for listener in self.listeners:
            await self.server.listen(listener)

    async def _ready(self, record: ContainerRecord) -> None:
        """Waits for the plugins that the container's volumes and networks are of."""
        volumes = self.core.volumes
        names = {volumes.driver_of(plan.name) for plan in record.mounts if plan.type == "volume"}
        for attached in record.networks:
            with contextlib.suppress(NotFound, InvalidArgument):
                network = self.core.networks.network(attached.network)
                names |= {network.driver, network.ipam_driver}
        await self.core.managed.settled(names)

    def _open(self) -> None:
        self.core.images.layers.open()
        self.core.images.content.open()
        self.core.snapshots.open()
        self.core.workspaces.open()
        self.core.cache_mounts.open()
        self.core.build_cache.open()
        self.core.images.open()
        self.core.volumes.start()
        self.core.policies.bind(self.core.networks.firewall)
        self.core.networks.start()

    def _sweep(self, live: set[str]) -> None:
        """Removes what no record justifies, by names that only this engine gives."""
        known = set(self.core.engine.actors)
        paths = self.core.engine.world.paths
        for key in self.core.snapshots.list_keys():
            if key not in known:
                self.core.snapshots.remove(key)
        for state in _children(paths.data_root / "containers"):
            if state.name not in known:
                shutil.rmtree(state, ignore_errors=True)
        for run in _children(paths.exec_root / "containers"):
            if run.name not in live:
                for point in mounted_under(run):
                    unmount(point)
                shutil.rmtree(run, ignore_errors=True)
        self.core.networks.sweep(live)
        # Containers that run on have some of what is taken away.
        self.core.networks.drain()
        self.core.policies.sweep({network.id for network in self.core.networks.networks()})

    async def close(self) -> None:
        """Stops serving; containers run on."""
        self.core.images.leases.close()
        await self.server.close()
        await self.core.builds.close()
        await self.core.managed.close()
        await self.core.engine.close()
        await run_blocking(self.core.names.close)
        await run_blocking(self.core.networks.stop)
        await run_blocking(self.core.policies.close)
        await run_blocking(self.core.store.close)


def _children(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []
