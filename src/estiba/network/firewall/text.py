"""The engine's tables with all that they hold, in the nft language. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from estiba.network.firewall.elements import Element
from estiba.network.firewall.hosttext import HostText
from estiba.network.firewall.layout import BRIDGE_CHAINS, INET_CHAINS, SETS
from estiba.network.firewall.policy import NO_POLICY, PolicyText

Elements = Mapping[tuple[str, str], Sequence[Element]]


def render_inet(
    table: str, elements: Elements, policy: PolicyText = NO_POLICY, host: HostText | None = None
) -> str:
    parts = [_sets("inet", elements), policy.sets, policy.chains, str(host or HostText())]
    return f"table inet {table} {{\n" + "\n".join(parts) + f"\n{INET_CHAINS}}}"


def render_bridge(table: str, elements: Elements, policy: PolicyText = NO_POLICY) -> str:
    parts = [_sets("bridge", elements), policy.bridge_sets, policy.bridge_chains]
    return f"table bridge {table} {{\n" + "\n".join(parts) + f"\n{BRIDGE_CHAINS}}}"


def _sets(family: str, elements: Elements) -> str:
    return "\n".join(
        "  " + declaration % _members(elements.get((family, name), ()))
        for name, declaration in SETS[family].items()
    )


def _members(elements: Iterable[Element]) -> str:
    joined = ", ".join(dict.fromkeys(map(str, elements)))
    return f"elements = {{ {joined} }};" if joined else ""
