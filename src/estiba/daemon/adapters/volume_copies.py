"""Clones, snapshots and new names of volumes for the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estiba.containers.actor import Actor
from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_views import timestamp
from estiba.daemon.adapters.pausing import paused
from estiba.daemon.adapters.volumes import volume_view
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.errors import NotFound
from estiba.volumes.clones import clone
from estiba.volumes.snapshots import Snapshot, Snapshots
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import rename, resize

Json = dict[str, Any]


@dataclass(slots=True)
class VolumeCopies:
    """`api.ports.VolumeCopies`."""

    volumes: Volumes
    kept: Snapshots
    engine: Engine

    async def clone(
        self,
        name: str,
        new: str,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
        pause: bool,
    ) -> Json:
        live = users(self.engine, name)
        async with paused(live if pause else ()):
            record = await run_apart(clone, self.volumes, name, new, options=options, labels=labels)
        view = await run_blocking(volume_view, record, self.volumes)
        return {**view, "Warnings": [] if pause else warnings(name, live)}

    async def rename(self, name: str, new: str) -> None:
        holders = self.engine.volume_users(name)
        await run_blocking(rename, self.volumes, name, new, users=holders)

    async def resize(self, name: str, size: str) -> None:
        await run_apart(resize, self.volumes, name, size)

    async def snapshots(self, name: str) -> list[Json]:
        return [_view(one) for one in await run_blocking(self.kept.list, name)]

    async def snapshot(self, name: str, tag: str, *, pause: bool) -> Json:
        live = users(self.engine, name)
        async with paused(live if pause else ()):
            made = await run_apart(self.kept.create, name, tag)
        return {**_view(made), "Warnings": [] if pause else warnings(name, live)}

    async def rollback(self, name: str, tag: str) -> None:
        await run_apart(self.kept.rollback, name, tag)

    async def remove_snapshot(self, name: str, tag: str) -> None:
        await run_apart(self.kept.remove, name, tag)


def users(engine: Engine, name: str) -> list[Actor]:
    """The containers that are up and have the volume."""
    found = []
    for container in engine.volumes_in_use().get(name, []):
        try:
            found.append(engine.find(container))
        except NotFound:
            continue
    return found


def warnings(name: str, live: list[Actor]) -> list[str]:
    """What there is to say of a copy that is made while containers write."""
    if not live:
        return []
    names = ", ".join(actor.record.name for actor in live)
    return [
        f"volume {name} is in use by {names}: the copy holds each file as it was at some moment, "
        "as after a power cut; pause them meanwhile for one moment of all files"
    ]


def _view(snapshot: Snapshot) -> Json:
    return {
        "Tag": snapshot.tag,
        "CreatedAt": timestamp(snapshot.created_ns),
        "Size": snapshot.size,
    }
