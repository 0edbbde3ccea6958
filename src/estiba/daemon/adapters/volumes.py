"""Volumes for the routes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_filters import is_prunable, matches_label
from estiba.daemon.adapters.container_views import timestamp
from estiba.daemon.adapters.image_filters import check_known, parse_bool
from estiba.kernel.blocking import run_blocking
from estiba.model.decoding import from_plain
from estiba.model.errors import Conflict, EstibaError, InvalidArgument, NotFound, Unavailable
from estiba.model.patterns import matches
from estiba.volumes.record import VolumeRecord
from estiba.volumes.volumes import Volumes

Json = dict[str, Any]
Filters = Mapping[str, list[str]]
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)


def volume_view(record: VolumeRecord, volumes: Volumes) -> Json:
    """OpenAPI Volume, without UsageData. Blocks: the driver may be another process.

    What a driver that does not answer would say is left out.
    """
    scope, mountpoint, created = "local", "", timestamp(record.created_ns)
    status: Json = {}
    with contextlib.suppress(EstibaError, OSError):
        driver = volumes.driver(record.driver)
        scope = driver.scope
        found = driver.get(record.name)
        mountpoint, status = found.mountpoint, dict(found.status)
        created = found.created_at or created
    view = {
        "Name": record.name,
        "Driver": record.driver,
        "Mountpoint": mountpoint,
        "CreatedAt": created,
        "Labels": record.labels or None,
        "Scope": scope,
        "Options": record.options or None,
    }
    return {**view, "Status": status} if status else view


@dataclass(slots=True)
class VolumeAdapter:
    """`api.ports.Volumes`."""

    volumes: Volumes
    engine: Engine
    _is_pruning: bool = False

    async def list_all(self, filters: Filters) -> Json:
        strangers = await run_blocking(self.volumes.strangers)
        records = [*self.volumes.volumes(), *strangers]
        for name, values in filters.items():
            if name not in ("name", "driver", "label", "dangling"):
                raise InvalidArgument(f"invalid filter '{name}'")
            if name == "dangling":
                for value in values:
                    parse_bool(name, value)
            combine = all if name == "label" else any
            records = [r for r in records if combine(self._test(r, name, v) for v in values)]
        views = await run_blocking(lambda: [self._view(record) for record in records])
        return {"Volumes": views, "Warnings": None}

    def _test(self, record: VolumeRecord, name: str, value: str) -> bool:
        if name == "name":
            return matches(value, record.name)
        if name == "driver":
            return value == record.driver
        if name == "label":
            return matches_label(record.labels, value)
        return parse_bool(name, value) is not bool(self.engine.volume_users(record.name))

    def _view(self, record: VolumeRecord) -> Json:
        return volume_view(record, self.volumes)

    async def inspect(self, name: str) -> Json:
        return await run_blocking(lambda: self._view(self.volumes.find(name)))

    async def create(self, body: Json) -> Json:
        if body.get("ClusterVolumeSpec") is not None:
            raise Unavailable(_NO_SWARM)
        try:
            options = from_plain(body.get("DriverOpts") or {}, dict[str, str])
            labels = from_plain(body.get("Labels") or {}, dict[str, str])
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error
        record = await run_blocking(
            self.volumes.create,
            str(body.get("Name") or ""),
            driver=str(body.get("Driver") or "local"),
            options=options,
            labels=labels,
        )
        return await run_blocking(self._view, record)

    async def update(self, name: str) -> None:
        self.volumes.get(name)
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")

    async def remove(self, name: str, *, force: bool) -> None:
        if not self.volumes.has(name):
            with contextlib.suppress(NotFound):
                await run_blocking(self.volumes.find, name)
        users = self.engine.volume_users(name)
        await run_blocking(self.volumes.remove, name, users=users, force=force)

    async def prune(self, filters: Filters) -> Json:
        check_known(filters, {"all", "label", "label!"})
        everything = any(parse_bool("all", value) for value in filters.get("all", []))
        if self._is_pruning:
            raise Conflict("a prune operation is already running")

        def is_wanted(record: VolumeRecord) -> bool:
            return (everything or record.is_anonymous) and is_prunable(
                record.labels, record.created_ns, filters
            )

        self._is_pruning = True
        try:
            freed = await run_blocking(
                self.volumes.prune,
                is_used=lambda name: bool(self.engine.volume_users(name)),
                is_wanted=is_wanted,
            )
        finally:
            self._is_pruning = False
        return {"VolumesDeleted": list(freed), "SpaceReclaimed": sum(freed.values())}
