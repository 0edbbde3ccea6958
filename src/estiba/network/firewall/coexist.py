"""Living beside a Docker Engine and other owners of the ruleset.

A packet passes when every base chain lets it pass. dockerd gives `filter FORWARD` the policy
drop, in both families, so that the containers of others lose their network; DOCKER-USER is the
chain that it leaves to others, evaluated first and never flushed by it. The engine's bridges are
accepted there, except towards bridges of Docker: into its own the engine's table decides, into
Docker's Docker does.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from estiba.kernel import nft_batch
from estiba.kernel.nfrules import NewRule, Place, RuleSocket
from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound

_log = logging.getLogger(__name__)

_PLACES = tuple(Place(family, "filter", "DOCKER-USER") for family in ("ip", "ip6"))
_PREFIX = re.compile(r"estiba_\S+ \S+$")
_AT_ONCE = 20
"""Bridges for whose rules' echo the socket has room."""

_BRIDGES_OF_DOCKER = ("docker*", "br-*")


@dataclass(slots=True)
class _Written:
    """The handles of our rules in a chain, by bridge: of what goes into it and what comes out."""

    into: dict[str, list[int]] = field(default_factory=dict)
    out: dict[str, list[int]] = field(default_factory=dict)

    def put(self, bridge: str, handle: int, *, is_into: bool) -> None:
        (self.into if is_into else self.out).setdefault(bridge, []).append(handle)

    def pop(self, bridge: str) -> list[int]:
        return self.into.pop(bridge, []) + self.out.pop(bridge, [])

    @property
    def bridges(self) -> set[str]:
        return {*self.into, *self.out}

    def is_whole(self, bridge: str) -> bool:
        count = len(self.into.get(bridge, ())), len(self.out.get(bridge, ()))
        return count == (1, len(_BRIDGES_OF_DOCKER) + 1)


