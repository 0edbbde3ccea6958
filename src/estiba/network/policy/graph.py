"""Who can reach whom: containers by network, the host, the outside, published ports. Pure.

What an edge says is asked of `explain`, for one port that no rule names and for each that one
does, so that the drawing and the words cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from estiba.network.policy.explain import explain
from estiba.network.policy.members import Member, applying
from estiba.network.policy.service import Service
from estiba.network.policy.world import Party, Published, World

MAX_PAIRS = 20_000
_LAST_PORT = 65535
OUTSIDE, HOST = "outside", "host"


@dataclass(frozen=True, slots=True)
class Edge:
    """`services` are what passes, or all but `without`; `peer` is a name."""

    peer: str
    services: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        shown = ", ".join(self.services) or "everything"
        return f"{shown} but {', '.join(self.without)}" if self.without else shown


@dataclass(frozen=True, slots=True)
class Port:
    """A published port; not `is_open`: other machines do not reach it."""

    text: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class Node:
    """A container on one network, with what it reaches and by which ports it is reached."""

    name: str
    addresses: tuple[str, ...]
    reaches: tuple[Edge, ...]
    by_host: Edge | None
    published: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A network. Its containers reach each other freely where `meshed`: no edges say so then."""

    name: str
    driver: str
    traits: tuple[str, ...]
    meshed: bool
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    groups: tuple[Group, ...]


def build_graph(world: World) -> Graph:
    return Graph(tuple(_Maker(world).groups()))


class _Maker:
    def __init__(self, world: World) -> None:
        self._world = world
        self._pairs = 0
        self._published = world.published()

    def groups(self) -> Iterator[Group]:
        world = self._world
        for record in sorted(world.networks.values(), key=lambda record: record.name):
            members = sorted(world.state.of_network(record.id), key=lambda m: m.name)
            if not members:
                continue
            view = world.state.networks[record.id]
            traits = [str(subnet) for subnet in view.subnets]
            traits += ["internal"] if record.internal else []
            traits += [] if record.icc else ["icc=false"]
            traits += [f"policy {view.policy.default}"] if view.policy.guards else []
            traits += [f"egress {view.egress}"] if view.egress is not None else []
            meshed = record.icc and not view.policy.guards
            nodes = tuple(self._node(member, members, meshed=meshed) for member in members)
            yield Group(record.name, record.driver, tuple(traits), meshed, nodes)

    def _node(self, member: Member, members: list[Member], *, meshed: bool) -> Node:
        edges = []
        if not meshed:
            for other in members:
                if other.container_id == member.container_id or self._pairs >= MAX_PAIRS:
                    continue
                self._pairs += 1
                edges.append(self._edge(_party(member), _party(other), other.name, other))
        edges.append(self._out(member))
        ports = [self._port(port) for port in self._published if port.target.key == member.key]
        return Node(
            member.name,
            tuple(map(str, member.addresses)),
            tuple(edge for edge in edges if edge is not None),
            self._edge(Party(HOST, is_host=True), _party(member), HOST, member),
            tuple(ports),
        )

    def _port(self, port: Published) -> Port:
        shown = f"{port.host_port}/{port.protocol} at {port.host_ip} → {port.port}"
        if port.host_ip.is_loopback:
            return Port(f"{shown} ({HOST} alone)", False)
        target = Party(HOST, is_host=True)
        if not port.host_ip.is_unspecified:
            target = Party(HOST, is_host=True, address=port.host_ip)
        service = Service(port.protocol, port.host_port, port.host_port)
        open_ = self._passes(Party(OUTSIDE), target, service)
        return Port(shown if open_ else f"{shown} (refused to {OUTSIDE})", open_)

    def _edge(self, source: Party, target: Party, name: str, there: Member) -> Edge | None:
        view = self._world.view(there)
        named = {s for rule in applying(view.policy, there) for s in rule.services if s.protocol}
        other = _unnamed(named)
        generic = other is not None and self._passes(source, target, other)
        differ = [
            str(service)
            for service in sorted(named)
            if self._passes(source, target, _one(service)) is not generic
        ]
        if generic:
            return Edge(name, (), tuple(differ))
        return Edge(name, tuple(differ)) if differ else None

    def _passes(self, source: Party, target: Party, service: Service) -> bool:
        return explain(self._world, source, target, service).passes

    def _out(self, member: Member) -> Edge | None:
        record = self._world.record(member)
        if record.internal:
            return None
        lists = [self._world.view(member).egress, member.egress]
        closed = [found for found in lists if found is not None]
        if any(not found.allowed for found in closed):
            return None
        shown = " and ".join(
            ", ".join(str(entry).removeprefix("allow=") for entry in found.allowed)
            for found in closed
        )
        return Edge(OUTSIDE, (shown,) if shown else ())


def _party(member: Member) -> Party:
    return Party(member.name, container_id=member.container_id, network_id=member.network_id)


def _one(service: Service) -> Service:
    low = service.low or 1
    if service.protocol == "icmp":
        return service
    return Service(service.protocol, low, low)


def _unnamed(named: set[Service]) -> Service | None:
    """A port that no rule speaks of by its number; None where rules name them all."""
    for protocol in ("tcp", "udp", "sctp"):
        port = 1
        for low, high in sorted((s.low, s.high) for s in named if s.protocol == protocol and s.low):
            if low > port:
                break
            port = max(port, high + 1)
        if port <= _LAST_PORT:
            return Service(protocol, port, port)
    return None
