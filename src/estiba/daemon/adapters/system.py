"""The system for the routes: version, info, events, disk usage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.build.pruner import Pruner
from estiba.containers.engine import Engine
from estiba.containers.hostfacts import HostFacts
from estiba.daemon.adapters.container_filters import matches_label
from estiba.daemon.adapters.container_views import summary_view, timestamp
from estiba.daemon.adapters.images import ImageQueries
from estiba.daemon.adapters.system_views import EngineFacts, info_view, version_view
from estiba.daemon.adapters.volumes import volume_view
from estiba.daemon.config import DaemonConfig
from estiba.daemon.hostinfo import HostInfo
from estiba.images.images import Images
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.decoding import from_plain
from estiba.model.errors import InvalidArgument
from estiba.model.event import Event
from estiba.storage.snapshots import SnapshotStore
from estiba.store import EventBus, Store
from estiba.volumes.volumes import Volumes

Json = dict[str, Any]
Filters = Mapping[str, list[str]]
_EVENT_FILTERS = {
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
    "scope", "secret", "service", "type", "volume",
}  # fmt: skip
_USAGE_TYPES = {"container", "image", "volume", "build-cache"}


@dataclass(slots=True)
class System:
    """`api.ports.System`; `facts_now` gathers what changes while the engine runs."""

    config: DaemonConfig
    host: HostInfo
    facts: HostFacts
    engine: Engine
    images: Images
    image_queries: ImageQueries
    volumes: Volumes
    snapshots: SnapshotStore
    pruner: Pruner
    store: Store
    bus: EventBus
    facts_now: Callable[[], EngineFacts]

    async def version(self) -> Json:
        return version_view(self.config, self.host, self.facts_now())

    async def info(self) -> Json:
        return info_view(
            self.config, self.host, self.facts, self.facts_now(), self.engine.records()
        )

    async def authenticate(self, credentials: Json) -> Json:
        """Raises Unauthorized when the registry refuses them."""
        try:
            given = from_plain(credentials, dict[str, str])
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error
        # Not before somebody logs in: the client of registries is large.
        from estiba.distribution.credentials import credentials_from
        from estiba.distribution.login import check_credentials

        server = given.get("serveraddress", "")
        settings = self.config.registries
        token = await run_apart(check_credentials, server, credentials_from(given), settings)
        return {"Status": "Login Succeeded", "IdentityToken": token}

    # -- events ----------------------------------------------------------------------------

    def events(self, *, since_ns: int, until_ns: int, filters: Filters) -> AsyncIterator[Json]:
        """Raises InvalidArgument for an unknown filter, before anything is read."""
        unknown = set(filters) - _EVENT_FILTERS
        if unknown:
            raise InvalidArgument(f"invalid filter '{min(unknown)}'")
        return self._events(since_ns, until_ns, filters)

    async def _events(self, since_ns: int, until_ns: int, filters: Filters) -> AsyncIterator[Json]:
        with self.bus.subscribe() as subscription:
            last = 0
            # An end alone means everything up to there.
            if since_ns or until_ns:
                for event in await self.store.events_since(since_ns, until_ns or None):
                    last = event.sequence
                    if event_matches(event, filters):
                        yield event_view(event)
            remaining = (until_ns - time.time_ns()) / 1e9 if until_ns else None
            if remaining is not None and remaining <= 0:
                return
            async for event in _within(aiter(subscription), remaining):
                if until_ns and event.time_ns > until_ns:
                    return
                if event.sequence > last and event_matches(event, filters):
                    yield event_view(event)

    # -- disk usage ------------------------------------------------------------------------

    async def disk_usage(self, types: list[str]) -> Json:
        wanted = set(types) or _USAGE_TYPES
        unknown = wanted - _USAGE_TYPES
        if unknown:
            raise InvalidArgument(f"unknown object type: {min(unknown)}")
        view: Json = {}
        if "image" in wanted:
            view["LayersSize"] = await run_blocking(self._layers_size)
            view["Images"] = await self.image_queries.list_all(
                all=True, filters={}, shared_size=True
            )
        if "container" in wanted:
            view["Containers"] = await run_blocking(self._containers)
        if "volume" in wanted:
            view["Volumes"] = await run_blocking(self._volumes)
        if "build-cache" in wanted:
            view["BuildCache"] = await self._build_cache()
            view["BuilderSize"] = 0
        return view

    async def _build_cache(self) -> list[Json]:
        records, busy = await self.pruner.records()
        shared = self.pruner.shared()
        return [
            {
                "ID": record.id,
                "Parents": [record.parent] if record.parent else None,
                "Type": record.type,
                "Description": record.description,
                "InUse": record.id in busy,
                "Shared": record.layer in shared,
                "Size": record.size_bytes,
                "CreatedAt": timestamp(record.created_ns),
                "LastUsedAt": timestamp(record.last_used_ns),
                "UsageCount": record.uses,
            }
            for record in records
        ]

    def _layers_size(self) -> int:
        infos = (self.images.layers.info(layer) for layer in self.images.layers.diff_ids())
        return sum(info.size_bytes for info in infos if info is not None)

    def _containers(self) -> list[Json]:
        now = time.time_ns()
        views = []
        for record in self.engine.records():
            view = summary_view(record, self.engine.world.paths, now)
            view["SizeRw"] = self.snapshots.usage(record.id)
            below = (self.images.layers.info(layer) for layer in record.layers)
            view["SizeRootFs"] = view["SizeRw"] + sum(i.size_bytes for i in below if i is not None)
            views.append(view)
        return views

    def _volumes(self) -> list[Json]:
        records = self.engine.records()
        views = []
        for volume in self.volumes.on_disk():
            users = sum(
                any(p.type == "volume" and p.name == volume.name for p in record.mounts)
                for record in records
            )
            usage = {"Size": self.volumes.usage(volume.name), "RefCount": users}
            views.append({**volume_view(volume, self.volumes), "UsageData": usage})
        return views


async def _within(events: AsyncIterator[Event], remaining_s: float | None) -> AsyncIterator[Event]:
    """Those that come before the time is over, which is none of the consumer's own: a timeout
    over all would cancel it, in the middle of its writing to a slow client.
    """
    deadline = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                event = await anext(events)
        except (TimeoutError, StopAsyncIteration):
            return
        yield event


def event_view(event: Event) -> Json:
    """OpenAPI EventMessage, with the fields of old API versions."""
    view: Json = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }
    if event.type in ("container", "image"):
        view["status"], view["id"] = event.action, event.actor_id
    if event.type == "container":
        view["from"] = event.attributes.get("image", "")
    return view


def event_matches(event: Event, filters: Filters) -> bool:
    """Every filter matches in one of its values; labels in all."""
    for name, values in filters.items():
        if name == "type":
            matched = event.type in values
        elif name == "event":
            matched = any(
                event.action == value or event.action.startswith(f"{value}:") for value in values
            )
        elif name == "label":
            matched = all(matches_label(event.attributes, value) for value in values)
        elif name == "scope":
            matched = "local" in values
        else:
            matched = event.type == name and any(_is_actor(event, value) for value in values)
            if name == "image" and event.type == "container":
                image = event.attributes.get("image", "")
                matched = image in values or image.rpartition(":")[0] in values
        if values and not matched:
            return False
    return True


def _is_actor(event: Event, value: str) -> bool:
    name = event.attributes.get("name", "")
    return event.actor_id.startswith(value) or name == value or name.partition(":")[0] == value
