"""The addresses of one network: all pools of both families, and which endpoint has which. Pure."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Protocol

import msgspec

from estiba.model.container import EndpointIpamConfig
from estiba.model.errors import EstibaError, Forbidden, InvalidArgument, Unavailable
from estiba.network.ipam import Address, Allocator, parse_address
from estiba.network.pools import parse_subnet
from estiba.network.record import Endpoint, NetworkRecord

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Given:
    """What an endpoint gets of one family; `gateway` is that of its pool."""

    address: Interface
    gateway: Address | None


class Addresses(Protocol):
    """Where a driver gets its endpoints' addresses from; methods may be called from any thread."""

    def allocate(
        self, endpoint: Endpoint, wanted: EndpointIpamConfig | None, before: Endpoint | None
    ) -> list[Given]:
        """One of each family that the network has, IPv4 first; the same endpoint gets the same.

        `endpoint` has an id, a container and perhaps a MAC, and no addresses yet. `before` is
        what the container had in an earlier run: it is given again where it is free.
        Raises InvalidArgument, Forbidden or Unavailable; nothing is held then.
        """

    def adopt(self, endpoint: Endpoint) -> None:
        """Notes what a live endpoint has. Raises as `allocate` does."""

    def release(self, owner: str) -> None:
        """Frees all that the owner has; none is no error."""

    def rename(self, owner: str, name: str) -> None:
        """The owner is called otherwise from now on."""


class LocalAddresses:
    """`Addresses` out of the pools of the record."""

    def __init__(self, network: NetworkRecord) -> None:
        self._network = network
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._pools: dict[int, list[Allocator]] = {4: [], 6: []}
        for pool in network.pools:
            subnet = parse_subnet(pool.subnet)
            version = subnet.version
            gateway = parse_address(pool.gateway, version) if pool.gateway else None
            self._pools[version].append(
                Allocator(
                    subnet,
                    gateway=gateway,
                    ip_range=parse_subnet(pool.ip_range) if pool.ip_range else None,
                    reserved=[
                        parse_address(text, version) for text in pool.auxiliary_addresses.values()
                    ],
                )
            )

    def allocate(
        self, endpoint: Endpoint, wanted: EndpointIpamConfig | None, before: Endpoint | None
    ) -> list[Given]:
        wishes = (wanted.ipv4_address, wanted.ipv6_address) if wanted else ("", "")
        earlier = (before.ip_address, before.ipv6_address) if before else ("", "")
        owner = endpoint.id
        with self._lock:
            self._names[owner] = endpoint.container_name
            try:
                return [
                    self._take(version, owner, _parsed(wish, version), _parsed(last, version))
                    for version, wish, last in zip((4, 6), wishes, earlier, strict=True)
                    if self._pools[version] or wish
                ]
            except EstibaError:
                self._release(owner)
                raise

    def _take(
        self, version: int, owner: str, wanted: Address | None, preferred: Address | None
    ) -> Given:
        pools = self._pools[version]
        if wanted is not None:
            pool = self._pool_of(version, wanted)
            self._check_free(pool, owner, wanted)
            for other in pools:
                if other is not pool:
                    other.release(owner)
            return _given(pool, pool.allocate(owner, wanted))

        # The pool that it has, or may have again, an address of comes first.
        def rank(pool: Allocator) -> tuple[bool, bool]:
            return not pool.holds(owner), preferred is None or not pool.suits(preferred)

        for pool in sorted(pools, key=rank):
            try:
                return _given(pool, pool.allocate(owner, preferred=preferred))
            except Unavailable:
                continue
        subnets = ", ".join(str(pool.subnet) for pool in pools)
        raise Unavailable(
            f"no available IPv{version} addresses on this network's address pools: "
            f"{self._network.name} ({subnets})"
        )

    def _check_free(self, pool: Allocator, owner: str, wanted: Address) -> None:
        other, use = pool.user_of(wanted)
        if other and other != owner:
            name = self._names.get(other, other)
            raise Forbidden(f"Address already in use: {wanted}: container {name} has it")
        if use:
            raise Forbidden(f"Address already in use: {wanted}: it is that of {use}")

    def _pool_of(self, version: int, wanted: Address) -> Allocator:
        for pool in self._pools[version]:
            if wanted in pool.subnet:
                return pool
        subnets = ", ".join(str(pool.subnet) for pool in self._pools[version])
        raise InvalidArgument(
            f"Invalid address {wanted}: It does not belong to any of this network's subnets: "
            + (f"choose one of {subnets}" if subnets else f"it has none of IPv{version}")
        )

    def adopt(self, endpoint: Endpoint) -> None:
        wanted = EndpointIpamConfig(
            ipv4_address=endpoint.ip_address, ipv6_address=endpoint.ipv6_address
        )
        self.allocate(endpoint, wanted, None)

    def release(self, owner: str) -> None:
        with self._lock:
            self._release(owner)

    def rename(self, owner: str, name: str) -> None:
        with self._lock:
            if owner in self._names:
                self._names[owner] = name

    def _release(self, owner: str) -> None:
        self._names.pop(owner, None)
        for pools in self._pools.values():
            for pool in pools:
                pool.release(owner)


def _given(pool: Allocator, address: Address) -> Given:
    return Given(ip_interface((address, pool.subnet.prefixlen)), pool.gateway)


def _parsed(text: str, version: int) -> Address | None:
    return parse_address(text, version) if text else None


def with_addresses(endpoint: Endpoint, network: NetworkRecord, given: Iterable[Given]) -> Endpoint:
    """The endpoint with the addresses that it was given, and gateways where it may have them."""
    for one in given:
        version = one.address.version
        gateway = str(one.gateway) if one.gateway and network.has_gateway(version) else ""
        address, length = str(one.address.ip), one.address.network.prefixlen
        if version == 4:
            endpoint = msgspec.structs.replace(
                endpoint, ip_address=address, ip_prefix_len=length, gateway=gateway
            )
        else:
            endpoint = msgspec.structs.replace(
                endpoint, ipv6_address=address, ipv6_prefix_len=length, ipv6_gateway=gateway
            )
    return endpoint


def interfaces_of(endpoint: Endpoint) -> list[Interface]:
    """All addresses that the container's end has, with their prefixes."""
    found = [ip_interface(text) for text in endpoint.link_local_ips]
    if endpoint.ipv6_address:
        found.insert(0, ip_interface(f"{endpoint.ipv6_address}/{endpoint.ipv6_prefix_len}"))
    if endpoint.ip_address:
        found.insert(0, ip_interface(f"{endpoint.ip_address}/{endpoint.ip_prefix_len}"))
    return found
