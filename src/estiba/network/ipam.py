"""Addresses of one subnet, and subnets of the pools. Pure: knows no links and no files.

Both families are treated alike. Nothing here ever walks a subnet: the work is bounded by what
is taken, not by what there is, for an IPv6 subnet has 2^64 addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from estiba.model.errors import Forbidden, InvalidArgument, Unavailable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AddressPool:
    """`base` is cut into subnets with a prefix of `size` bits (dockerd's words)."""

    base: Network
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A range of addresses in use, and what has it, in words: `network blue`, `route of eth0`.

    One that is only `avoided` is not chosen for a network, but may be asked for: a route to
    far away is broader than the subnet that takes a piece of it.
    """

    network: Network
    by: str
    avoided: bool = False


DEFAULT_POOLS = (
    *(AddressPool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)


def with_defaults(pools: Iterable[AddressPool], engine_id: str) -> tuple[AddressPool, ...]:
    """The pools with the default ones for each family that has none.

    For IPv6 that is a unique local prefix (RFC 4193) that belongs to the engine: it stays the
    same for its life and differs from that of other hosts.
    """
    given = tuple(pools)
    if not any(pool.base.version == 4 for pool in given):
        given += DEFAULT_POOLS
    if not any(pool.base.version == 6 for pool in given):
        global_id = hashlib.sha256(engine_id.encode()).digest()[3:8]
        base = IPv6Network((b"\xfd" + global_id + bytes(10), 48))
        given += (AddressPool(base, 64),)
    return given


def choose_subnet(
    pools: Iterable[AddressPool], taken: Iterable[Network], version: int = 4
) -> Network:
    """The first subnet of that family that overlaps nothing `taken`. Raises InvalidArgument."""
    spans = sorted(
        (int(other.network_address), int(other.broadcast_address))
        for other in taken
        if other.version == version
    )
    for pool in pools:
        if pool.base.version == version:
            number = _first_gap(pool, spans)
            if number is not None:
                first = IPv4Address(number) if version == 4 else IPv6Address(number)
                return ip_network((first, pool.size))
    raise InvalidArgument(
        f"all predefined address pools have been fully subnetted (IPv{version}): remove networks "
        "that are not needed, give a subnet, or widen --default-address-pool"
    )


def _first_gap(pool: AddressPool, spans: list[tuple[int, int]]) -> int | None:
    step = 1 << (pool.base.max_prefixlen - pool.size)
    number = int(pool.base.network_address)
    for first, last in spans:
        if first >= number + step:
            break
        if last >= number:
            number += -(-(last + 1 - number) // step) * step
    return number if number + step - 1 <= int(pool.base.broadcast_address) else None


class Allocator:
    """Hands out addresses of a subnet, each to one owner; the same owner gets the same again.

    The search goes on where it last ended, so that an address that was just released is
    reused last and no neighbour's ARP cache points at its old owner.
    """

    def __init__(
        self,
        subnet: Network,
        *,
        gateway: Address | None,
        ip_range: Network | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet = subnet
        self.gateway = gateway
        area = ip_range or subnet
        self._first, self._last = int(area.network_address), int(area.broadcast_address)
        self._blocked = {int(address): "an auxiliary address" for address in reserved}
        if subnet.prefixlen < subnet.max_prefixlen - 1:
            # Of IPv6 it is the anycast address of all routers, and there is no broadcast.
            self._blocked[int(subnet.network_address)] = "the network itself"
            if subnet.version == 4:
                self._blocked[int(subnet.broadcast_address)] = "broadcasts"
        if gateway is not None:
            self._blocked[int(gateway)] = "the gateway"
        self._owner_by_address: dict[int, str] = {}
        self._address_by_owner: dict[str, int] = {}
        self._cursor = self._first

    def allocate(
        self, owner: str, wanted: Address | None = None, *, preferred: Address | None = None
    ) -> Address:
        """An address for `owner`: the one `wanted`, else the one `preferred` if it is free.

        Raises InvalidArgument, Forbidden or Unavailable: outside, taken, none left.
        """
        held = self._address_by_owner.get(owner)
        if held is not None and (wanted is None or int(wanted) == held):
            return self._address(held)
        if wanted is not None:
            number = self._check(wanted)
        elif preferred is not None and self._is_free(int(preferred)):
            number = int(preferred)
        else:
            number = self._next_free()
        self.release(owner)
        self._owner_by_address[number] = owner
        self._address_by_owner[owner] = number
        return self._address(number)

    def release(self, owner: str) -> None:
        """Frees the owner's address; none is no error."""
        number = self._address_by_owner.pop(owner, None)
        if number is not None:
            del self._owner_by_address[number]

    def suits(self, preferred: Address) -> bool:
        """Whether that address can be had here."""
        return preferred.version == self.subnet.version and self._is_free(int(preferred))

    def holds(self, owner: str) -> bool:
        return owner in self._address_by_owner

    def user_of(self, address: Address) -> tuple[str, str]:
        """The owner of an address and what else it is reserved for; empty when it is free."""
        number = int(address)
        return self._owner_by_address.get(number, ""), self._blocked.get(number, "")

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)

    def _check(self, wanted: Address) -> int:
        if wanted not in self.subnet:
            raise InvalidArgument(
                f"Invalid address {wanted}: It does not belong to any of this network's subnets: "
                f"choose one of {self.subnet}"
            )
        owner, use = self.user_of(wanted)
        if owner or use:
            raise Forbidden(f"Address already in use: {wanted}")
        return int(wanted)

    def _is_free(self, number: int) -> bool:
        inside = self._first <= number <= self._last
        return inside and number not in self._blocked and number not in self._owner_by_address

    def _next_free(self) -> int:
        size = self._last - self._first + 1
        used = len(self._blocked) + len(self._owner_by_address)
        # Among one more candidates than are used one is free, if there are so many at all.
        for step in range(min(size, used + 1)):
            number = self._first + (self._cursor - self._first + step) % size
            if self._is_free(number):
                self._cursor = number + 1
                return number
        raise Unavailable(
            f"no available IPv{self.subnet.version} addresses on this network's address pools: "
            f"{self.subnet}"
        )


def parse_address(text: str, version: int) -> Address:
    """Raises InvalidArgument for what is no address of that family."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid IPv{version} address: {text[:64]!r}") from error
    if address.version != version or getattr(address, "scope_id", None):
        raise InvalidArgument(f"invalid IPv{version} address: {text[:64]!r}")
    return address
