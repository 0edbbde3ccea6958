"""Who is connected, who is about to go, and who had which address last. No lock of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from estiba.network.policy.egress import Address, Egress
from estiba.network.policy.members import Member, NetworkView, inherits
from estiba.network.record import NetworkRecord

Key = tuple[str, str]
"""Ids of a container and of a network that it is on."""


class Roll:
    """`gone` hears of containers that are on no network any more."""

    def __init__(self, gone: Callable[[str], None]) -> None:
        self._gone = gone
        self._networks: dict[str, NetworkRecord] = {}
        self._members: dict[Key, Member] = {}
        self._leaving: set[Key] = set()
        """Members whose links may still be there: they stay guarded until they are gone."""

        self._owners: dict[Address, str] = {}
        """Containers by the addresses that they had last, be they gone."""

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members.values())

    def networks(self) -> list[NetworkRecord]:
        """Those that a member is or was on."""
        return list(self._networks.values())

    def network(self, network_id: str) -> NetworkRecord:
        return self._networks[network_id]

    def get(self, key: Key) -> Member | None:
        return self._members.get(key)

    def is_leaving(self, member: Member) -> bool:
        return member.key in self._leaving

    def name_of(self, address: Address) -> str:
        """Of the container that has it, or nothing."""
        return next((one.name for one in self.members() if address in one.addresses), "")

    def twin(self, member: Member) -> Member | None:
        """Another one that stays on the same network with the same MAC."""
        for other in self._members.values():
            same = other.network_id == member.network_id and other.mac == member.mac
            if same and other.key != member.key and other.key not in self._leaving:
                return other
        return None

    # -- changes ---------------------------------------------------------------------------

    def enter(self, network: NetworkRecord, member: Member) -> bool:
        """Whether that is news."""
        known = None if member.key in self._leaving else self._members.get(member.key)
        if known == member and self._networks[network.id] == network:
            return False
        self._networks[network.id] = network
        self._purge(member)
        self._members[member.key] = member
        return True

    def leave(self, key: Key) -> bool:
        """Whether it was a member. It stays one until its link is gone."""
        if key not in self._members:
            return False
        self._leaving.add(key)
        self._purge()
        return True

    def own(self, member: Member) -> list[Address]:
        """Its addresses are its own from now on; those that were not."""
        strange = [a for a in member.addresses if self._owners.get(a) != member.container_id]
        self._owners |= dict.fromkeys(strange, member.container_id)
        return strange

    def relabel(
        self, container_id: str, labels: Mapping[str, str], egress: Egress | None
    ) -> list[Member]:
        """What is known of a container has changed; its members as they were."""
        before = [one for one in self.members() if one.container_id == container_id]
        self.put(replace(one, labels=labels, egress=egress) for one in before)
        return before

    def put(self, members: Iterable[Member]) -> None:
        """These instead of those with their keys."""
        self._members.update((one.key, one) for one in members)

    def remove_network(self, view: NetworkView) -> bool:
        """Whether it had members."""
        gone = [key for key in self._members if key[1] == view.id]
        for key in gone:
            self._forget(key)
        self._networks.pop(view.id, None)
        for address in [a for a in self._owners if any(a in net for net in view.subnets)]:
            del self._owners[address]
        return bool(gone)

    def _purge(self, heir: Member | None = None) -> None:
        """Forgets members whose links are gone, or whose addresses another has by now."""
        for key in list(self._leaving):
            member = self._members[key]
            if heir is not None and heir.key == key:
                self._leaving.discard(key)
            elif not _has_link(member.link) or (heir is not None and inherits(heir, member)):
                self._forget(key)

    def _forget(self, key: Key) -> None:
        self._leaving.discard(key)
        del self._members[key]
        if not any(other[0] == key[0] for other in self._members):
            self._gone(key[0])


def _has_link(name: str) -> bool:
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False
