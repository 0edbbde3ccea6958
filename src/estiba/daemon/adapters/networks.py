"""Networks for the routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.daemon.adapters.container_filters import is_prunable, matches_label
from estiba.daemon.adapters.container_views import timestamp
from estiba.daemon.adapters.image_filters import parse_bool
from estiba.kernel.blocking import run_blocking
from estiba.model import errors
from estiba.model.container import EndpointSettings
from estiba.model.errors import Conflict, Forbidden, InvalidArgument
from estiba.network.networks import Networks
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec

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
            if record.predefined or not is_prunable(record.labels, record.created_ns, filters):
                continue
            try:
                await run_blocking(self.networks.remove, record.id)
            except (Forbidden, Conflict):
                continue
            removed.append(record.name)
        return {"NetworksDeleted": removed or None}


_NETWORK_TESTS: dict[str, Callable[[NetworkRecord, str], bool]] = {
    "name": lambda record, value: re.search(re.escape(value), record.name) is not None,
    "id": lambda record, value: record.id.startswith(value),
    "driver": lambda record, value: record.driver == value,
    "scope": lambda record, value: record.scope == value,
    "type": lambda record, value: value == ("builtin" if record.predefined else "custom"),
    "label": lambda record, value: matches_label(record.labels, value),
}
