"""Addresses that names were said to have: what an allow-list of names lets through, and until when.

Memory is the truth; the sets in the kernel are its copy, with the same times.
"""

from __future__ import annotations

from collections.abc import Iterable

from estiba.network.policy.egress import Address

FLOOR_S = 300.0
"""Clients keep an address longer than its answer allows: browsers for a minute, others more."""

CEILING_S = 86400.0
MAX_ADDRESSES = 4096
"""Of one container and one entry of its list; those that end first make room."""

Key = tuple[str, str]
"""A container's id and the name or pattern of the list's entry."""


def is_learnable(address: Address) -> bool:
    """Nobody's name leads an allow-list to the host's loopback, to the metadata service of a
    cloud (link-local) or to a group of hosts. Nor, but that is for `names` to know, to the host
    itself or to other containers."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


class Learnt:
    """Not safe by itself: its owner holds a lock. Times are those of one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[Key, dict[Address, float]] = {}

    def add(
        self, key: Key, addresses: Iterable[Address], *, ttl_s: float, now: float
    ) -> tuple[dict[Address, float], list[Address]]:
        """What must be written, with seconds to live, and what must go.

        An address that is there for long enough is left alone, so that a client that asks a
        thousand times a second costs no change of the ruleset.
        """
        lifetime = min(max(ttl_s, FLOOR_S), CEILING_S)
        known = self._until.setdefault(key, {})
        fresh: dict[Address, float] = {}
        for address in addresses:
            left = known.get(address, now) - now
            if left < min(ttl_s, CEILING_S) or left < lifetime / 2:
                known[address] = now + lifetime
                fresh[address] = lifetime
        # Connections that began in time are known by their addresses for another day.
        gone = [address for address, until in known.items() if until + CEILING_S <= now]
        by_end = sorted(known, key=known.__getitem__)
        crowd = by_end[: max(0, len(known) - MAX_ADDRESSES)]
        for address in {*gone, *crowd}:
            del known[address]
            fresh.pop(address, None)
        return fresh, crowd

    def restore(self, key: Key, address: Address, *, until: float) -> None:
        self._until.setdefault(key, {})[address] = until

    def living(self, key: Key, now: float) -> dict[Address, float]:
        """Addresses with their seconds to live."""
        return {
            address: until - now
            for address, until in self._until.get(key, {}).items()
            if until > now
        }

    def forget(self, container_id: str) -> None:
        for key in [key for key in self._until if key[0] == container_id]:
            del self._until[key]
