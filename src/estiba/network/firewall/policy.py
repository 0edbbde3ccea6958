"""The seam for whoever decides which container may talk to whom: text within the engine's table.

The table's writer knows nothing of policies but the chain that it jumps to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PolicyText:
    """Sets and chains in the nft language, as they stand within a table.

    Among the chains is `policies`, without a hook. It sees every forwarded packet that begins a
    connection, before anything else of the engine's accepts it; bridged packets too where
    br_netfilter is on. Names begin with `polic`, so that they meet no others in the table.
    """

    sets: str = ""
    chains: str = "chain policies { }"


NO_POLICY = PolicyText()


class PolicySource(Protocol):
    def render(self) -> PolicyText:
        """All policies; called under the firewall's lock whenever the whole table is written."""