class Admission:
    """The rules that one engine has in DOCKER-USER; their comments name engine and bridge."""

    def __init__(self, nft: Nft, rules: RuleSocket, owner: str) -> None:
        self._nft = nft
        self._rules = rules
        self._owner = owner
        self._warned = False
        self._written: dict[Place, _Written] = {}
        """As of the last time that a chain was listed or changed; none of one that is not there."""

    def ensure(self, bridges: Iterable[str]) -> None:
        """Writes the rules for exactly these bridges, in a form that iptables can show.

        Rules that an engine which is no more left for bridges that are no more go too.
        """
        wanted = set(bridges)
        for place in _PLACES:
            for handle in self._settle(place, wanted):
                # Another engine that starts at this moment sweeps the same.
                with contextlib.suppress(NotFound):
                    self._rules.exchange(place, [handle], [])

    def add(self, bridge: str) -> None:
        """Writes the rules for one more bridge, without looking: `ensure` is called whenever
        another program has changed the ruleset.
        """
        for place, written in list(self._written.items()):
            if bridge not in written.bridges:
                self._exchange_or_settle(place, [], [bridge])

    def remove(self, bridge: str) -> None:
        """The counterpart of `add`."""
        for place, written in list(self._written.items()):
            if bridge in written.bridges:
                self._exchange_or_settle(place, [bridge], [])

    def warn(self, bridges: Iterable[str]) -> None:
        """Says once which firewall stops what it forwards, unless it names a bridge of ours."""
        if self._warned:
            return
        chain = self._find_drop(list(bridges))
        if chain:
            self._warned = True
            _log.warning(
                "the host's firewall drops what it forwards (%s): containers do not reach the "
                "outside until it accepts the engine's bridges, for example by: "
                "iptables -I FORWARD -i <bridge> -j ACCEPT; "
                "iptables -I FORWARD -o <bridge> -j ACCEPT; or see docs/firewall.md",
                chain,
            )

    def _find_drop(self, bridges: list[str]) -> str:
        """A base chain with the policy drop that leads nowhere for our bridges."""
        for entry in self._nft.list_json("list chains"):
            chain = entry.get("chain", {})
            if chain.get("hook") != "forward" or chain.get("policy") != "drop":
                continue
            where = f"{chain['family']} {chain['table']}"
            if chain["table"] == "filter" and self._has_user_chain(chain["family"]):
                continue
            with contextlib.suppress(NotFound):
                text = self._nft.list_text(f"list table {where}")
                if not any(bridge in text for bridge in bridges):
                    return f"{where} {chain['name']}, policy drop"
        return ""

    def _has_user_chain(self, family: str) -> bool:
        try:
            self._nft.list_json(f"list chain {family} filter DOCKER-USER")
        except NotFound:
            return False
        return True

    def _exchange_or_settle(self, place: Place, gone: list[str], new: list[str]) -> None:
        wanted = self._written[place].bridges.difference(gone).union(new)
        try:
            self._exchange(place, gone, new)
        except NotFound:
            self._settle(place, wanted)

    def _settle(self, place: Place, wanted: set[str]) -> list[int]:
        """Writes our own rules; returns those of others that nobody needs."""
        self._written.pop(place, None)
        try:
            present = self._nft.list_json(f"list chain {place}")
        except NotFound:
            return []
        rules = [entry["rule"] for entry in present if _PREFIX.match(_comment(entry))]
        ours = [rule for rule in rules if rule["comment"].split()[0] == self._owner]
        written = _Written()
        for rule in ours:
            written.put(_bridge(rule), rule["handle"], is_into=_is_into(rule))
        whole = {bridge for bridge in wanted if written.is_whole(bridge)}
        self._written[place] = written
        # A chain that went at this moment comes back with a notice.
        with contextlib.suppress(NotFound):
            self._exchange(place, sorted(written.bridges - whole), [])
            new = sorted(wanted - whole)
            for start in range(0, len(new), _AT_ONCE):
                self._exchange(place, [], new[start : start + _AT_ONCE])
        left = [rule for rule in rules if rule not in ours and not _exists(_bridge(rule))]
        return [rule["handle"] for rule in left]

    def _exchange(self, place: Place, gone: Sequence[str], new: Sequence[str]) -> None:
        """Rules of what goes into our bridges stand before all those of what comes out of them:
        Docker's own bridges may be called as ours are.

        Raises NotFound when the chain is not as it was left; then nothing is known of it.
        """
        written = self._written.pop(place)
        old = [handle for bridge in gone for handle in written.pop(bridge)]
        first = next((handles[0] for handles in written.out.values()), 0)
        out = [(bridge, False, rule) for bridge in new for rule in self._out_of(bridge, first)]
        into = [(bridge, True, self._into(bridge)) for bridge in new]
        # Each of those that stand before all comes before the one that came before.
        coming = [*(out if first else reversed(out)), *reversed(into)]
        handles = self._rules.exchange(place, old, [rule for _, _, rule in coming])
        for (bridge, is_into, _), handle in zip(coming, handles, strict=True):
            written.put(bridge, handle, is_into=is_into)
        self._written[place] = written

    def _into(self, bridge: str) -> NewRule:
        return self._rule(bridge, nft_batch.leaves_by(bridge), nft_batch.accept())

    def _out_of(self, bridge: str, before: int) -> list[NewRule]:
        here = nft_batch.comes_by(bridge)
        towards = [here + nft_batch.leaves_by(other) for other in _BRIDGES_OF_DOCKER]
        rules = [self._rule(bridge, each, nft_batch.leave_chain(), before) for each in towards]
        return [*rules, self._rule(bridge, here, nft_batch.accept(), before)]

    def _rule(self, bridge: str, match: bytes, verdict: bytes, before: int = 0) -> NewRule:
        comment = f"{self._owner} {bridge}"
        return NewRule(match + nft_batch.counter() + verdict, comment, before)


def _comment(entry: dict[str, Any]) -> str:
    return str(entry.get("rule", {}).get("comment", ""))


def _bridge(rule: dict[str, Any]) -> str:
    return str(rule["comment"].split()[1])


def _is_into(rule: dict[str, Any]) -> bool:
    """Whether it is one of those that look at the way out of the host first."""
    match rule.get("expr"):
        case [{"match": {"left": {"meta": {"key": "oifname"}}}}, *_]:
            return True
    return False


def _exists(link: str) -> bool:
    try:
        return bool(socket.if_nametoindex(link))
    except OSError:
        return False
