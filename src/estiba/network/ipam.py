"""Addresses of one subnet, and subnets of the pools. Pure: knows no links and no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from estiba.model.errors import Conflict, FailedPrecondition, InvalidArgument


@dataclass(frozen=True, slots=True)
class AddressPool:
    """`base` is cut into subnets with a prefix of `size` bits (dockerd's words)."""

    base: IPv4Network
    size: int

    def subnets(self) -> Iterator[IPv4Network]:
        return self.base.subnets(new_prefix=self.size)


DEFAULT_POOLS = (
    *(AddressPool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)


def choose_subnet(pools: Iterable[AddressPool], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet that overlaps nothing `taken`. Raises FailedPrecondition."""
    others = list(taken)
    for pool in pools:
        for subnet in pool.subnets():
            if not any(subnet.overlaps(other) for other in others):
                return subnet
    raise FailedPrecondition(
        "all predefined address pools have been fully subnetted: remove networks that are not "
        "needed, give a subnet, or widen --default-address-pool"
    )


class Allocator:
    """Hands out addresses of a subnet, each to one owner; the same owner gets the same again.

    The search goes on where it last ended, so that an address that was just released is
    reused last and no neighbour's ARP cache points at its old owner.
    """

    def __init__(
        self,
        subnet: IPv4Network,
        *,
        gateway: IPv4Address,
        ip_range: IPv4Network | None = None,
        reserved: Iterable[IPv4Address] = (),
    ) -> None:
        self._subnet = subnet
        area = ip_range or subnet
        self._first, self._last = int(area.network_address), int(area.broadcast_address)
        self._blocked = {int(gateway), *map(int, reserved)}
        if subnet.prefixlen < 31:
            self._blocked |= {int(subnet.network_address), int(subnet.broadcast_address)}
        self._owner_by_address: dict[int, str] = {}
        self._address_by_owner: dict[str, int] = {}
        self._cursor = self._first

    def allocate(
        self,
        owner: str,
        wanted: IPv4Address | None = None,
        *,
        preferred: IPv4Address | None = None,
    ) -> IPv4Address:
        """An address for `owner`: the one `wanted`, else the one `preferred` if it is free.

        Raises InvalidArgument, Conflict or FailedPrecondition: outside, taken, none left.
        """
        held = self._address_by_owner.get(owner)
        if held is not None and (wanted is None or int(wanted) == held):
            return IPv4Address(held)
        self.release(owner)
        if wanted is not None:
            number = self._check(wanted)
        elif preferred is not None and self._is_free(int(preferred)):
            number = int(preferred)
        else:
            number = self._next_free()
        self._owner_by_address[number] = owner
        self._address_by_owner[owner] = number
        return IPv4Address(number)

    def release(self, owner: str) -> None:
        """Frees the owner's address; none is no error."""
        number = self._address_by_owner.pop(owner, None)
        if number is not None:
            del self._owner_by_address[number]

    def _check(self, wanted: IPv4Address) -> int:
        if wanted not in self._subnet:
            raise InvalidArgument(
                f"invalid address {wanted}: it does not belong to the network's subnet "
                f"{self._subnet}"
            )
        number = int(wanted)
        if number in self._blocked or number in self._owner_by_address:
            raise Conflict(f"Address already in use: {wanted}")
        return number

    def _is_free(self, number: int) -> bool:
        inside = self._first <= number <= self._last
        return inside and number not in self._blocked and number not in self._owner_by_address

    def _next_free(self) -> int:
        size = self._last - self._first + 1
        for step in range(size):
            number = self._first + (self._cursor - self._first + step) % size
            if number not in self._blocked and number not in self._owner_by_address:
                self._cursor = number + 1
                return number
        raise FailedPrecondition(
            f"no available IPv4 addresses on this network's address pools: {self._subnet}"
        )
