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
from collections.abc import Iterable
from typing import Any

from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound

_log = logging.getLogger(__name__)

_FAMILIES = ("ip", "ip6")
_PREFIX = re.compile(r"estiba_\S+ \S+$")
_BRIDGES_OF_DOCKER = ("docker*", "br-*")


class Admission:
    """The rules that one engine has in DOCKER-USER; their comments name engine and bridge."""

    def __init__(self, nft: Nft, owner: str) -> None:
        self._nft = nft
        self._owner = owner
        self._warned = False
        self._seen: dict[str, tuple[frozenset[str], int | None] | None] = {}
        """By chain: our bridges in it and the first rule of what comes out of one, or None for
        a chain that is not there; as of the last time that it was listed or changed."""

    def ensure(self, bridges: Iterable[str]) -> None:
        """Writes the rules for exactly these bridges, in a form that iptables can show.

        Rules that an engine which is no more left for bridges that are no more go too.
        """
        wanted = sorted(bridges)
        for family in _FAMILIES:
            chain = f"{family} filter DOCKER-USER"
            for rule in self._settle(chain, wanted):
                # Another engine that starts at this moment sweeps the same.
                with contextlib.suppress(NotFound):
                    self._nft.run(f"delete rule {chain} handle {rule['handle']}")

    def add(self, bridge: str) -> None:
        """Writes the rules for one more bridge, without looking: `ensure` is called whenever
        another program has changed the ruleset.
        """
        for family in _FAMILIES:
            chain = f"{family} filter DOCKER-USER"
            seen = self._seen.get(chain)
            if seen is None:
                continue
            bridges, first = seen
            if bridge in bridges:
                continue
            if first is None:
                self._settle(chain, sorted(bridges | {bridge}))
                continue
            with contextlib.suppress(NotFound):
                self._nft.run("\n".join(self._insert(chain, [bridge], first)))
            self._seen[chain] = (bridges | {bridge}, first)

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

    def _settle(self, chain: str, wanted: list[str]) -> list[dict[str, Any]]:
        """Writes our own rules in one transaction; returns those that nobody needs."""
        try:
            present = self._nft.list_json(f"list chain {chain}")
        except NotFound:
            self._seen[chain] = None
            return []
        rules = [entry["rule"] for entry in present if _PREFIX.match(_comment(entry))]
        ours = [rule for rule in rules if rule["comment"].split()[0] == self._owner]
        left = [rule for rule in rules if rule not in ours and not _exists(_bridge(rule))]
        present_bridges = {_bridge(rule) for rule in ours}
        gone = [rule for rule in ours if _bridge(rule) not in wanted]
        new = [bridge for bridge in wanted if bridge not in present_bridges]
        kept = [rule for rule in ours if rule not in gone]
        first = next((rule["handle"] for rule in kept if not _is_into(rule)), None)
        self._seen[chain] = (frozenset(wanted), first)
        commands = self._insert(chain, new, first)
        commands += [f"delete rule {chain} handle {rule['handle']}" for rule in gone]
        if commands:
            self._nft.run("\n".join(commands))
        return left

    def _insert(self, chain: str, bridges: list[str], first: int | None) -> list[str]:
        """Rules of what goes into our bridges stand before all those of what comes out of them:
        Docker's own bridges may be called as ours are.
        """
        into = [f'oifname "{bridge}" {self._end(bridge, "accept")}' for bridge in bridges]
        out = [rule for bridge in bridges for rule in self._out_of(bridge)]
        if first is None:
            return [f"insert rule {chain} {rule}" for rule in reversed([*into, *out])]
        commands = [f"insert rule {chain} position {first} {rule}" for rule in out]
        return [*commands, *(f"insert rule {chain} {rule}" for rule in into)]

    def _out_of(self, bridge: str) -> list[str]:
        end = self._end(bridge, "return")
        towards = [f'iifname "{bridge}" oifname "{other}" {end}' for other in _BRIDGES_OF_DOCKER]
        return [*towards, f'iifname "{bridge}" {self._end(bridge, "accept")}']

    def _end(self, bridge: str, verdict: str) -> str:
        return f'counter {verdict} comment "{self._owner} {bridge}"'


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
