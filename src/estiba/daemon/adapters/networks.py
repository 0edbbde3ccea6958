"""Networks for the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.daemon.adapters.container_filters import is_prunable, matches_label
from estiba.daemon.adapters.container_views import timestamp
from estiba.kernel.blocking import run_blocking
from estiba.model.container import EndpointSettings
from estiba.model.decoding import from_plain
from estiba.model.errors import Conflict, Forbidden, InvalidArgument, NotFound
from estiba.model.event import EventType, prune_event
from estiba.model.patterns import matches
from estiba.network.networks import Networks
from estiba.network.record import Endpoint, IpamConfig, NetworkRecord, NetworkSpec

Json = dict[str, Any]
Filters = Mapping[str, list[str]]
_SCOPES = ("", "local", "global", "swarm")


class _Ipam(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IpamConfig] = []


class _ConfigFrom(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    network: str = ""


class _Creation(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The body of POST /networks/create (OpenAPI NetworkCreateRequest)."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool = msgspec.field(default=True, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: _Ipam = msgspec.field(default=_Ipam(), name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: _ConfigFrom = _ConfigFrom()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


@dataclass(slots=True)
class NetworkAdapter:
    """`api.ports.Networks`."""

    networks: Networks
    engine: Engine

    async def list_all(self, filters: Filters) -> list[Json]:
        records = self.networks.networks()
        tests = {**_NETWORK_TESTS, "dangling": self._matches_dangling}
        for name, values in filters.items():
            test = tests.get(name)
            if test is None:
                raise InvalidArgument(f"invalid filter '{name}'")
            if name == "dangling" and len(set(values)) > 1:
                raise InvalidArgument('got more than one value for filter key "dangling"')
            combine = all if name == "label" else any
            records = [r for r in records if combine(test(r, value) for value in values)]
        return [network_view(record) for record in records]

    def _matches_dangling(self, record: NetworkRecord, value: str) -> bool:
        """No container is connected to it; what the engine itself has made is never dangling."""
        dangling = not record.predefined and not self.networks.endpoints(record.id)
        if value not in ("true", "1", "false", "0"):
            raise InvalidArgument(
                'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" '
                '(or "0")'
            )
        return dangling is (value in ("true", "1"))

    async def inspect(self, ref: str, *, verbose: bool, scope: str = "") -> Json:
        if scope not in _SCOPES:
            raise InvalidArgument(f"invalid scope {scope[:32]!r}: local, global or swarm")
        record = self.networks.network(ref)
        if scope not in ("", record.scope):
            raise NotFound(f"network {ref} not found")
        containers = {
            endpoint.container_id: _member_view(endpoint)
            for endpoint in self.networks.endpoints(record.id)
        }
        return {**network_view(record), "Containers": containers}

    async def create(self, body: Json) -> Json:
        try:
            asked = from_plain(body, _Creation)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error
        if asked.ingress:
            raise Forbidden("Ingress network can only be global scope network")
        if asked.scope == "swarm":
            raise Forbidden("cannot create a swarm scoped network when swarm is not active")
        if not asked.name:
            raise InvalidArgument("invalid name: name is empty")
        if asked.scope not in ("", "local"):
            raise InvalidArgument(f"invalid scope {asked.scope[:32]!r}: a bridge network is local")
        spec = NetworkSpec(
            name=asked.name,
            driver=asked.driver or "bridge",
            internal=asked.internal,
            attachable=asked.attachable,
            enable_ipv4=asked.enable_ipv4,
            enable_ipv6=bool(asked.enable_ipv6),
            ipam_driver=asked.ipam.driver or "default",
            ipam_options=asked.ipam.options,
            pools=asked.ipam.config,
            options=asked.options,
            labels=asked.labels,
            config_only=asked.config_only,
            config_from=asked.config_from.network,
        )
        work = run_blocking(self.networks.create, spec)
        record = await self._finish(work, f"make network {spec.name}")
        return {"Id": record.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        await self._finish(run_blocking(self.networks.remove, ref), f"remove network {ref}")

    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None:
        actor = self.engine.find(container)
        work = actor.connections.connect(ref, settings)
        await self._finish(work, f"connect {actor.record.name}")

    async def disconnect(self, ref: str, container: str, *, force: bool) -> None:
        try:
            actor = self.engine.find(container)
        except NotFound:
            if not force:
                raise
            await run_blocking(self._evict, ref, container)
            return
        work = actor.connections.disconnect(ref, force=force)
        await self._finish(work, f"disconnect {actor.record.name}")

    def _evict(self, ref: str, container: str) -> None:
        """An endpoint that its container has left behind."""
        record = self.networks.network(ref)
        for endpoint in self.networks.endpoints(record.id):
            if container in (endpoint.container_name, endpoint.container_id):
                self.networks.disconnect(endpoint.container_id, endpoint)
                return
        raise NotFound(f"endpoint {container} not found")

    async def prune(self, filters: Filters) -> Json:
        removed = []
        for record in self.networks.networks():
            if record.predefined or not is_prunable(record.labels, record.created_ns, filters):
                continue
            try:
                await self.remove(record.id)
            except (Forbidden, Conflict, NotFound):
                continue
            removed.append(record.name)
        event = prune_event(EventType.NETWORK)
        await self.engine.world.store.commit(lambda tx: tx.add_event(event))
        return {"NetworksDeleted": removed or None}

    async def _finish(self, work: Any, name: str) -> Any:
        """A client that hangs up cancels its wait, not the work."""
        return await self.engine.world.tasks.finish(work, name=name)


def network_view(record: NetworkRecord) -> Json:
    """OpenAPI Network, without those connected to it."""
    pools = [msgspec.to_builtins(pool) for version in (4, 6) for pool in _pools(record, version)]
    if record.ipam_driver == "null":
        pools = [{"Subnet": "0.0.0.0/0"}]
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": timestamp(record.created_ns),
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": None if record.predefined else record.ipam_options,
            "Config": pools if pools or not record.predefined else None,
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": record.config_only,
        "Containers": {},
        "Options": record.options,
        "Labels": record.labels,
    }


def _pools(record: NetworkRecord, version: int) -> list[IpamConfig]:
    """Those of one family as they were asked for, or as they were chosen."""
    for pools in (record.asked_pools, record.pools):
        found = [pool for pool in pools if pool.subnet and (":" in pool.subnet) == (version == 6)]
        if found:
            return found
    return []


def _member_view(endpoint: Endpoint) -> Json:
    """OpenAPI NetworkContainer."""
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac_address,
        "IPv4Address": _with_length(endpoint.ip_address, endpoint.ip_prefix_len),
        "IPv6Address": _with_length(endpoint.ipv6_address, endpoint.ipv6_prefix_len),
    }


def _with_length(address: str, prefix_len: int) -> str:
    return f"{address}/{prefix_len}" if address else ""


def _is_named(record: NetworkRecord, value: str) -> bool:
    return matches(value, record.name)


def _is_of_type(record: NetworkRecord, value: str) -> bool:
    if value not in ("builtin", "custom"):
        raise InvalidArgument(f"invalid filter: 'type'='{value[:32]}'")
    return value == ("builtin" if record.predefined else "custom")


_NETWORK_TESTS: dict[str, Callable[[NetworkRecord, str], bool]] = {
    "name": _is_named,
    "id": lambda record, value: record.id.startswith(value),
    "driver": lambda record, value: record.driver == value,
    "scope": lambda record, value: record.scope == value,
    "type": _is_of_type,
    "label": lambda record, value: matches_label(record.labels, value),
}
