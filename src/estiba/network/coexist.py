"""Living beside a Docker Engine and other owners of the ruleset.

A packet passes when every base chain lets it pass. dockerd gives `ip filter FORWARD` the policy
drop, so that the containers of others lose their network; DOCKER-USER is the chain that it
leaves to others, evaluated first and never flushed by it. The engine's bridges are accepted
there, except towards bridges of Docker: into its own the engine's table decides, into Docker's
Docker does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound

_log = logging.getLogger(__name__)

_CHAIN = "ip filter DOCKER-USER"
_BRIDGES_OF_DOCKER = ("docker*", "br-*")


class Admission:
    """The rules that one engine has in DOCKER-USER; their comments name engine and bridge."""

    def __init__(self, nft: Nft, owner: str) -> None:
        self._nft = nft
        self._owner = owner
        self._warned = False

    def ensure(self, bridges: Iterable[str]) -> None:
        """Writes the rules for exactly these bridges, in a form that iptables can show."""
        try:
            present = self._nft.list_json(f"list chain {_CHAIN}")
        except NotFound:
            self._warn_of_drop()
            return
        ours = [
            entry["rule"]
            for entry in present
            if entry.get("rule", {}).get("comment", "").startswith(f"{self._owner} ")
        ]
        wanted = sorted(bridges)
        if {rule["comment"].split()[1] for rule in ours} == set(wanted):
            return
        commands = [f"delete rule {_CHAIN} handle {rule['handle']}" for rule in ours]
        rules = [f'oifname "{bridge}" {self._end(bridge, "accept")}' for bridge in wanted]
        for bridge in wanted:
            for other in _BRIDGES_OF_DOCKER:
                end = self._end(bridge, "return")
                rules.append(f'iifname "{bridge}" oifname "{other}" {end}')
            rules.append(f'iifname "{bridge}" {self._end(bridge, "accept")}')
        commands += [f"insert rule {_CHAIN} {rule}" for rule in reversed(rules)]
        self._nft.run("\n".join(commands))

    def _end(self, bridge: str, verdict: str) -> str:
        return f'counter {verdict} comment "{self._owner} {bridge}"'

    def _warn_of_drop(self) -> None:
        try:
            chains = self._nft.list_json("list chain ip filter FORWARD")
        except NotFound:
            return
        if not self._warned and any(_drops(entry) for entry in chains):
            self._warned = True
            _log.warning(
                "the host's firewall drops what it forwards (ip filter FORWARD, policy drop): "
                "containers do not reach the outside until it accepts the engine's bridges, for "
                "example by: iptables -I FORWARD -i <bridge> -j ACCEPT; "
                "iptables -I FORWARD -o <bridge> -j ACCEPT"
            )


def _drops(entry: dict[str, Any]) -> bool:
    return bool(entry.get("chain", {}).get("policy") == "drop")
