"""Containers on networks, as policies see them, and which of them a peer of a rule means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface

from estiba.network.policy.egress import Address, Egress, Network
from estiba.network.policy.rules import OPEN, Kind, NetworkPolicy, Peer, Rule
from estiba.network.record import Endpoint, NetworkRecord


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine knows of a container beyond its endpoints; `egress` as it was written."""

    labels: Mapping[str, str] = field(default_factory=dict)
    egress: str = ""
    runs: bool = False
    """It has a program, which may have begun something before it joins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A container on one network. `link` is the host's end of its pair, `names` its aliases."""

    container_id: str
    name: str
    network_id: str
    network_name: str
    link: str
    bridge: str
    mac: str
    addresses: tuple[Address, ...]
    names: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    egress: Egress | None = None
    """Of the container itself, on all its networks."""

    @property
    def key(self) -> tuple[str, str]:
        return self.container_id, self.network_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """A network with what is said of it."""

    id: str
    name: str
    bridge: str
    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...]
    policy: NetworkPolicy = OPEN
    egress: Egress | None = None

    def is_neighbour(self, address: Address) -> bool:
        """An address on the network itself, the host's there left out."""
        if address in self.gateways:
            return False
        return any(net.version == address.version and address in net for net in self.subnets)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that policies are made of, at one moment."""

    networks: Mapping[str, NetworkView] = field(default_factory=dict)
    members: tuple[Member, ...] = ()

    def of_network(self, network_id: str) -> list[Member]:
        return [member for member in self.members if member.network_id == network_id]


def member_of(
    network: NetworkRecord,
    endpoint: Endpoint,
    labels: Mapping[str, str],
    egress: Egress | None,
) -> Member:
    addresses = [text for text in (endpoint.ip_address, endpoint.ipv6_address) if text]
    return Member(
        container_id=endpoint.container_id,
        name=endpoint.container_name,
        network_id=network.id,
        network_name=network.name,
        link=endpoint.host_interface,
        bridge=network.bridge,
        mac=endpoint.mac_address,
        addresses=tuple(ip_address(text) for text in addresses),
        names=frozenset(endpoint.dns_names),
        labels=labels,
        egress=egress,
    )


def view_of(network: NetworkRecord, policy: NetworkPolicy, egress: Egress | None) -> NetworkView:
    pools = [ip_interface(_with_prefix(pool.gateway, pool.subnet)) for pool in network.pools]
    return NetworkView(
        id=network.id,
        name=network.name,
        bridge=network.bridge,
        subnets=tuple(pool.network for pool in pools),
        gateways=tuple(pool.ip for pool in pools),
        policy=policy,
        egress=egress,
    )


def _with_prefix(gateway: str, subnet: str) -> str:
    address, _, prefix = subnet.partition("/")
    return f"{gateway.partition('/')[0] or address}/{prefix}"


def inherits(heir: Member, member: Member) -> bool:
    """Whether `heir` has an address of `member`, which is leaving the same network."""
    if heir.network_id != member.network_id:
        return False
    return heir.mac == member.mac or bool(set(heir.addresses) & set(member.addresses))


def fits(peer: Peer, member: Member, network_id: str) -> bool:
    """Whether a peer of that network's policy means the container, as a member there or elsewhere.

    An alias counts on its own network only.
    """
    if peer.kind is Kind.ANY:
        return True
    if peer.kind is Kind.NETWORK:
        if not peer.value:
            return member.network_id == network_id
        return peer.value in (member.network_name, member.network_id)
    if peer.kind is Kind.LABEL:
        key, equals, value = peer.value.partition("=")
        return key in member.labels and (not equals or member.labels[key] == value)
    if peer.kind is Kind.CONTAINER:
        if member.network_id == network_id and peer.value in member.names:
            return True
        is_id = len(peer.value) >= 12 and member.container_id.startswith(peer.value)
        return is_id or peer.value == member.name
    return False


def applying(policy: NetworkPolicy, target: Member) -> list[Rule]:
    """The rules that lead to `target`, a member of the policy's network."""
    return [
        rule
        for rule in policy.rules
        if any(fits(peer, target, target.network_id) for peer in rule.targets)
    ]
