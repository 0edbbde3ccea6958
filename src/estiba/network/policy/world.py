"""The networks of an engine at one moment, and who a word of the command line means. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from estiba.model.errors import InvalidArgument, NotFound
from estiba.network.firewall.rules import LinkRule
from estiba.network.policy.decide import Known, Source
from estiba.network.policy.egress import Address
from estiba.network.policy.members import Member, NetworkView, State
from estiba.network.policy.service import Service, parse_service
from estiba.network.record import Endpoint, NetworkRecord

HostVerdict = Callable[[str, int, Address | None, Source, bool], tuple[bool | None, str]]
"""Protocol, port and address of the host, who begins, and whether the port is published: whether
the host's own firewall lets it in, in words; None where that cannot be said."""

_NAME = re.compile(r"[a-z0-9_*-]+(\.[a-z0-9_-]+)+")


def _host_admits(
    protocol: str, port: int, address: Address | None, source: Source, published: bool
) -> tuple[bool | None, str]:
    return True, "no input policy of the host"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that leads to a container."""

    protocol: str
    host_ip: Address
    host_port: int
    target: Member
    port: int
    address: Address

    def answers(self, address: Address, protocol: str, port: int) -> bool:
        if protocol != self.protocol or port != self.host_port:
            return False
        if self.address.version != address.version:
            return False
        return self.host_ip.is_unspecified or self.host_ip == address

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if self.host_ip.version == 6 else str(self.host_ip)
        return f"{host}:{self.host_port}/{self.protocol} → {self.target.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    networks: Mapping[str, NetworkRecord]
    endpoints: Sequence[Endpoint]
    state: State
    """Members and views of all networks, guarded or not."""

    host_addresses: Sequence[Address] = ()
    links: Collection[LinkRule] = ()
    """What containers reach of neighbours that they may not talk to."""

    user_rules: int = 0
    """How many the administrator has for what is forwarded (`user-forward`)."""

    known: Known = field(default=lambda container_id, host: ())
    host_verdict: HostVerdict = _host_admits

    def member(self, container_id: str, network_id: str) -> Member | None:
        """None on a network that does not pass the engine's firewall, as of a plugin."""
        key = container_id, network_id
        return next((member for member in self.state.members if member.key == key), None)

    def members(self, container_id: str) -> list[Member]:
        return [m for m in self.state.members if m.container_id == container_id]

    def view(self, member: Member) -> NetworkView:
        return self.state.networks[member.network_id]

    def record(self, member: Member) -> NetworkRecord:
        return self.networks[member.network_id]

    def at(self, address: Address) -> Member | None:
        return next((m for m in self.state.members if address in m.addresses), None)

    def is_host(self, address: Address) -> bool:
        if address.is_loopback or address in self.host_addresses:
            return True
        return any(address in view.gateways for view in self.state.networks.values())

    def way_out(self, container_id: str, version: int) -> Endpoint | None:
        """By which endpoint a container's default route leads."""
        found = [
            endpoint
            for endpoint in self.endpoints
            if endpoint.container_id == container_id and endpoint.gateway_of(version)
        ]
        return min(found, key=lambda endpoint: endpoint.gateway_rank, default=None)

    def gateway_of(self, container_id: str, version: int) -> Member | None:
        """The same as a member; None without one, or past the engine's firewall."""
        best = self.way_out(container_id, version)
        return None if best is None else self.member(container_id, best.network_id)

    def published(self) -> list[Published]:
        return [
            port
            for endpoint in self.endpoints
            if endpoint.ports
            and (target := self.member(endpoint.container_id, endpoint.network_id)) is not None
            for port in _published_by(endpoint, target)
        ]


def _published_by(endpoint: Endpoint, target: Member) -> Iterator[Published]:
    for key, bindings in endpoint.ports.items():
        number, _, protocol = key.partition("/")
        for binding in bindings:
            host_ip = ip_address(binding.host_ip or "0.0.0.0")
            text = endpoint.ip_address if host_ip.version == 4 else endpoint.ipv6_address
            if text and binding.host_port:
                host_port = int(binding.host_port)
                address = ip_address(text)
                yield Published(protocol, host_ip, host_port, target, int(number), address)


@dataclass(frozen=True, slots=True)
class Party:
    """One end: a container (perhaps on a network that is named), the host, a machine outside."""

    text: str
    container_id: str = ""
    network_id: str = ""
    address: Address | None = None
    name: str = ""
    is_host: bool = False

    @property
    def is_outside(self) -> bool:
        return not self.container_id and not self.is_host


def split_target(text: str) -> tuple[str, Service]:
    """Who and what of `TO[:PORT[/PROTOCOL]]`; a ping is meant where no port is named.

    Raises InvalidArgument.
    """
    if len(text) > 512:
        raise InvalidArgument("a name this long is nobody's")
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(.+))?", text)
    if bracketed:
        who, port = bracketed[1], bracketed[2] or ""
    elif text.count(":") > 1:
        who, port = text, ""
    else:
        who, _, port = text.partition(":")
    if not port and "/" in who:
        who, _, port = who.partition("/")
    service = parse_service(port) if port else Service("icmp")
    if service.low != service.high:
        raise InvalidArgument(f"{text[:100]!r}: name one port")
    if service.protocol != "icmp" and not service.low:
        raise InvalidArgument(f"{text[:100]!r}: name a port of {service.protocol}")
    return who, service


def resolve(world: World, text: str) -> Party:
    """`CONTAINER[@NETWORK]`, an address, `host`, `outside`, or the name of a domain.

    Raises NotFound or InvalidArgument.
    """
    if text == "host":
        return Party(text, is_host=True)
    if text == "outside":
        return Party(text)
    address = _address(text)
    if address is not None:
        return _of_address(world, text, address)
    who, _, network = text.partition("@")
    found = _container(world, who)
    if found is None:
        if not network and _NAME.fullmatch(text.lower()):
            return Party(text, name=text.lower())
        raise NotFound(f"no running container on a network is called {who[:100]!r}")
    if not network:
        return Party(text, container_id=found)
    for member in world.members(found):
        if network in (member.network_name, member.network_id):
            return Party(text, container_id=found, network_id=member.network_id)
    raise NotFound(f"container {who} is not on network {network[:100]!r}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _of_address(world: World, text: str, address: Address) -> Party:
    member = world.at(address)
    if member is not None:
        return Party(text, member.container_id, member.network_id, address)
    return Party(text, address=address, is_host=world.is_host(address))


def _container(world: World, text: str) -> str | None:
    """By name, alias, or the beginning of an id that is the only one like it."""
    if not text:
        raise InvalidArgument("name a container, an address, `host` or `outside`")
    for test in (
        lambda m: text in (m.name, m.container_id),
        lambda m: text in m.names,
        lambda m: m.container_id.startswith(text),
    ):
        found = {m.container_id for m in world.state.members if test(m)}
        if len(found) > 1:
            raise InvalidArgument(
                f"{text[:100]!r} means {len(found)} containers: name one by its id"
            )
        if found:
            return found.pop()
    return None
