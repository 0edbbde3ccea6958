"""Whether a packet passes, by which rule, in words: each station on its way. Pure.

It follows the packet that begins a connection, in the order of the kernel: what leaves a
container (`policy_egress`), translation of published ports, the host's own firewall, policies,
isolation of networks, and the source's address on the way out. The first refusal ends the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from estiba.network.policy import decide
from estiba.network.policy.decide import Destination, Source
from estiba.network.policy.egress import Address
from estiba.network.policy.members import Member
from estiba.network.policy.service import Service
from estiba.network.policy.world import Party, Published, World


@dataclass(frozen=True, slots=True)
class Step:
    """One station. `passes` is None where nothing is decided."""

    at: str
    text: str
    passes: bool | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    source: str
    target: str
    service: Service
    steps: tuple[Step, ...] = field(default_factory=tuple)

    @property
    def passes(self) -> bool:
        return all(step.passes is not False for step in self.steps)

    @property
    def rule(self) -> str:
        """The station that refused, or the last that let it pass."""
        refused = [step for step in self.steps if step.passes is False]
        passed = [step for step in self.steps if step.passes]
        last = refused or passed
        return f"{last[-1].at}: {last[-1].text}" if last else "nothing stands in the way"


def explain(world: World, source: Party, target: Party, service: Service) -> Explanation:
    steps = []
    for step in _Way(world, service).steps(source, target):
        steps.append(step)
        if step.passes is False:
            break
    return Explanation(source.text, target.text, service, tuple(steps))


class _Way:
    def __init__(self, world: World, service: Service) -> None:
        self._world = world
        self._protocol = service.protocol
        self._port = service.low

    def steps(self, source: Party, target: Party) -> Iterator[Step]:
        if source.container_id:
            yield from self._from_container(source, target)
        elif source.is_host:
            yield from self._from_host(source, target)
        else:
            yield from self._from_outside(source, target)

    # -- from a container --------------------------------------------------------------------

    def _from_container(self, source: Party, target: Party) -> Iterator[Step]:
        mine = self._world.members(source.container_id)
        if source.network_id:
            mine = [m for m in mine if m.network_id == source.network_id]
        if target.container_id == source.container_id:
            yield Step("route", "a container reaches itself by its own loopback", True)
            return
        if target.container_id:
            yield from self._to_container(source, mine, self._theirs(target), target)
            return
        address = target.address
        if target.is_host and address is None:
            address = next(iter(mine[0].addresses and self._gateways(mine[0])), None)
        if address is not None and address.is_loopback:
            yield Step("route", f"{address} is the container's own loopback", True)
            return
        member = self._leaves_by(source, mine, address)
        if member is None:
            yield self._without_member(source, address)
            return
        where = Destination(address, target.name)
        yield Step("route", f"leaves by network {member.network_name}")
        yield from self._egress(member, where)
        if target.is_host and address is not None:
            yield from self._at_host(Source(member, address=_same(member, address)), address)
            return
        yield from self._out(member)

    def _to_container(
        self, source: Party, mine: list[Member], theirs: list[Member], target: Party
    ) -> Iterator[Step]:
        for here in mine:
            for there in theirs:
                if here.network_id == there.network_id:
                    yield from self._neighbours(here, there, target)
                    return
        there = theirs[0]
        address = target.address or (there.addresses[0] if there.addresses else None)
        member = self._leaves_by(source, mine, address)
        if member is None or address is None:
            yield self._without_member(source, address)
            return
        yield Step("route", f"another network: from {member.network_name} to {there.network_name}")
        yield from self._egress(member, Destination(address))
        yield from self._forwarded()
        yield from self._ingress(there, Source(member, address=_same(member, address)))
        yield from self._across(member, there, is_published=False, address=address)

    def _neighbours(self, here: Member, there: Member, target: Party) -> Iterator[Step]:
        yield Step("route", f"both are on network {here.network_name}")
        address = target.address or next(iter(there.addresses), None)
        if not self._world.record(here).icc:
            name = here.network_name
            if self._is_linked(here, address):
                yield Step("icc", f"a link opens this port on {name} (icc=false)", True)
            else:
                yield Step("icc", f"containers of {name} may not talk (icc=false)", False)
        source = Source(here, address=_same(here, address))
        yield from self._ingress(there, source)

    def _is_linked(self, here: Member, address: Address | None) -> bool:
        return any(
            rule.source in here.addresses
            and (rule.target, rule.protocol, rule.port) == (address, self._protocol, self._port)
            for rule in self._world.links
        )

    def _theirs(self, target: Party) -> list[Member]:
        found = self._world.members(target.container_id)
        if target.network_id:
            found = [m for m in found if m.network_id == target.network_id]
        return found

    def _leaves_by(
        self, source: Party, mine: list[Member], address: Address | None
    ) -> Member | None:
        """By the network that has the address, else by the default route."""
        for member in mine:
            subnets = self._world.view(member).subnets
            if address is not None and any(
                net.version == address.version and address in net for net in subnets
            ):
                return member
        for version in (4, 6) if address is None else (address.version,):
            gateway = self._world.gateway_of(source.container_id, version)
            if gateway in mine:
                return gateway
        return None

    def _without_member(self, source: Party, address: Address | None) -> Step:
        """By no network that passes the engine's firewall."""
        for version in (4, 6) if address is None else (address.version,):
            way = None if source.network_id else self._world.way_out(source.container_id, version)
            if way is not None:
                text = "which does not pass the engine's firewall"
                return Step("route", f"leaves by network {way.network_name}, {text}", True)
        return Step("route", "the container has no route there: no default gateway", False)

    def _gateways(self, member: Member) -> tuple[Address, ...]:
        return self._world.view(member).gateways

    def _egress(self, member: Member, where: Destination) -> Iterator[Step]:
        world = self._world
        verdicts = decide.egress(
            world.view(member), member, where, self._protocol, self._port, world.known
        )
        for verdict in verdicts:
            yield Step("egress", verdict.rule, verdict.passes)

    def _forwarded(self) -> Iterator[Step]:
        count = self._world.user_rules
        if count:
            text = f"{count} rules of the administrator's decide first, and are not followed here"
            yield Step("user-forward", text)

    def _out(self, member: Member) -> Iterator[Step]:
        yield from self._forwarded()
        record = self._world.record(member)
        if record.internal:
            yield Step("internal", f"network {record.name} is internal: it has no way out", False)
        if record.masquerade:
            yield Step("masquerade", "leaves with the host's address", True)
        else:
            yield Step("masquerade", "leaves with the container's own address", True)

    # -- from the host -----------------------------------------------------------------------

    def _from_host(self, source: Party, target: Party) -> Iterator[Step]:
        if target.container_id:
            there = self._theirs(target)[0]
            yield Step("route", f"the host is on network {there.network_name} itself")
            gateway = target.address or next(iter(there.addresses), None)
            yield from self._ingress(there, self._host(there, gateway))
            return
        if target.is_host:
            address = target.address or next(iter(self._world.host_addresses), None)
            port = self._find(address)
            if port is None:
                yield Step("host", "a program of the host itself answers, if there is one", True)
                return
            yield Step("published", f"{port}")
            comes = self._host(port.target, port.address, address)
            yield from self._ingress(port.target, comes, port.port)
            yield from self._back(port.target, address)
            return
        yield Step("host", "the host's own traffic: the engine has no say in it", True)

    def _host(self, there: Member, target: Address | None, asked: Address | None = None) -> Source:
        """The source is the bridge's address, or the one that was asked for on the host."""
        if asked is not None:
            return Source(is_host=True, address=asked)
        found = [a for a in self._gateways(there) if target and a.version == target.version]
        return Source(is_host=True, address=next(iter(found), None))

    # -- from outside ------------------------------------------------------------------------

    def _from_outside(self, source: Party, target: Party) -> Iterator[Step]:
        comes = Source(address=source.address)
        if target.container_id:
            there = self._theirs(target)[0]
            yield Step("route", f"to the container's address on network {there.network_name}")
            yield from self._forwarded()
            yield from self._ingress(there, comes)
            address = target.address or next(iter(there.addresses), None)
            yield from self._into(there, is_published=False, address=address)
            return
        if not target.is_host:
            yield Step("host", "not for this host: the engine has no say in it", True)
            return
        address = target.address
        if address is not None and address.is_loopback:
            yield Step("guard", "nobody outside reaches the host's loopback", False)
        yield from self._at_host(comes, address)

    def _at_host(self, source: Source, address: Address | None) -> Iterator[Step]:
        """A packet for an address of the host: a published port, or a program of its own."""
        world = self._world
        port = self._find(address)
        if port is None:
            yield from self._host_program(source, address)
            return
        yield Step("published", f"{port}")
        if source.is_outside:
            admitted, rule = world.host_verdict(self._protocol, self._port, address, source, True)
            yield Step("host firewall", rule, admitted)
        yield from self._forwarded()
        yield from self._ingress(port.target, source, port.port)
        if source.member is not None:
            yield from self._across(source.member, port.target, is_published=True, address=address)
        else:
            yield from self._into(port.target, is_published=True, address=address)

    def _host_program(self, source: Source, address: Address | None) -> Iterator[Step]:
        if source.member is not None:
            record = self._world.record(source.member)
            if record.internal and address not in self._gateways(source.member):
                yield Step("internal", f"network {record.name} is internal", False)
        yield Step("host", "not published: for a program of the host itself, if there is one")
        verdict = self._world.host_verdict(self._protocol, self._port, address, source, False)
        yield Step("host firewall", verdict[1], verdict[0])

    def _find(self, address: Address | None) -> Published | None:
        for port in self._world.published():
            if address is None:
                fits = port.protocol == self._protocol and port.host_port == self._port
                if fits and not port.host_ip.is_loopback:
                    return port
            elif port.answers(address, self._protocol, self._port):
                return port
        return None

    # -- into containers ---------------------------------------------------------------------

    def _ingress(self, there: Member, source: Source, port: int = 0) -> Iterator[Step]:
        """`port` is the container's, where the packet was for another before."""
        view = self._world.view(there)
        verdict = decide.ingress(view, there, source, self._protocol, port or self._port)
        if verdict is not None:
            yield Step("policy", f"{verdict.rule} (network {view.name})", verdict.passes)
        else:
            yield Step("policy", f"network {view.name} has none")

    def _across(
        self, here: Member, there: Member, *, is_published: bool, address: Address | None = None
    ) -> Iterator[Step]:
        """From a bridge to a bridge, perhaps the same one, by routing."""
        record = self._world.record(here)
        if here.network_id == there.network_id and record.icc:
            yield Step("icc", f"containers of {record.name} may talk to each other", True)
            return
        if record.internal:
            yield Step("internal", f"network {record.name} is internal: it has no way out", False)
        yield from self._into(there, is_published=is_published, address=address)

    def _into(
        self, there: Member, *, is_published: bool, address: Address | None = None
    ) -> Iterator[Step]:
        record = self._world.record(there)
        if record.internal:
            yield Step("internal", f"network {record.name} is internal: nothing comes in", False)
        if is_published:
            yield Step("isolation", "a published port is open", True)
            yield from self._back(there, address)
            return
        mode = record.gateway_mode_ipv4
        if address is not None and address.version == 6:
            mode = record.gateway_mode_ipv6
        if mode == "routed" and self._is_published_of(there):
            yield Step("isolation", "a published port is open at the container itself", True)
            yield from self._back(there, address)
        elif mode == "nat-unprotected":
            yield Step("isolation", f"network {record.name} is unprotected", True)
            yield from self._back(there, address)
        else:
            text = f"network {record.name} is reached by published ports alone"
            yield Step("isolation", text, False)

    def _back(self, there: Member, address: Address | None) -> Iterator[Step]:
        """Answers to who is not on the network leave by the container's default route."""
        if address is not None and address.is_loopback:
            return
        version = address.version if address is not None else 4
        if self._world.gateway_of(there.container_id, version) != there:
            text = f"answers do not leave {there.name} by {there.network_name}: no default route"
            yield Step("way back", text, False)

    def _is_published_of(self, there: Member) -> bool:
        return any(
            port.target.key == there.key
            and (port.protocol, port.port) == (self._protocol, self._port)
            for port in self._world.published()
        )


def _same(member: Member, other: Address | None) -> Address | None:
    """The member's address of the family of another."""
    version = other.version if other is not None else 4
    return next((a for a in member.addresses if a.version == version), None)
