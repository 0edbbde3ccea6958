"""The calls to a plugin that manages addresses (`/IpamDriver.*`), with checked answers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from typing import TypeVar

import msgspec

from estiba.model.errors import Internal
from estiba.network.addresses import Interface
from estiba.network.ipam import Address, Network, parse_address
from estiba.network.record import IpamConfig
from estiba.plugins.registry import IPAM, Plugin

T = TypeVar("T", bound=msgspec.Struct)

_GATEWAY = "com.docker.network.gateway"
_TYPE = "RequestAddressType"
_MAX_ID = 1024
_HURRY_S = 10.0


class _Nothing(msgspec.Struct, frozen=True):
    pass


class Capabilities(msgspec.Struct, frozen=True):
    needs_mac: bool = msgspec.field(default=False, name="RequiresMACAddress")
    needs_replay: bool = msgspec.field(default=False, name="RequiresRequestReplay")


class Spaces(msgspec.Struct, frozen=True):
    local: str = msgspec.field(default="", name="LocalDefaultAddressSpace")


class Pool(msgspec.Struct, frozen=True):
    id: str = msgspec.field(default="", name="PoolID")
    pool: str = msgspec.field(default="", name="Pool")
    data: dict[str, str] | None = msgspec.field(default=None, name="Data")


class AddressAnswer(msgspec.Struct, frozen=True):
    address: str = msgspec.field(default="", name="Address")


class IpamClient:
    """The calls, their answers checked."""

    def __init__(self, plugin: Plugin, *, is_query: bool = False, hurry: bool = False) -> None:
        """In a hurry a plugin that is away is not waited for."""
        self.name = plugin.name
        self._client = plugin.client
        self._is_query = is_query
        self._patience = {"timeout_s": _HURRY_S, "away_s": 0.0} if hurry else {}

    def call(self, method: str, arguments: Mapping[str, object] | None, kind: type[T]) -> T:
        return self._client.call(
            f"{IPAM}.{method}", arguments, kind, is_query=self._is_query, **self._patience
        )

    def space(self) -> str:
        """The default address space of this host."""
        return self.call("GetDefaultAddressSpaces", None, Spaces).local

    def capabilities(self) -> Capabilities:
        return self.call("GetCapabilities", None, Capabilities)

    def pool(
        self, space: str, config: IpamConfig, version: int, options: Mapping[str, str]
    ) -> Pool:
        arguments = {
            "AddressSpace": space,
            "Pool": config.subnet,
            "SubPool": config.ip_range,
            "Options": dict(options),
            "V6": version == 6,
        }
        pool = self.call("RequestPool", arguments, Pool)
        if not pool.id or len(pool.id) > _MAX_ID:
            raise Internal(f"IPAM plugin {self.name} gave a pool without a usable id")
        return pool

    def gateway(self, pool: Pool, config: IpamConfig, version: int) -> str:
        """The one that came with the pool, unless one is asked for."""
        told = (pool.data or {}).get(_GATEWAY, "")
        if told and not config.gateway:
            return str(_interface(told, self.name).ip)
        wanted = parse_address(config.gateway, version) if config.gateway else None
        return str(self.address(pool.id, wanted, {_TYPE: _GATEWAY}).ip)

    def address(
        self, pool_id: str, wanted: Address | None, options: Mapping[str, str]
    ) -> Interface:
        arguments = {
            "PoolID": pool_id,
            "Address": str(wanted) if wanted else "",
            "Options": dict(options),
        }
        return _interface(self.call("RequestAddress", arguments, AddressAnswer).address, self.name)

    def release(self, pool_id: str, address: str) -> None:
        self.call("ReleaseAddress", {"PoolID": pool_id, "Address": address}, _Nothing)

    def release_pool(self, pool_id: str) -> None:
        self.call("ReleasePool", {"PoolID": pool_id}, _Nothing)


def checked_subnet(text: str, version: int, name: str) -> Network:
    try:
        subnet = ip_network(text, strict=False)
    except ValueError as error:
        raise Internal(f"IPAM plugin {name} gave no subnet: {text[:64]!r}") from error
    if subnet.version != version:
        raise Internal(f"IPAM plugin {name} gave the subnet {subnet}, which is not IPv{version}")
    return subnet


def _interface(text: str, name: str) -> Interface:
    try:
        return ip_interface(text)
    except ValueError as error:
        raise Internal(f"IPAM plugin {name} gave no address: {text[:64]!r}") from error
