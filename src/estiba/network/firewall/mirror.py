"""The host's input chains copied into a chain of the engine's: what would they say? Pure.

Every base chain of the host's must let a packet pass; so the copy of the first, where it
accepts, goes on to the copy of the next (`goto host1`, …), and the last lets pass. Matches by
source, interface, sets and connection state keep their meaning, because the copies are
evaluated before the destination is translated.

What cannot be expressed counts against the packet: an accept is left out, a drop loses the
condition that is not understood, a chain that is entered under such a condition is copied
`strict`, without its accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from estiba.network.firewall.hosttext import HostText
from estiba.network.firewall.listing import Chain, Table
from estiba.network.firewall.verdicts import Rule, sets_mark, take_apart

_FAMILIES = {"inet": "", "ip": "ipv4", "ip6": "ipv6"}
_FOREIGN_ENGINES = ("docker-bridges",)
_REFERENCE = re.compile(
    r'"[^"]*"|\b(jump|goto) ([\w./\\-]+)|@(?!(?:ll|nh|th|ih),)([A-Za-z_][\w./\\-]*)'
    r"|\bmeter ([\w./\\-]+)|\b(accept)\b"
)
_COPIED = ("set", "map")
_PLAIN = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Line:
    """A rule of the copy; `instead` stands in for it where the kernel refuses it."""

    text: str
    instead: str = ""
    source: str = ""


@dataclass(slots=True)
class Mirror:
    """The copy, and the host's rules that were not understood."""

    sets: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[Line]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_moving: bool = False
    """Packets change the sets themselves, of which nobody is told."""

    def text(self) -> HostText:
        chains = {
            name: "\n".join(f"    {line.text}" for line in lines if line.text)
            for name, lines in self.chains.items()
        }
        return HostText(dict(self.sets), chains)


def mirror(tables: Iterable[Table]) -> Mirror:
    """The copy of all base chains that see what comes in for the host."""
    made = Mirror()
    bases = [
        (table, chain)
        for table in tables
        if table.family in _FAMILIES and not _is_an_engines(table.name)
        for chain in table.chains.values()
        if chain.sees_input and (chain.rules or chain.policy != "accept")
    ]
    if not bases:
        return made
    made.chains["host"] = [Line("goto host0")]
    for number, (table, chain) in enumerate(bases):
        _Copier(made, table, number).copy_base(chain)
    made.chains[f"host{len(bases)}"] = [Line("accept")]
    return made


def _is_an_engines(table: str) -> bool:
    return table.startswith("estiba_") or table in _FOREIGN_ENGINES


class _Copier:
    """Copies what one base chain reaches."""

    def __init__(self, made: Mirror, table: Table, number: int) -> None:
        self._made = made
        self._table = table
        self._prefix = f"host{number}"
        self._next = f"host{number + 1}"
        self._names: dict[tuple[str, bool], str] = {}
        self._pending: list[tuple[str, bool]] = []
        self._marks_change = any(
            sets_mark(rule) for chain in table.chains.values() for rule in chain.rules
        )

    def copy_base(self, chain: Chain) -> None:
        lines = []
        protocol = _FAMILIES[self._table.family]
        if protocol:
            lines.append(Line(f"meta nfproto != {protocol} goto {self._next}"))
        lines.append(Line(f"jump {self._chain(chain.name, strict=False)}"))
        lines.append(Line("drop" if chain.policy == "drop" else f"goto {self._next}"))
        self._made.chains[self._prefix] = lines
        while self._pending:
            name, strict = self._pending.pop()
            found = self._table.chains.get(name, Chain(name))
            self._made.chains[self._names[name, strict]] = self._copy(found, strict)

    def _chain(self, name: str, *, strict: bool) -> str:
        """The name of a copy; it is made when its turn comes."""
        known = self._names.get((name, strict))
        if known is None:
            plain = _PLAIN.sub("_", name)[:40]
            known = f"{self._prefix}_{len(self._names)}_{plain}"
            self._names[name, strict] = known
            self._pending.append((name, strict))
        return known

    def _copy(self, chain: Chain, strict: bool) -> list[Line]:
        lines: list[Line] = []
        for text in chain.rules:
            rule = take_apart(text, marks_change=self._marks_change)
            source = f"{self._table.family} {self._table.name} {chain.name}: {text}"
            if rule.is_understood:
                lines.append(self._understood(rule, strict, source))
                continue
            if rule.kind:
                self._made.notes.append(source)
            if rule.kind == "return":
                # The packet may be back at the caller's: what follows can only refuse it.
                strict = True
            else:
                lines.append(self._doubtful(rule, source))
        return lines

    def _understood(self, rule: Rule, strict: bool, source: str) -> Line:
        text = self._renamed(f"{rule.matches} {rule.verdict}".strip(), strict)
        instead = "" if rule.kind in ("", "accept") or (strict and rule.kind == "vmap") else "drop"
        return Line(text, instead, source)

    def _doubtful(self, rule: Rule, source: str) -> Line:
        if rule.kind == "drop":
            verdict = "drop" if rule.verdict.startswith("queue") else rule.verdict
            return Line(self._renamed(f"{rule.matches} {verdict}".strip(), True), "drop", source)
        if rule.kind in ("jump", "goto", "vmap"):
            verdict = rule.verdict.replace("goto ", "jump ", 1)
            return Line(self._renamed(f"{rule.matches} {verdict}".strip(), True), "drop", source)
        return Line("")

    def _renamed(self, text: str, strict: bool) -> str:
        def rename(found: re.Match[str]) -> str:
            verb, chain, named_set, meter, accept = found.groups()
            if chain:
                return f"{verb} {self._chain(chain, strict=strict)}"
            if named_set:
                return f"@{self._set(named_set, strict)}"
            if meter:
                return f"meter {self._prefix}_{_PLAIN.sub('_', meter)}"
            if accept:
                return "continue" if strict else f"goto {self._next}"
            return found[0]

        return _REFERENCE.sub(rename, text)

    def _set(self, name: str, strict: bool) -> str:
        kind, body = self._table.objects.get(name, ("", []))
        has_verdicts = kind == "map" and any(": verdict" in line for line in body)
        copy = f"{self._prefix}{'s' if strict and has_verdicts else ''}_{_PLAIN.sub('_', name)}"
        if copy not in self._made.sets and kind in _COPIED:
            self._made.sets[copy] = ""
            self._made.is_moving |= any("dynamic" in line for line in body)
            lines = _settled(body)
            if has_verdicts:
                lines = [self._renamed(line, strict) for line in lines]
            self._made.sets[copy] = "\n".join([kind, *(f"    {line}" for line in lines)])
        return copy


def _settled(body: Sequence[str]) -> list[str]:
    return [line for line in body if not line.startswith("comment ")]
