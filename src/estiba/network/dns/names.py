"""Who is called what, and what a container is told when it asks. No I/O.

Each container sees only the networks that it is on. On one network a name belongs to the
containers that bear it: by name, alias, hostname or short id; several may share an alias.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from estiba.network.dns.message import Rcode, Type, encode_name, render_record
from estiba.network.dns.records import TTL_S, CustomRecord, Zone, parse_zone
from estiba.network.record import Endpoint, NetworkRecord

HOST_TTL_S = 10
"""Containers come and go with their addresses: clients that cache must ask again soon."""

_MAX_ALIASES = 8
_REVERSE_V4 = b".in-addr.arpa"
_REVERSE_V6 = b".ip6.arpa"


@dataclass(frozen=True, slots=True)
class Local:
    """Answered here. Without answers the name is there, or is known not to be."""

    answers: Sequence[bytes] = ()
    rcode: Rcode = Rcode.NOERROR
    additional: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Outside:
    """Nothing here knows the name: servers outside may be asked for `name`.

    `aliases` are records that led to it and stand before what they answer.
    """

    name: bytes
    aliases: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A container on one network. Addresses are records, ready to be sent."""

    container_id: str
    name: bytes
    names: frozenset[bytes]
    packed: tuple[bytes, ...]
    a: tuple[bytes, ...]
    aaaa: tuple[bytes, ...]
    pointer: bytes

    def is_called(self, target: str) -> bool:
        """Whether a link names this container, by its name or (the beginning of) its id."""
        return self.name == target.lower().encode() or self.container_id.startswith(target)


@dataclass(slots=True)
class _Network:
    zone: Zone
    suffix: bytes
    internal: bool
    subnets: tuple[IPv4Network | IPv6Network, ...]
    named: bool
    hosts: dict[bytes, list[Host]] = field(default_factory=dict)
    by_address: dict[bytes, Host] = field(default_factory=dict)
    members: dict[str, Host] = field(default_factory=dict)

    def add(self, host: Host) -> None:
        self.discard(host.container_id)
        self.members[host.container_id] = host
        for name in host.names:
            self.hosts.setdefault(name, []).append(host)
        self.by_address.update(dict.fromkeys(host.packed, host))

    def discard(self, container_id: str) -> None:
        host = self.members.pop(container_id, None)
        if host is None:
            return
        for name in host.names:
            left = [other for other in self.hosts[name] if other is not host]
            if left:
                self.hosts[name] = left
            else:
                del self.hosts[name]
        for packed in host.packed:
            if self.by_address.get(packed) is host:
                del self.by_address[packed]


@dataclass(slots=True)
class _View:
    """What one container sees: its networks, the one with the default route first."""

    networks: list[_Network]
    links: dict[tuple[int, bytes], str]
    """(place of the network, alias) → container, for links that this container alone has."""


