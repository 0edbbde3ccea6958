"""Allow-lists of names: which names may be asked for, and the sets that their answers fill.

Holds no lock: `Policies` calls it with the firewall's held, but for `allows`, which reads one
dictionary that is replaced and never changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import ip_network

from estiba.kernel import rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.nft import Nft
from estiba.network.policy import carried
from estiba.network.policy.compile import Compiled, learnt_key, learnt_sets
from estiba.network.policy.egress import Address, Allowed, Egress, Network
from estiba.network.policy.learn import Learnt, is_learnable
from estiba.network.policy.members import Member, State


class Names:
    """`table` is the name of the engine's table of family inet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.table = ""
        self._clock = clock
        self._learnt = Learnt()
        self._judges: dict[str, tuple[Egress, ...]] = {}

    # -- questions ---------------------------------------------------------------------------

    def is_watched(self, container_id: str) -> bool:
        return container_id in self._judges

    def allows(self, container_id: str, name: str) -> bool:
        return all(egress.names(name) for egress in self._judges.get(container_id, ()))

    def settle(self, state: State) -> None:
        """Who judges the names of whom: the container's own list, and its networks' together.

        A name counts as allowed by the networks if one of them would let it out.
        """
        judges: dict[str, tuple[Egress, ...]] = {}
        mine: dict[str, list[Member]] = {}
        for member in state.members:
            mine.setdefault(member.container_id, []).append(member)
        for container_id, members in mine.items():
            lists = [state.networks[member.network_id].egress for member in members]
            found = [] if members[0].egress is None else [members[0].egress]
            if all(egress is not None for egress in lists):
                found.append(Egress(tuple(e for one in lists if one for e in one.allowed)))
            if found:
                judges[container_id] = tuple(found)
        self._judges = judges

    # -- answers -----------------------------------------------------------------------------

    def learn(
        self,
        state: State,
        compiled: Compiled,
        container_id: str,
        name: str,
        addresses: Sequence[Address],
        ttl_s: int,
    ) -> list[str]:
        """The commands that let the addresses through. Raises NetlinkError."""
        wanted = [address for address in addresses if is_learnable(address)]
        inside = _inside(state) if wanted else ()
        wanted = [each for each in wanted if not any(each in network for network in inside)]
        entries = {
            entry.host: entry for _, entry in _entries(state, container_id) if entry.names(name)
        }
        commands: list[str] = []
        for host, entry in entries.items():
            fresh, gone = self._learnt.add(
                (container_id, host), wanted, ttl_s=ttl_s, now=self._clock()
            )
            for member in state.members:
                if member.container_id != container_id:
                    continue
                sets = dict(zip((4, 6), learnt_sets(entry), strict=True))
                for address in (*fresh, *gone):
                    where = sets[address.version]
                    if where in compiled.inet.sets:
                        key = learnt_key(member, address)
                        commands += self._write(where, key, fresh.get(address))
        return commands

    def _write(self, name: str, key: str, lifetime_s: float | None) -> list[str]:
        """The time of an element that is there can only be set by making it anew."""
        where = f"element inet {self.table} {name}"
        commands = [f"add {where} {{ {key} }}", f"delete {where} {{ {key} }}"]
        if lifetime_s is not None:
            commands.append(f"add {where} {{ {_timed(key, lifetime_s)} }}")
        return commands

    def known(self, container_id: str, host: str) -> Collection[Address]:
        return self._learnt.living((container_id, host), self._clock())

    def ever(self, container_id: str, host: str) -> Collection[Address]:
        """Those whose time is over too, as long as they are remembered."""
        return self._learnt.living((container_id, host), float("-inf"))

    def forget(self, container_id: str) -> None:
        self._learnt.forget(container_id)

    # -- sets --------------------------------------------------------------------------------

    def elements(self, state: State) -> dict[str, list[str]]:
        """What the sets hold, by their names."""
        found: dict[str, dict[str, float]] = {}
        now = self._clock()
        for member, entry in _entries(state):
            known = self._learnt.living((member.container_id, entry.host), now)
            for version, name in zip((4, 6), learnt_sets(entry), strict=True):
                # Two lists of a container may name the same: one element.
                found.setdefault(name, {}).update(
                    {
                        learnt_key(member, address): left
                        for address, left in known.items()
                        if address.version == version
                    }
                )
        return {
            name: [_timed(key, left) for key, left in elements.items()]
            for name, elements in found.items()
        }

    def fill(self, state: State, before: Compiled, now: Compiled) -> list[str]:
        """What is known already, for sets that are new."""
        return [
            f"add element inet {self.table} {name} {{ {', '.join(members)} }}"
            for name, members in self.elements(state).items()
            if members and name in now.inet.sets and name not in before.inet.sets
        ]

    def recall(self, state: State, nft: Nft) -> None:
        """Takes over what the table of an earlier engine holds."""
        now = self._clock()
        sets: dict[str, dict[str, dict[Address, float]]] = {}
        for member, entry in _entries(state):
            key = (member.container_id, entry.host)
            for name in learnt_sets(entry):
                if name not in sets:
                    sets[name] = carried.learnt(nft, self.table, name)
                of_member = sets[name].get(f"{member.bridge} {member.mac}", {})
                for address, left in of_member.items():
                    self._learnt.restore(key, address, until=now + left)


def _inside(state: State) -> list[Network]:
    """The host's own addresses, and containers: who writes an allowed name's records must not
    lead there.
    """
    with NetlinkSocket() as handle:
        local = [address.ip for _, address in rtroutes.list_addresses(handle)]
    subnets = [subnet for view in state.networks.values() for subnet in view.subnets]
    return [*map(ip_network, local), *subnets]


def _timed(key: str, lifetime_s: float) -> str:
    return f"{key} timeout {max(1, round(lifetime_s))}s"


def _entries(state: State, container_id: str = "") -> Iterator[tuple[Member, Allowed]]:
    """All entries that are names, of one container or of all."""
    for member in state.members:
        if container_id and member.container_id != container_id:
            continue
        for egress in (state.networks[member.network_id].egress, member.egress):
            if egress is not None:
                yield from ((member, entry) for entry in egress.allowed if entry.is_name)
