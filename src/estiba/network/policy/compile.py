"""From policies to nftables: the content of the inet and of the bridge table. Pure.

Five gates, which only ever drop or let go on to whatever else decides:

    bridge  forward      policies         container → neighbour on the same bridge, by links
    inet    forward      policies         into a container from anywhere else, by addresses
    inet    output       policy_output    the host's own programs → container
    inet    prerouting   policy_egress    what leaves a container, before any translation, so that
                                          it is judged by the address that the program asked for
    inet    input        policy_input     what a confined container sends to all

A container that nothing is said of has no rule. One chain a container and gate; one counter a
container and rule. The bridge family is without connection tracking on many kernels, so that
answers are known there by sets that the packets of those who may begin fill in: two for each
container, so that one that fills its own harms nobody else. In TCP an entry stands for all
connections to one port of one neighbour, and whatever does not begin one (SYN without ACK) is an
answer: no number of short connections fills a set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from estiba.network.firewall.elements import link_local
from estiba.network.policy.egress import ANYWHERE, Address, Allowed, Egress
from estiba.network.policy.members import Member, NetworkView, State, applying, fits
from estiba.network.policy.rules import Kind, Rule, mark
from estiba.network.policy.ruleset import Ruleset, SetSpec
from estiba.network.policy.service import nft_matches

ROOT = "policies"
FLOWS = "policy_f"
"""What the names of the sets begin with in which answers are awaited."""

LOG_PREFIX = "estiba:"
_ANSWERS = 1 << 20
_LOG_LIMIT = "policy_log"
_OF_LINKS = (
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report, "
    "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
)
_SOLICITED = "{ nd-neighbor-solicit, nd-neighbor-advert }"
_NEIGHBOURS = f"icmpv6 type {{ {_OF_LINKS} }} return"
_ANSWERS_OF_ICMP = (
    "icmp type { echo-reply, destination-unreachable, time-exceeded, parameter-problem } return",
    "icmpv6 type { echo-reply, destination-unreachable, packet-too-big, time-exceeded, "
    f"parameter-problem, {_OF_LINKS} }} return",
)
"""Where connections are not tracked; elsewhere answers are known, and others are no answers."""

_TO_MANY = "fib daddr type { broadcast, multicast }"
_LATER_FRAGMENTS = (
    "ip frag-off & 0x1fff != 0 return",
    "exthdr frag exists frag frag-off != 0 return",
)
_FLOW_SIZE = 8192
"""Of one container and family: about a megabyte when they are full."""

_TCP_S = "3h"
"""Longer than the two hours after which TCP asks whether the other end is alive."""

_OTHERS_S = "3m"
_CONTAINERS = (Kind.CONTAINER, Kind.LABEL, Kind.NETWORK)


@dataclass(frozen=True, slots=True)
class Point:
    """One place where packets are counted: a container and a rule; the log names it by `tag`."""

    tag: str
    member: Member
    direction: str
    """`ingress` or `egress`."""

    rule: str
    denies: bool

    @property
    def counter(self) -> str:
        return f"policy_x_{self.tag}"

    @property
    def chain(self) -> str:
        return f"policy_d_{self.tag}"


@dataclass(frozen=True, slots=True)
class Count:
    """What one rule has met at one container."""

    point: Point
    packets: int
    size_bytes: int


@dataclass(slots=True)
class Compiled:
    inet: Ruleset = field(default_factory=Ruleset)
    bridge: Ruleset = field(default_factory=Ruleset)
    points: dict[str, Point] = field(default_factory=dict)
    """By tag."""


def compile_state(state: State, group: int) -> Compiled:
    """`group` is the NFLOG group that denied packets go to; 0: they are not logged."""
    made = Compiled()
    writer = _Writer(state, made, group)
    for member in state.members:
        network = state.networks[member.network_id]
        if network.policy.guards:
            writer.guard(network, member)
        if network.egress is not None or member.egress is not None:
            writer.confine(network, member)
    writer.finish()
    return made


def learnt_sets(entry: Allowed) -> tuple[str, str]:
    """The sets with the addresses of a name, of both families; one pair for all containers.

    Changing a table costs more with each set in it.
    """
    tag = mark(entry.host)
    return f"policy_a4_{tag}", f"policy_a6_{tag}"


def learnt_key(member: Member, address: Address) -> str:
    """What such a set holds: by whom an address may be reached."""
    return f'"{member.bridge}" . {member.mac} . {address}'


class _Writer:
    def __init__(self, state: State, made: Compiled, group: int) -> None:
        self._state = state
        self._made = made
        self._group = group
        self._into: dict[str, set[str]] = {"links": set(), "4": set(), "6": set()}
        self._of_host: dict[Address, str] = {}
        """Links by the addresses that the host reaches containers at."""

        self._out: set[str] = set()
        self._confined: set[str] = set()
        self._begins: set[str] = set()

    # -- into containers ---------------------------------------------------------------------

    def guard(self, network: NetworkView, target: Member) -> None:
        lines: dict[str, list[str]] = {"bridge": [], "forward": [], "output": []}
        for rule in applying(network.policy, target):
            point = self._point(target, "ingress", rule.mark, str(rule), denies=not rule.allows)
            for gate, sources in self._sources(rule, network).items():
                lines[gate] += _rules(point, sources, nft_matches(rule.services))
        if network.policy.closed:
            point = self._point(target, "ingress", "default", network.policy.default, denies=True)
            for gate in lines:
                lines[gate].append(f"goto {point.chain}")
        link, made = target.link, self._made
        made.bridge.chain(f"policy_i_{link}", self._answers(link) + lines["bridge"])
        made.inet.chain(f"policy_i_{link}", lines["forward"])
        made.inet.chain(f"policy_h_{link}", lines["output"])
        self._begins.add(f'"{link}" : goto policy_b_{link}')
        self._into["links"].add(f'"{link}" : jump policy_i_{link}')
        for address in target.addresses:
            family = str(address.version)
            self._into[family].add(f'"{target.bridge}" . {address} : jump policy_i_{link}')
            self._of_host[address] = link
        if any(address.version == 6 for address in target.addresses):
            # Of two with the same MAC the first is meant: no link is known here.
            self._of_host.setdefault(link_local(target.mac), link)

    def _answers(self, link: str) -> list[str]:
        """Rules that know answers to what the container began, and the chain that notes that.

        An answer is accepted, not returned: it would be noted as a question otherwise.
        """
        bridge = self._made.bridge
        note, known = [], []
        for version, word in ((4, "ip"), (6, "ip6")):
            name, address = f"{FLOWS}{version}_{link}", f"ipv{version}_addr"
            bridge.sets[name] = SetSpec(
                f"type {address} . {address} . inet_proto . inet_service . inet_service; "
                f"flags dynamic,timeout; size {_FLOW_SIZE}",
                living=True,
            )
            known += [
                f"tcp flags & (syn | ack) != syn {word} saddr . {word} daddr . meta l4proto "
                f". th sport . th sport @{name} accept",
                f"meta l4proto {{ udp, sctp }} {word} saddr . {word} daddr . meta l4proto "
                f". th sport . th dport @{name} accept",
            ]
            ends = f"{word} daddr . {word} saddr . meta l4proto"
            note += [
                f"meta l4proto tcp update @{name} "
                f"{{ {ends} . th dport . th dport timeout {_TCP_S} }}",
                f"meta l4proto {{ udp, sctp }} update @{name} "
                f"{{ {ends} . th dport . th sport timeout {_OTHERS_S} }}",
            ]
        bridge.chain(f"policy_b_{link}", note)
        return known

    def _sources(self, rule: Rule, network: NetworkView) -> dict[str, list[str]]:
        """Expressions that a packet of one of the rule's sources fulfils, by gate."""
        kinds = {peer.kind for peer in rule.sources}
        if Kind.ANY in kinds:
            return {"bridge": [""], "forward": [""], "output": [""]}
        subnets = [
            f"{'ip' if peer.subnet.version == 4 else 'ip6'} saddr {peer.subnet} "
            for peer in rule.sources
            if peer.subnet is not None
        ]
        bridge, forward, output = [*subnets], [*subnets], [*subnets]
        if kinds & set(_CONTAINERS):
            names = self._source_sets(rule, network)
            bridge.append(f"iifname @{names[0]} ")
            forward += [
                f"iifname . ip saddr @{names[1]} ",
                f"iifname . ip6 saddr @{names[2]} ",
            ]
        if Kind.OUTSIDE in kinds:
            forward.append("iifname != @bridges ")
        if Kind.HOST in kinds:
            output = [""]
        return {"bridge": bridge, "forward": forward, "output": output}

    def _source_sets(self, rule: Rule, network: NetworkView) -> tuple[str, str, str]:
        tag = f"{network.id[:12]}_{rule.mark}"
        names = (f"policy_s_{tag}", f"policy_s4_{tag}", f"policy_s6_{tag}")
        if names[0] in self._made.bridge.sets:
            return names
        found = [
            member
            for member in self._state.members
            if any(fits(peer, member, network.id) for peer in rule.sources)
        ]
        links = frozenset(f'"{m.link}"' for m in found if m.network_id == network.id)
        self._made.bridge.sets[names[0]] = SetSpec("type ifname", links)
        for version, name in ((4, names[1]), (6, names[2])):
            pairs = [
                f'"{member.bridge}" . {address}'
                for member in found
                for address in member.addresses
                if address.version == version
            ]
            body = f"type ifname . ipv{version}_addr"
            self._made.inet.sets[name] = SetSpec(body, frozenset(pairs))
        return names

    # -- out of containers -------------------------------------------------------------------

    def confine(self, network: NetworkView, member: Member) -> None:
        link, inet = member.link, self._made.inet
        rules = []
        for subnet in network.subnets:
            word = "ip" if subnet.version == 4 else "ip6"
            own = ", ".join(str(a) for a in network.gateways if a.version == subnet.version)
            if own and word == "ip6":
                rules.append(f"ip6 daddr {{ {own} }} icmpv6 type {_SOLICITED} return")
            but = f"{word} daddr != {{ {own} }} " if own else ""
            rules.append(f"{but}{word} daddr {subnet} return")
        rules.append(f"{_TO_MANY} return")
        for scope, egress in (("n", network.egress), ("c", member.egress)):
            if egress is not None:
                rules.append(f"jump policy_{scope}_{link}")
                inet.chain(f"policy_{scope}_{link}", self._list(member, scope, egress))
        inet.chain(f"policy_e_{link}", rules)
        self._confined.add(f'"{member.bridge}" . {member.mac}')
        self._out.add(f'"{member.bridge}" . {member.mac} : jump policy_e_{link}')

    def _list(self, member: Member, scope: str, egress: Egress) -> list[str]:
        lines = []
        for entry in egress.allowed:
            point = self._point(
                member, "egress", scope + mark(str(entry)), str(entry), denies=False
            )
            where = self._destinations(entry)
            lines += _rules(point, where, nft_matches((entry.service,)))
        whose = f"network {member.network_name}" if scope == "n" else f"container {member.name}"
        text = f"egress {'none' if not egress.allowed else 'not on the list'} ({whose})"
        point = self._point(member, "egress", f"{scope}default", text, denies=True)
        return [*lines, f"goto {point.chain}"]

    def _destinations(self, entry: Allowed) -> list[str]:
        if entry.host == ANYWHERE:
            return [""]
        if entry.network is not None:
            word = "ip" if entry.network.version == 4 else "ip6"
            return [f"{word} daddr {entry.network} "]
        names = learnt_sets(entry)
        for version, name in zip((4, 6), names, strict=True):
            body = f"type ifname . ether_addr . ipv{version}_addr; flags timeout; size {_ANSWERS}"
            self._made.inet.sets[name] = SetSpec(body, living=True)
        return [
            f"iifname . ether saddr . ip daddr @{names[0]} ",
            f"iifname . ether saddr . ip6 daddr @{names[1]} ",
        ]

    # -- both --------------------------------------------------------------------------------

    def _point(
        self, member: Member, direction: str, suffix: str, rule: str, *, denies: bool
    ) -> Point:
        point = Point(f"{member.link}_{suffix}", member, direction, rule, denies)
        self._made.points[point.tag] = point
        rulesets = (self._made.inet, self._made.bridge)
        for ruleset in rulesets if direction == "ingress" else rulesets[:1]:
            ruleset.counters.add(point.counter)
            if denies:
                quiet = ruleset is self._made.bridge
                ruleset.chain(point.chain, self._denial(point, quiet=quiet))
        return point

    def _denial(self, point: Point, *, quiet: bool) -> list[str]:
        """Counted always, told a few times a second; the bridge family cannot refuse."""
        head = ["meta pkttype { broadcast, multicast } drop"] if quiet else []
        log = (
            "limit rate 5/second burst 10 packets "
            f'limit name "{_LOG_LIMIT}" '
            f'log prefix "{LOG_PREFIX}{point.tag} " group {self._group} snaplen 128'
        )
        return [
            *head,
            f"counter name {point.counter} {log if self._group else ''}".rstrip(),
            "drop" if quiet else "reject with icmpx admin-prohibited",
        ]

    def finish(self) -> None:
        inet, bridge = self._made.inet, self._made.bridge
        # Neighbour discovery passes here where br_netfilter shows bridged packets.
        entry = [_NEIGHBOURS] if self._begins else []
        if self._begins:
            self._finish_bridge()
            for family, word in (("4", "ip"), ("6", "ip6")):
                body = f"type ifname . ipv{family}_addr : verdict"
                inet.sets[f"policy_in{family}"] = _map(body, self._into[family])
                body = f"type ipv{family}_addr : verdict"
                found = [a for a in self._of_host if str(a.version) == family]
                elements = [f"{a} : jump policy_h_{self._of_host[a]}" for a in found]
                inet.sets[f"policy_host{family}"] = _map(body, elements)
                entry.append(f"oifname . {word} daddr vmap @policy_in{family}")
            inet.chain(
                "policy_output",
                [
                    "ct state established,related return",
                    _NEIGHBOURS,
                    "ip daddr vmap @policy_host4",
                    "ip6 daddr vmap @policy_host6",
                ],
                "type filter hook output priority filter; policy accept",
            )
        inet.chain(ROOT, entry)
        if not self._begins:
            bridge.chain(ROOT, [])
        if self._out:
            inet.sets["policy_out"] = _map("type ifname . ether_addr : verdict", self._out)
            inet.chain(
                "policy_egress",
                [
                    "ct state established,related return",
                    # Elsewhere a packet of these kinds could carry anything out.
                    f"ip6 daddr {{ fe80::/10, ff00::/8 }} {_NEIGHBOURS}",
                    "iifname . ether saddr vmap @policy_out",
                ],
                "type filter hook prerouting priority mangle; policy accept",
            )
            inet.sets["policy_confined"] = SetSpec(
                "type ifname . ether_addr", frozenset(self._confined)
            )
            inet.chain(
                "policy_input",
                [_NEIGHBOURS, f"{_TO_MANY} iifname . ether saddr @policy_confined drop"],
                "type filter hook input priority filter; policy accept",
            )
        for ruleset in (inet, bridge):
            if any(name.startswith("policy_d_") for name in ruleset.chains):
                ruleset.limits[_LOG_LIMIT] = "rate 50/second burst 100 packets"

    def _finish_bridge(self) -> None:
        bridge = self._made.bridge
        bridge.sets["policy_in"] = _map("type ifname : verdict", self._into["links"])
        bridge.sets["policy_begins"] = _map("type ifname : verdict", self._begins)
        bridge.chain(
            ROOT,
            [
                "ether type arp return",
                *_LATER_FRAGMENTS,
                *_ANSWERS_OF_ICMP,
                "oifname vmap @policy_in",
                "iifname vmap @policy_begins",
            ],
        )


def _map(body: str, elements: Iterable[str]) -> SetSpec:
    return SetSpec(body, frozenset(elements), keyword="map")


def _rules(point: Point, places: Iterable[str], services: Iterable[str]) -> list[str]:
    end = f"goto {point.chain}" if point.denies else f"counter name {point.counter} return"
    return [f"{place}{service}{end}" for place in places for service in services]