class Names:
    """All names of an engine. May be used from any thread."""

    def __init__(self, shuffle: random.Random | None = None) -> None:
        self._random = shuffle or random.Random()
        self._lock = threading.Lock()
        self._networks: dict[str, _Network] = {}
        self._joined: dict[str, dict[str, Endpoint]] = {}
        self._views: dict[str, _View] = {}

    def join(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """Adds a container to a network; again is no error and takes its new names."""
        host = _host(network, endpoint)
        with self._lock:
            known = self._networks.get(network.id)
            if known is None:
                known = self._networks[network.id] = _network(network)
            known.add(host)
            self._joined.setdefault(endpoint.container_id, {})[network.id] = endpoint
            self._views.pop(endpoint.container_id, None)

    def leave(self, endpoint: Endpoint) -> bool:
        """Whether the container is still on a network afterwards."""
        with self._lock:
            network = self._networks.get(endpoint.network_id)
            if network is not None:
                network.discard(endpoint.container_id)
            mine = self._joined.get(endpoint.container_id, {})
            mine.pop(endpoint.network_id, None)
            self._views.pop(endpoint.container_id, None)
            if not mine:
                self._joined.pop(endpoint.container_id, None)
            return bool(mine)

    def forget(self, network_id: str) -> None:
        """The network is no more."""
        with self._lock:
            self._networks.pop(network_id, None)

    def is_inside_only(self, container_id: str) -> bool:
        """Whether all networks of a container are internal: then nothing leads outside."""
        with self._lock:
            return all(network.internal for network in self._view(container_id).networks)

    def decide(self, container_id: str, name: bytes, kind: int) -> Local | Outside:
        """What the container is told that asks for `name` (lower case, no dot at the end)."""
        with self._lock:
            view = self._view(container_id)
            if kind == Type.PTR:
                found = self._reverse(view, name)
                if found is not None:
                    return found
            return self._follow(view, name, kind)

    def _view(self, container_id: str) -> _View:
        view = self._views.get(container_id)
        if view is None:
            mine = self._joined.get(container_id, {})
            ordered = sorted(mine.values(), key=lambda each: (not each.gateway, each.gateway_rank))
            ordered = [each for each in ordered if each.network_id in self._networks]
            networks = [self._networks[each.network_id] for each in ordered]
            links = {}
            for place, endpoint in enumerate(ordered):
                for link in endpoint.requested.links or ():
                    target, _, alias = link.partition(":")
                    links[place, (alias or target).lower().encode()] = target
            view = self._views[container_id] = _View(networks, links)
        return view

    # -- forward lookups -------------------------------------------------------------------

    def _follow(self, view: _View, name: bytes, kind: int) -> Local | Outside:
        """Follows aliases of custom records as far as they lead to names known here."""
        aliases: list[bytes] = []
        seen = {name}
        owner: bytes | None = None
        while True:
            found = self._lookup(view, name, kind)
            if found is None:
                return Outside(name, aliases)
            if isinstance(found, list):
                return Local([*aliases, *(_owned(record, owner) for record in found)])
            aliases.append(_owned(render_record(Type.CNAME, TTL_S, found.data), owner))
            name, owner = found.target, found.data
            if kind == Type.CNAME:
                return Local(aliases)
            if name in seen or len(seen) > _MAX_ALIASES:
                return Local(rcode=Rcode.SERVFAIL)
            seen.add(name)

    def _lookup(self, view: _View, name: bytes, kind: int) -> list[bytes] | CustomRecord | None:
        """Records; an alias to follow; None where nothing is."""
        for network in view.networks:
            records = network.zone.exact.get(name)
            if records is not None:
                return self._custom(records, kind)
        known = False
        for hosts in self._hosts(view, name):
            known = True
            found = self._addresses(hosts, kind)
            if found:
                return found
        if known:
            return []
        for network in view.networks:
            records = network.zone.wildcard(name)
            if records is not None:
                return self._custom(records, kind)
        return None

    def _hosts(self, view: _View, name: bytes) -> Iterator[list[Host]]:
        """Who bears the name, network by network."""
        for place, network in enumerate(view.networks):
            if not network.named:
                continue
            found = self._on(view, place, name)
            if not found and name.endswith(network.suffix):
                found = self._on(view, place, name[: -len(network.suffix)])
            if found:
                yield found

    def _on(self, view: _View, place: int, name: bytes) -> list[Host] | None:
        network = view.networks[place]
        target = view.links.get((place, name))
        if target is not None:
            linked = [host for host in network.members.values() if host.is_called(target)]
            if linked:
                return linked
        return network.hosts.get(name)

    def _addresses(self, hosts: list[Host], kind: int) -> list[bytes]:
        if kind == Type.A:
            found = [record for host in hosts for record in host.a]
        elif kind == Type.AAAA:
            found = [record for host in hosts for record in host.aaaa]
        elif kind == Type.ANY:
            found = [record for host in hosts for record in (*host.a, *host.aaaa)]
        else:
            return []
        if len(found) > 1:
            self._random.shuffle(found)
        return found

    def _custom(self, records: list[CustomRecord], kind: int) -> list[bytes] | CustomRecord:
        if records[0].type == Type.CNAME and kind != Type.ANY:
            return records[0]
        found = [
            render_record(record.type, TTL_S, record.data)
            for record in records
            if kind in (record.type, Type.ANY)
        ]
        if len(found) > 1:
            self._random.shuffle(found)
        return found

    # -- reverse lookups -------------------------------------------------------------------

    def _reverse(self, view: _View, name: bytes) -> Local | None:
        """None for what is no address, or an address that is not of the container's networks."""
        address = parse_reverse(name)
        if address is None:
            return None
        for network in view.networks:
            host = network.by_address.get(address.packed)
            if host is not None and network.named:
                return Local([host.pointer])
        if any(address in subnet for network in view.networks for subnet in network.subnets):
            return Local(rcode=Rcode.NXDOMAIN)
        return None


def parse_reverse(name: bytes) -> IPv4Address | IPv6Address | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for."""
    if name.endswith(_REVERSE_V4):
        parts = name[: -len(_REVERSE_V4)].split(b".")
        text = b".".join(reversed(parts)).decode("ascii", "replace")
        wanted = 4
    elif name.endswith(_REVERSE_V6):
        parts = name[: -len(_REVERSE_V6)].split(b".")
        digits = b"".join(reversed(parts)).decode("ascii", "replace")
        text = ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))
        wanted = 32
    else:
        return None
    if len(parts) != wanted or (wanted == 32 and any(len(part) != 1 for part in parts)):
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _owned(record: bytes, owner: bytes | None) -> bytes:
    """A record of the question's name made one of `owner`."""
    return record if owner is None else owner + record[2:]


def _network(network: NetworkRecord) -> _Network:
    # On networks of other kinds the subnet is the world's, and its own servers know names in it.
    pools = network.pools if network.driver == "bridge" else []
    return _Network(
        zone=parse_zone(network.options),
        suffix=b"." + network.name.lower().encode(),
        internal=network.internal,
        subnets=tuple(ip_network(pool.subnet, strict=False) for pool in pools if pool.subnet),
        named=network.has_names,
    )


def _host(network: NetworkRecord, endpoint: Endpoint) -> Host:
    texts = [text for text in (endpoint.ip_address, endpoint.ipv6_address) if text]
    addresses = [ip_address(text) for text in texts]
    name = endpoint.container_name.lower().encode()
    full = name + b"." + network.name.lower().encode()
    return Host(
        container_id=endpoint.container_id,
        name=name,
        names=frozenset(each.lower().strip(".").encode() for each in endpoint.dns_names) - {b""},
        packed=tuple(address.packed for address in addresses),
        a=tuple(
            render_record(Type.A, HOST_TTL_S, address.packed)
            for address in addresses
            if address.version == 4
        ),
        aaaa=tuple(
            render_record(Type.AAAA, HOST_TTL_S, address.packed)
            for address in addresses
            if address.version == 6
        ),
        pointer=render_record(Type.PTR, HOST_TTL_S, _pointer_target(full)),
    )


def _pointer_target(full: bytes) -> bytes:
    """Network names may hold what no domain name holds."""
    try:
        return encode_name(full)
    except ValueError:
        return encode_name(full.partition(b".")[0][:63] or b"container")
