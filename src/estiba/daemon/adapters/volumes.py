"""Volumes for the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_filters import is_prunable, matches_label
from estiba.daemon.adapters.container_views import timestamp
from estiba.daemon.adapters.image_filters import parse_bool
from estiba.kernel.blocking import run_blocking
from estiba.model.errors import InvalidArgument
from estiba.volumes.record import VolumeRecord
from estiba.volumes.volumes import Volumes

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


def volume_view(record: VolumeRecord, volumes: Volumes) -> Json:
    """OpenAPI Volume, without UsageData."""
    return {
        "Name": record.name,
        "Driver": "local",
        "Mountpoint": str(volumes.path(record.name)),
        "CreatedAt": timestamp(record.created_ns),
        "Labels": record.labels or None,
        "Scope": "local",
        "Options": record.options or None,
    }


@dataclass(slots=True)
class VolumeAdapter:
    """`api.ports.Volumes`."""

    volumes: Volumes
    engine: Engine

    async def list_all(self, filters: Filters) -> Json:
        records = self.volumes.volumes()
        for name, values in filters.items():
            if name not in ("name", "driver", "label", "dangling"):
                raise InvalidArgument(f"invalid filter '{name}'")
            if name == "dangling":
                for value in values:
                    parse_bool(name, value)
            combine = all if name == "label" else any
            records = [r for r in records if combine(self._test(r, name, v) for v in values)]
        return {"Volumes": [self._view(record) for record in records], "Warnings": None}

    def _test(self, record: VolumeRecord, name: str, value: str) -> bool:
        if name == "name":
            return value in record.name
        if name == "driver":
            return value == "local"
        if name == "label":
            return matches_label(record.labels, value)
        return parse_bool(name, value) is not bool(self.engine.volume_users(record.name))

    def _view(self, record: VolumeRecord) -> Json:
        return volume_view(record, self.volumes)

    async def inspect(self, name: str) -> Json:
        return self._view(self.volumes.get(name))

    async def create(self, body: Json) -> Json:
        try:
            options = msgspec.convert(body.get("DriverOpts") or {}, dict[str, str])
            labels = msgspec.convert(body.get("Labels") or {}, dict[str, str])
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error
        record = await run_blocking(
            self.volumes.create,
            str(body.get("Name") or ""),
            driver=str(body.get("Driver") or "local"),
            options=options,
            labels=labels,
        )
        return self._view(record)

    async def remove(self, name: str, *, force: bool) -> None:
        users = self.engine.volume_users(name)
        await run_blocking(self.volumes.remove, name, users=users, force=force)

    async def prune(self, filters: Filters) -> Json:
        everything = filters.get("all", ["false"])[0].lower() in ("true", "1")

        def is_wanted(record: VolumeRecord) -> bool:
            return (everything or record.is_anonymous) and is_prunable(
                record.labels, record.created_ns, filters
            )

        freed = await run_blocking(
            self.volumes.prune,
            is_used=lambda name: bool(self.engine.volume_users(name)),
            is_wanted=is_wanted,
        )
        return {"VolumesDeleted": list(freed), "SpaceReclaimed": sum(freed.values())}
