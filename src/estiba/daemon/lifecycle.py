"""A whole engine from its start to its end.

Start: images and volumes → networks → finish or undo open intents → re-adopt live containers →
sweep → restart policies → listen. SIGTERM is the same path as a crash: containers run on, and
the next start finds them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from estiba.api.server import Listener, Server
from estiba.daemon.core import Core
from estiba.kernel.blocking import run_blocking
from estiba.kernel.mounts import mounted_under, unmount


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
        self.core.engine.world.tasks.spawn(self.core.log_keeper.run(), name="log keeper")
        await self.core.engine.start_owed()
        for listener in self.listeners:
            await self.server.listen(listener)

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
