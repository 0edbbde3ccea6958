"""Tables as `nft list` prints them, taken apart into chains, rules and sets. Pure.

The listing is the only form in which rules that iptables made are translated; the JSON form
names their matches but not what they match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TABLE = re.compile(r"table (\w+) (\S+) \{")
_OBJECT = re.compile(r"\t([a-z][a-z ]*?) (\S+) \{")
_QUOTED = re.compile(r'"[^"]*"')
_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+")
_POLICY = re.compile(r"policy (\w+);")


@dataclass(slots=True)
class Chain:
    """A chain; `hook` is what follows `type`, for one that the kernel calls."""

    name: str
    hook: str = ""
    rules: list[str] = field(default_factory=list)

    @property
    def sees_input(self) -> bool:
        return self.hook.startswith("type filter hook input ")

    @property
    def policy(self) -> str:
        found = _POLICY.search(self.hook)
        return found[1] if found else "accept"


@dataclass(slots=True)
class Table:
    family: str
    name: str
    chains: dict[str, Chain] = field(default_factory=dict)
    objects: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Sets, maps, limits, quotas and others by name: their kind, and the lines of the body."""


def parse(text: str) -> list[Table]:
    """All tables of a listing. Lines that mean nothing here are left out."""
    tables: list[Table] = []
    lines = iter(text.splitlines())
    for line in lines:
        found = _TABLE.match(line)
        if found:
            table = Table(found[1], found[2])
            tables.append(table)
            _parse_table(lines, table)
    return tables


def _parse_table(lines: Iterator[str], table: Table) -> None:
    for line in lines:
        if line.startswith("}"):
            return
        found = _OBJECT.match(line)
        if not found:
            continue
        body = list(_body(lines))
        if found[1] == "chain":
            table.chains[found[2]] = _parse_chain(found[2], body)
        else:
            table.objects[found[2]] = (found[1], body)


def _body(lines: Iterator[str]) -> Iterator[str]:
    """The statements of a block, each on one line, without what the kernel has counted."""
    pending: list[str] = []
    depth = 0
    for line in lines:
        if line.startswith("\t}"):
            return
        bare = _QUOTED.sub("", line)
        depth += bare.count("{") - bare.count("}")
        pending.append(line.strip())
        if depth <= 0:
            if statement := " ".join(pending).strip():
                yield _COUNTER.sub("counter", statement)
            pending, depth = [], 0


def _parse_chain(name: str, body: list[str]) -> Chain:
    chain = Chain(name)
    for line in body:
        if line.startswith("type ") and " hook " in line:
            chain.hook = line
        elif not line.startswith(("#", 'comment "')):
            chain.rules.append(line)
    return chain
