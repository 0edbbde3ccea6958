"""What `iptables-restore-translate` makes of the old iptables tables, as tables. Pure."""

from __future__ import annotations

import re

from estiba.network.firewall.listing import Chain, Table

_CHAIN = re.compile(r"add chain \w+ filter (\S+)(?: \{ (type .*?) \})?$")
_RULE = re.compile(r"(?:add|insert) rule \w+ filter (\S+) (.*)$")
_UNTRANSLATED = re.compile(r"# .*?-A (\S+) (.*)$")
_TARGET = re.compile(r"(?:^|\s)-([jg]) (\S+)")
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
_HARMLESS = frozenset(("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "AUDIT", "SET", "TCPMSS"))


def parse_translated(family: str, text: str) -> list[Table]:
    """The table `filter`; rules that were not translated have an unknown match."""
    table = Table(family, "filter")
    for raw in text.splitlines():
        line = raw.strip()
        if found := _CHAIN.match(line):
            table.chains[found[1]] = Chain(found[1], found[2] or "")
        elif found := _RULE.match(line):
            _chain(table, found[1]).rules.append(found[2])
        elif found := _UNTRANSLATED.match(line):
            rule = _untranslated(found[2])
            if rule:
                _chain(table, found[1]).rules.append(rule)
    return [table]


def _chain(table: Table, name: str) -> Chain:
    return table.chains.setdefault(name, Chain(name))


def _untranslated(text: str) -> str:
    found = _TARGET.search(text)
    if not found or found[2] in _HARMLESS:
        return ""
    verb = "jump" if found[1] == "j" else "goto"
    return f"xt match iptables {_VERDICTS.get(found[2], f'{verb} {found[2]}')}"
