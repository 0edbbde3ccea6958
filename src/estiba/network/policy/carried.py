"""What the kernel's copy knows and memory does not: counters, flows, what names were learnt.

It is read before a table is written anew, so that nothing of it is lost. What is missing is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound
from estiba.network.policy.compile import FLOWS
from estiba.network.policy.egress import Address

FAMILIES = ("inet", "bridge")


def counters(
    nft: Nft, table: str, families: Iterable[str] = FAMILIES
) -> dict[str, tuple[int, int]]:
    """Packets and bytes by name, those of both tables together."""
    found: dict[str, tuple[int, int]] = {}
    for family in families:
        for entry in _list(nft, f"list counters table {family} {table}"):
            counter = entry.get("counter")
            if counter:
                packets, size = found.get(counter["name"], (0, 0))
                found[counter["name"]] = (packets + counter["packets"], size + counter["bytes"])
    return found


def flows(nft: Nft, table: str) -> dict[str, list[str]]:
    """Elements of the sets of answers that are awaited, as the nft language has them."""
    found: dict[str, list[str]] = {}
    for name in FLOWS:
        found[name] = [
            f"{' . '.join(map(str, each['val']['concat']))} timeout 10m expires {each['expires']}s"
            for each in _elements(nft, f"list set bridge {table} {name}")
            if each.get("expires", 0) > 0
        ]
    return found


def learnt(nft: Nft, table: str, name: str) -> dict[str, dict[Address, float]]:
    """By bridge and MAC: addresses with the seconds that each has left."""
    found: dict[str, dict[Address, float]] = {}
    for each in _elements(nft, f"list set inet {table} {name}"):
        bridge, mac, address = each["val"]["concat"]
        if each.get("expires", 0) > 0:
            mine = found.setdefault(f"{bridge} {mac}", {})
            mine[ip_address(address)] = float(each["expires"])
    return found


def _elements(nft: Nft, command: str) -> list[dict[str, Any]]:
    return [
        wrapped["elem"]
        for entry in _list(nft, command)
        for wrapped in entry.get("set", {}).get("elem", [])
        if isinstance(wrapped, dict) and "elem" in wrapped
    ]


def _list(nft: Nft, command: str) -> list[dict[str, Any]]:
    try:
        return nft.list_json(command)
    except NotFound:
        return []
