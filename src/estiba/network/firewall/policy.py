"""The seam for whoever decides which container may talk to whom: text within the engine's tables.

The tables' writer knows nothing of policies but the chains that it jumps to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PolicyText:
    """Sets and chains in the nft language, as they stand within a table.

    Among the chains is `policies`, without a hook. That of the inet table sees every forwarded
    packet that begins a connection, before anything else of the engine's accepts it; bridged
    packets too where br_netfilter is on. That of the bridge table sees every bridged frame.
    Names begin with `polic`, so that they meet no others in the tables.
    """

    sets: str = ""
    chains: str = "chain policies { }"
    bridge_sets: str = ""
    bridge_chains: str = "chain policies { }"


NO_POLICY = PolicyText()


class PolicySource(Protocol):
    def render(self) -> PolicyText:
        """All policies; called under the firewall's lock whenever the tables are written."""
