"""Networks and volumes for the routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_filters import matches_label, parse_until
from estiba.daemon.adapters.container_views import timestamp
from estiba.daemon.adapters.image_filters import parse_bool
from estiba.kernel.blocking import run_blocking
from estiba.model import errors
from estiba.model.container import EndpointSettings
from estiba.model.errors import Conflict, Forbidden, InvalidArgument
from estiba.network.networks import Networks
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec
from estiba.volumes.record import VolumeRecord
from estiba.volumes.volumes import Volumes

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


@dataclass(slots=True)
class NetworkAdapter:
    """`api.ports.Networks`."""

    networks: Networks

    async def list_all(self, filters: Filters) -> list[Json]:
        records = self.networks.networks()
        tests = {**_NETWORK_TESTS, "dangling": self._matches_dangling}
        for name, values in filters.items():
            test = tests.get(name)
            if test is None:
                raise InvalidArgument(f"invalid filter '{name}'")
            combine = all if name == "label" else any
            records = [r for r in records if combine(test(r, value) for value in values)]
        return [self._view(record) for record in records]

    def _matches_dangling(self, record: NetworkRecord, value: str) -> bool:
        """No container is connected to it; what the engine itself has made is never dangling."""
        dangling = not record.predefined and not self.networks.endpoints(record.id)
        return dangling is parse_bool("dangling", value)

    async def inspect(self, ref: str, *, verbose: bool) -> Json:
        record = self.networks.network(ref)
        containers = {
            endpoint.container_id: {
                "Name": endpoint.container_name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": f"{endpoint.ip_address}/{endpoint.ip_prefix_len}"
                if endpoint.ip_address
                else "",
                "IPv6Address": "",
            }
            for endpoint in self.networks.endpoints(record.id)
        }
        return {**self._view(record), "Containers": containers}

    @staticmethod
    def _view(record: NetworkRecord) -> Json:
        options = dict(record.options)
        if record.predefined and record.driver == "bridge":
            options.setdefault("com.docker.network.bridge.default_bridge", "true")
            options.setdefault("com.docker.network.bridge.name", record.bridge)
            options.setdefault("com.docker.network.bridge.enable_icc", str(record.icc).lower())
            options.setdefault(
                "com.docker.network.bridge.enable_ip_masquerade", str(record.masquerade).lower()
            )
            options.setdefault("com.docker.network.bridge.host_binding_ipv4", record.host_ip)
            options.setdefault("com.docker.network.driver.mtu", str(record.mtu))
        return {
            "Name": record.name,
            "Id": record.id,
            "Created": timestamp(record.created_ns),
            "Scope": record.scope,
            "Driver": record.driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Options": None,
                "Config": [msgspec.to_builtins(pool) for pool in record.pools],
            },
            "Internal": record.internal,
            "Attachable": record.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": options,
            "Labels": record.labels,
        }

    async def create(self, body: Json) -> Json:
        ipam = body.get("IPAM") or {}
        if not isinstance(ipam, dict):
            raise InvalidArgument("invalid JSON: IPAM must be an object")
        try:
            pools = msgspec.convert(ipam.get("Config") or [], list[IpamConfig])
            spec = NetworkSpec(
                name=str(body.get("Name", "")),
                driver=str(body.get("Driver") or "bridge"),
                internal=bool(body.get("Internal")),
                attachable=bool(body.get("Attachable")),
                enable_ipv6=bool(body.get("EnableIPv6")),
                pools=pools,
                options=msgspec.convert(body.get("Options") or {}, dict[str, str]),
                labels=msgspec.convert(body.get("Labels") or {}, dict[str, str]),
            )
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error
        record = await run_blocking(self.networks.create, spec)
        return {"Id": record.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        await run_blocking(self.networks.remove, ref)

    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None:
        raise errors.NotImplemented("NetworkConnect (POST /networks/{id}/connect) is not built yet")

    async def disconnect(self, ref: str, container: str, *, force: bool) -> None:
        raise errors.NotImplemented(
            "NetworkDisconnect (POST /networks/{id}/disconnect) is not built yet"
        )

    async def prune(self, filters: Filters) -> Json:
        removed = []
        for record in self.networks.networks():
            if record.predefined or not _prunable(record.labels, record.created_ns, filters):
                continue
            try:
                await run_blocking(self.networks.remove, record.id)
            except (Forbidden, Conflict):
                continue
            removed.append(record.name)
        return {"NetworksDeleted": removed or None}


def _prunable(labels: Mapping[str, str], created_ns: int, filters: Filters) -> bool:
    for name in filters:
        if name not in ("until", "label", "label!", "all"):
            raise InvalidArgument(f"invalid filter '{name}'")
    return (
        all(created_ns < parse_until(value) for value in filters.get("until", []))
        and all(matches_label(labels, value) for value in filters.get("label", []))
        and not any(matches_label(labels, value) for value in filters.get("label!", []))
    )


_NETWORK_TESTS: dict[str, Callable[[NetworkRecord, str], bool]] = {
    "name": lambda record, value: re.search(re.escape(value), record.name) is not None,
    "id": lambda record, value: record.id.startswith(value),
    "driver": lambda record, value: record.driver == value,
    "scope": lambda record, value: record.scope == value,
    "type": lambda record, value: value == ("builtin" if record.predefined else "custom"),
    "label": lambda record, value: matches_label(record.labels, value),
}


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
            return (everything or record.is_anonymous) and _prunable(
                record.labels, record.created_ns, filters
            )

        freed = await run_blocking(
            self.volumes.prune,
            is_used=lambda name: bool(self.engine.volume_users(name)),
            is_wanted=is_wanted,
        )
        return {"VolumesDeleted": list(freed), "SpaceReclaimed": sum(freed.values())}
