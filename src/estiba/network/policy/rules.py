"""Who may talk to the containers of a network: the language of a policy. Pure.

    default closed
    allow from=web,label:tier=api to=db port=5432/tcp,6432-6440
    deny  from=outside to=db
    egress allow=deb.debian.org:443

The first rule that fits decides, else the default. A rule stands for those who begin; answers
pass. A peer is `any`, `host`, `outside`, `network` (all of this network), `network:NAME`,
`label:KEY[=VALUE]`, an address or a subnet (of those who begin), or a container: its name,
an alias, its id, or any of them after `container:`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

from estiba.model.errors import InvalidArgument
from estiba.network.policy.egress import Egress, Network, parse_egress
from estiba.network.policy.service import EVERYTHING, Service, parse_service

MAX_RULES = 200
MAX_TEXT = 65536
_MAX_PEERS = 64
_MAX_SERVICES = 64


class Kind(StrEnum):
    ANY = "any"
    HOST = "host"
    OUTSIDE = "outside"
    NETWORK = "network"
    LABEL = "label"
    CONTAINER = "container"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Peer:
    """One side of a rule. `value` is a name, `KEY[=VALUE]` or a subnet, as `kind` says."""

    kind: Kind
    value: str = ""
    subnet: Network | None = None

    def __str__(self) -> str:
        if self.kind is Kind.ADDRESS:
            return self.value
        if self.kind is Kind.CONTAINER and not _is_reserved(self.value):
            return self.value
        return f"{self.kind}:{self.value}" if self.value else str(self.kind)


@dataclass(frozen=True, slots=True)
class Rule:
    allows: bool
    sources: tuple[Peer, ...]
    targets: tuple[Peer, ...]
    services: tuple[Service, ...] = (EVERYTHING,)

    def __str__(self) -> str:
        words = ["allow" if self.allows else "deny", f"from={_join(self.sources)}"]
        words.append(f"to={_join(self.targets)}")
        if self.services != (EVERYTHING,):
            words.append(f"port={_join(self.services)}")
        return shlex.join(words)

    @property
    def mark(self) -> str:
        """Eight digits that stand for the rule in names of the ruleset."""
        return mark(str(self))


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """`egress` is None where the network's own option counts."""

    closed: bool = False
    rules: tuple[Rule, ...] = ()
    egress: str | None = None

    @property
    def guards(self) -> bool:
        return self.closed or bool(self.rules)

    @property
    def default(self) -> str:
        return "default closed" if self.closed else "default open"

    def lines(self) -> list[str]:
        head = [self.default, *map(str, self.rules)]
        return head if self.egress is None else [*head, f"egress {self.egress}"]


OPEN = NetworkPolicy()


def mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def parse_policy(text: str) -> NetworkPolicy:
    """Raises InvalidArgument naming the line."""
    if len(text) > MAX_TEXT:
        raise InvalidArgument(f"the policy is longer than {MAX_TEXT} characters")
    default, egress, rules = "", None, []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
            if not words:
                continue
            verb, rest = words[0], words[1:]
            if verb == "default" and not default and rest in (["open"], ["closed"]):
                default = rest[0]
            elif verb == "egress" and len(rest) == 1:
                egress = f"{egress},{rest[0]}" if egress else rest[0]
            elif verb in ("allow", "deny"):
                rules.append(_parse_rule(verb, rest))
            else:
                raise InvalidArgument(
                    "a line is `default open|closed` (once), `allow|deny from=… to=… [port=…]` "
                    "or `egress …`"
                )
        except (InvalidArgument, ValueError) as error:
            raise InvalidArgument(f"policy, line {number} ({line[:100]!r}): {error}") from error
    if len(rules) > MAX_RULES:
        raise InvalidArgument(f"the policy has {len(rules)} rules; at most {MAX_RULES} are taken")
    checked: Egress | None = parse_egress(egress or "")
    kept = None if egress is None else str(checked or "open")
    return NetworkPolicy(default == "closed", tuple(rules), kept)


def _parse_rule(verb: str, words: list[str]) -> Rule:
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("from", "to", "port") or key in given or not value:
            raise InvalidArgument(f"{word[:64]!r}: expected from=, to= and port=, each once")
        given[key] = value
    targets = _peers(given.get("to", Kind.NETWORK.value))
    for peer in targets:
        if peer.kind in (Kind.ADDRESS, Kind.HOST, Kind.OUTSIDE):
            raise InvalidArgument(
                f"to={peer}: a rule leads to containers of the network; what they reach outside "
                "is said by `egress`"
            )
    services = [parse_service(part) for part in _parts(given.get("port", ""), _MAX_SERVICES)]
    return Rule(
        verb == "allow",
        _peers(given.get("from", Kind.ANY.value)),
        targets,
        tuple(dict.fromkeys(services)) or (EVERYTHING,),
    )


def _peers(text: str) -> tuple[Peer, ...]:
    return tuple(dict.fromkeys(_parse_peer(part) for part in _parts(text, _MAX_PEERS)))


def _parts(text: str, limit: int) -> list[str]:
    parts = [part for part in text.split(",") if part]
    if len(parts) > limit:
        raise InvalidArgument(f"more than {limit} values in one list")
    return parts


def _parse_peer(text: str) -> Peer:
    if text in (Kind.ANY, Kind.HOST, Kind.OUTSIDE, Kind.NETWORK):
        return Peer(Kind(text))
    if text == "*":
        return Peer(Kind.ANY)
    kind, colon, value = text.partition(":")
    if colon and value and kind in (Kind.LABEL, Kind.CONTAINER, Kind.NETWORK):
        return Peer(Kind(kind), value)
    try:
        subnet = ip_network(text)
    except ValueError:
        pass
    else:
        return Peer(Kind.ADDRESS, text, subnet)
    if colon or "/" in text or len(text) > 255:
        raise InvalidArgument(
            f"{text[:64]!r} is no peer: any, host, outside, network[:NAME], label:KEY[=VALUE], "
            "a container or an address"
        )
    return Peer(Kind.CONTAINER, text)


def _is_reserved(name: str) -> bool:
    """A container of that name must be written with its kind."""
    try:
        return _parse_peer(name).kind is not Kind.CONTAINER
    except InvalidArgument:
        return True


def _join(parts: Iterable[object]) -> str:
    return ",".join(map(str, parts))
