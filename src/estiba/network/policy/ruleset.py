"""Sets, chains and counters of one nftables table, and how one content becomes another. Pure.

A change names only what differs: counters that stay keep counting, and what was learnt stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Counts = Mapping[str, tuple[int, int]]
"""Packets and bytes by the name of a counter."""

Elements = Mapping[str, Iterable[str]]
"""What a set holds at a moment, by the set's name."""


@dataclass(frozen=True, slots=True)
class SetSpec:
    """`body` is its type and flags. Elements of a `living` set come and go by themselves."""

    body: str
    elements: frozenset[str] = frozenset()
    keyword: str = "set"
    living: bool = False


@dataclass(frozen=True, slots=True)
class ChainSpec:
    rules: tuple[str, ...]
    hook: str = ""


@dataclass(slots=True)
class Ruleset:
    sets: dict[str, SetSpec] = field(default_factory=dict)
    chains: dict[str, ChainSpec] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)
    limits: dict[str, str] = field(default_factory=dict)

    def chain(self, name: str, rules: Iterable[str], hook: str = "") -> None:
        self.chains[name] = ChainSpec(tuple(rules), hook)


def render(ruleset: Ruleset, counts: Counts, elements: Elements) -> tuple[str, str]:
    """Sets and chains as they stand within a table; `elements` are those of living sets."""
    sets = [f"limit {name} {{ {body} }}" for name, body in ruleset.limits.items()]
    for name in sorted(ruleset.counters):
        packets, size = counts.get(name, (0, 0))
        sets.append(f"counter {name} {{ packets {packets} bytes {size} }}")
    for name, spec in ruleset.sets.items():
        inside = sorted(elements.get(name, ()) if spec.living else spec.elements)
        listed = f" elements = {{ {', '.join(inside)} }};" if inside else ""
        sets.append(f"{spec.keyword} {name} {{ {spec.body};{listed} }}")
    chains = [
        "\n  ".join([f"chain {name} {{", *_head(spec), *spec.rules]) + "\n}"
        for name, spec in ruleset.chains.items()
    ]
    return "\n".join(sets), "\n".join(chains)


def _head(spec: ChainSpec) -> list[str]:
    return [f"{spec.hook};"] if spec.hook else []


def difference(old: Ruleset, new: Ruleset, table: str) -> list[str]:
    """Commands that make the table's content `new`, in one transaction.

    `table` is family and name. The order matters: what is named is there before, and is named
    no more when it goes.
    """
    commands = [
        f"add limit {table} {name} {{ {body} }}"
        for name, body in new.limits.items()
        if name not in old.limits
    ]
    commands += [f"add counter {table} {name}" for name in sorted(new.counters - old.counters)]
    made = {name for name, spec in new.sets.items() if _differs(old.sets.get(name), spec)}
    for name in sorted(made):
        spec = new.sets[name]
        commands.append(f"add {spec.keyword} {table} {name} {{ {spec.body}; }}")
    for name, chain in new.chains.items():
        if name not in old.chains:
            hook = f" {{ {chain.hook}; }}" if chain.hook else ""
            commands.append(f"add chain {table} {name}{hook}")
    commands += _elements(old, new, table, gone=True)
    changed = [name for name in old.chains if old.chains[name] != new.chains.get(name)]
    commands += [f"flush chain {table} {name}" for name in changed]
    for name, chain in new.chains.items():
        if old.chains.get(name) != chain:
            commands += [f"add rule {table} {name} {rule}" for rule in chain.rules]
    commands += _elements(old, new, table, gone=False)
    commands += [f"delete chain {table} {name}" for name in old.chains if name not in new.chains]
    commands += [
        f"delete {spec.keyword} {table} {name}"
        for name, spec in old.sets.items()
        if name not in new.sets
    ]
    commands += [f"delete counter {table} {name}" for name in sorted(old.counters - new.counters)]
    return commands + [f"delete limit {table} {n}" for n in old.limits if n not in new.limits]


def _differs(old: SetSpec | None, new: SetSpec) -> bool:
    return old is None or old.body != new.body


def _elements(old: Ruleset, new: Ruleset, table: str, *, gone: bool) -> list[str]:
    """Those that leave or those that come, of sets whose elements are ours to say."""
    before, after = (new, old) if gone else (old, new)
    verb = "delete" if gone else "add"
    commands = []
    for name, spec in after.sets.items():
        there = before.sets.get(name)
        members = spec.elements - (there.elements if there else frozenset())
        if members and not spec.living:
            inside = ", ".join(sorted(members))
            commands.append(f"{verb} element {table} {name} {{ {inside} }}")
    return commands
