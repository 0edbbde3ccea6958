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
    sets = (entry.get("set", {}) for entry in _list(nft, f"list table bridge {table}"))
    return {
        each["name"]: [
            f"{' . '.join(map(str, one['val']['concat']))} "
            f"timeout {one['timeout']}s expires {one['expires']}s"
            for one in _timed(each)
        ]
        for each in sets
        if each.get("name", "").startswith(FLOWS)
    }


def learnt(nft: Nft, table: str, name: str) -> dict[str, dict[Address, float]]:
    """By bridge and MAC: addresses with the seconds that each has left."""
    found: dict[str, dict[Address, float]] = {}
    for entry in _list(nft, f"list set inet {table} {name}"):
        for each in _timed(entry.get("set", {})):
            bridge, mac, address = each["val"]["concat"]
            mine = found.setdefault(f"{bridge} {mac}", {})
            mine[ip_address(address)] = float(each["expires"])
    return found


def _timed(set_: dict[str, Any]) -> list[dict[str, Any]]:
    """Its elements whose time is not over."""
    elements = [one["elem"] for one in set_.get("elem", []) if "elem" in one]
    return [each for each in elements if each.get("expires", 0) > 0]


def _list(nft: Nft, command: str) -> list[dict[str, Any]]:
    try:
        return nft.list_json(command)
    except NotFound:
        return []
