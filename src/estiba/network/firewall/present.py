"""What is in the kernel under the engine's name, and whether it is what must be.

Rules are compared with what the kernel listed when the engine had just written them, elements
with the firewall's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from estiba.kernel.nft import Nft
from estiba.model.errors import NotFound
from estiba.network.firewall.elements import Element

_MISSING = frozenset(("missing",))
_OF_THE_KERNEL = frozenset(("handle", "packets", "bytes"))


@dataclass(frozen=True, slots=True)
class Present:
    """One table as the kernel lists it."""

    chains: dict[str, list[bytes]] = field(default_factory=dict)
    """By name: what hooks it, then its rules, without handles and counts."""

    sets: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """By name: `set` or `map`, and the elements."""

    @property
    def own_chains(self) -> dict[str, list[bytes]]:
        """Without the contents of those that belong to the administrator."""
        return {name: rules for name, rules in self.chains.items() if not is_users(name)}

    def holds(self, wanted: dict[str, list[Element]], declared: Iterable[str]) -> bool:
        """Whether the sets hold exactly the elements that they must."""
        for name in declared:
            _, elements = self.sets.get(name, ("", _MISSING))
            if elements != {plain(each.key, each.value) for each in wanted.get(name, ())}:
                return False
        return True


def read(nft: Nft, family: str, table: str, *, terse: bool = False) -> Present | None:
    """The table, `terse` without the elements of its sets, or None if it is not there."""
    try:
        entries = nft.list_json(f"list table {family} {table}", terse=terse)
    except NotFound:
        return None
    present = Present()
    for entry in entries:
        kind, body = next(iter(entry.items()))
        if kind == "chain":
            hook = {key: body.get(key) for key in ("type", "hook", "prio", "policy")}
            present.chains.setdefault(body["name"], []).insert(0, msgspec.json.encode(hook))
        elif kind == "rule":
            rule = msgspec.json.encode(_timeless(body.get("expr")))
            present.chains.setdefault(body["chain"], []).append(rule)
        elif kind in ("set", "map"):
            elements = frozenset(map(_element, body.get("elem", ())))
            present.sets[body["name"]] = (kind, elements)
    return present


def is_users(name: str) -> bool:
    """What the administrator keeps in the engine's table: it is never touched."""
    return name.startswith(("user-", "user_"))


def plain(key: Iterable[str], value: Iterable[str] = ()) -> str:
    target = " . ".join(value)
    return " . ".join(key) + (f" : {target}" if target else "")


def _element(raw: Any) -> str:
    if isinstance(raw, list):
        return f"{_element(raw[0])} : {_element(raw[1])}"
    match raw:
        case {"elem": {"val": value}}:
            return _element(value)
        case {"concat": parts}:
            return " . ".join(map(_element, parts))
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
    return str(raw)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _OF_THE_KERNEL}
    if isinstance(value, list):
        return [_timeless(each) for each in value]
    return value
