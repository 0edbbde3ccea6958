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
            return []
        rules = [entry["rule"] for entry in present if _PREFIX.match(_comment(entry))]
        ours = [rule for rule in rules if rule["comment"].split()[0] == self._owner]
        left = [rule for rule in rules if rule not in ours and not _exists(_bridge(rule))]
        present_bridges = {_bridge(rule) for rule in ours}
        if present_bridges == set(wanted):
            return left
        new = [bridge for bridge in wanted if bridge not in present_bridges]
        # Rules of what goes into our bridges stand before all those of what comes out of them:
        # Docker's own bridges may be called as ours are. The latter stay where they are.
        gone = [rule for rule in ours if _bridge(rule) not in wanted or (new and _is_into(rule))]
        commands = [f"delete rule {chain} handle {rule['handle']}" for rule in gone]
        if new:
            added = [f'oifname "{bridge}" {self._end(bridge, "accept")}' for bridge in wanted]
            added += [rule for bridge in new for rule in self._out_of(bridge)]
            commands += [f"insert rule {chain} {rule}" for rule in reversed(added)]
        self._nft.run("\n".join(commands))
        return left

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
