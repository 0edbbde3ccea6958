"""What the gates say of one packet that begins a connection: the compiler's meaning in words. Pure.

`compile` writes for the kernel what this says; a test sends packets and holds one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from estiba.network.policy.egress import ANYWHERE, Address, Egress
from estiba.network.policy.members import Member, NetworkView, applying, fits
from estiba.network.policy.rules import Kind, Peer, Rule

Known = Callable[[str, str], Collection[Address]]
"""Addresses that a container was told for a name or pattern of its list."""


@dataclass(frozen=True, slots=True)
class Verdict:
    passes: bool
    rule: str


@dataclass(frozen=True, slots=True)
class Source:
    """Who begins: a container by one of its networks, the host, or a machine outside."""

    member: Member | None = None
    is_host: bool = False
    address: Address | None = None

    @property
    def is_outside(self) -> bool:
        return self.member is None and not self.is_host


def ingress(
    view: NetworkView, target: Member, source: Source, protocol: str, port: int
) -> Verdict | None:
    """What the network's policy says of a packet to `target`; None when it has none."""
    if not view.policy.guards:
        return None
    for rule in applying(view.policy, target):
        comes = any(_is_from(peer, source, view) for peer in rule.sources)
        if comes and _covers(rule, protocol, port):
            return Verdict(rule.allows, str(rule))
    return Verdict(not view.policy.closed, view.policy.default)


def _is_from(peer: Peer, source: Source, view: NetworkView) -> bool:
    if peer.kind is Kind.ANY:
        return True
    if peer.kind is Kind.HOST:
        return source.is_host
    if peer.kind is Kind.OUTSIDE:
        return source.is_outside
    if peer.subnet is not None:
        address = source.address
        same = address is not None and address.version == peer.subnet.version
        return same and address in peer.subnet
    return source.member is not None and fits(peer, source.member, view.id)


def _covers(rule: Rule, protocol: str, port: int) -> bool:
    return any(service.matches(protocol, port) for service in rule.services)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a packet leads to: an address, a name that is not looked up, or anywhere."""

    address: Address | None = None
    name: str = ""


def egress(
    view: NetworkView,
    member: Member,
    where: Destination,
    protocol: str,
    port: int,
    known: Known,
) -> list[Verdict]:
    """What each list says, the network's first: all must let it pass. None: no list."""
    lists = [
        (view.egress, f"network {view.name}"),
        (member.egress, f"container {member.name}"),
    ]
    return [
        _listed(found, whose, member, where, protocol, port, known)
        for found, whose in lists
        if found is not None
    ]


def _listed(
    found: Egress,
    whose: str,
    member: Member,
    where: Destination,
    protocol: str,
    port: int,
    known: Known,
) -> Verdict:
    for entry in found.allowed:
        if not entry.service.matches(protocol, port):
            continue
        if entry.host == ANYWHERE or (where.name and entry.is_name and entry.names(where.name)):
            return Verdict(True, f"egress {entry} ({whose})")
        address = where.address
        if address is None:
            continue
        if entry.holds(address) or (
            entry.is_name and address in known(member.container_id, entry.host)
        ):
            return Verdict(True, f"egress {entry} ({whose})")
    return Verdict(False, not_listed(found, whose))


def not_listed(found: Egress, whose: str) -> str:
    return f"egress {'not on the list' if found.allowed else 'none'} ({whose})"
