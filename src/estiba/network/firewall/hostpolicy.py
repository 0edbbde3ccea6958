"""Reads the host's firewall and keeps the copy of it that decides about published ports."""

from __future__ import annotations

import logging
import re
import subprocess
from dataclasses import replace
from pathlib import Path

from estiba.kernel.nft import Nft
from estiba.model.errors import EstibaError, NotFound
from estiba.network.firewall.hosttext import HostText
from estiba.network.firewall.legacy import parse_translated
from estiba.network.firewall.listing import Table, parse
from estiba.network.firewall.mirror import Mirror, mirror

_log = logging.getLogger(__name__)

_CLOSED = HostText(chains={"host": "    drop"})
_POLL_S = 5.0
_LEGACY = {
    "ip": ("/proc/thread-self/net/ip_tables_names", "iptables"),
    "ip6": ("/proc/thread-self/net/ip6_tables_names", "ip6tables"),
}
_TIMEOUT_S = 20
_SHOWN = 3


class HostPolicy:
    """`text` is what the engine's table is to hold; only the firewall sets it.

    It has a library context of its own, so that the firewall's lock is free while it reads: a set
    of a hundred thousand addresses takes 0.3 s.
    """

    def __init__(self, table: str, *, obey: bool) -> None:
        self.text = HostText()
        self._table = table
        self._obey = obey
        self._nft = Nft()
        self._is_moving = False
        self._noted: list[str] = []
        self._last: tuple[HostText, HostText, list[str]] = (HostText(), HostText(), [])
        """What was copied last, what the kernel took of it, and what that leaves out."""

    def read(self) -> HostText:
        """What the host's firewall says now, in a form that the kernel takes.

        A ruleset that cannot be read or copied closes all ports to other machines, with a
        warning.
        """
        if not self._obey:
            return HostText()
        try:
            made = mirror([*self._tables(), *self._legacy_tables()])
            text = self._checked(made)
        except Exception as error:
            return self.closed(error)
        self._is_moving = made.is_moving or bool(self._legacy_families())
        self._tell(made.notes)
        return text

    def closed(self, why: object) -> HostText:
        """No published port is open to other machines; tells so."""
        _log.warning(
            "the host's firewall cannot be understood, published ports stay closed to other "
            "machines: %s; open them with --publish-policy=open, or one by one: %s",
            why,
            self._remedy(),
        )
        return _CLOSED

    def tick_s(self) -> float | None:
        """How often to look without being told: the kernel announces no change of old iptables
        tables, and none that packets make in sets.
        """
        return _POLL_S if self._is_moving else None

    def close(self) -> None:
        self._nft.close()

    # -- reading ---------------------------------------------------------------------------

    def _tables(self) -> list[Table]:
        """Only tables with a chain for input are read whole."""
        chains = self._nft.list_json("list chains")
        names = {
            (entry["chain"]["family"], entry["chain"]["table"])
            for entry in chains
            if entry.get("chain", {}).get("hook") == "input"
        }
        tables: list[Table] = []
        for family, name in sorted(names):
            if name != self._table:
                try:
                    tables += parse(self._nft.list_text(f"list table {family} {name}"))
                except NotFound:
                    continue
        return tables

    def _legacy_families(self) -> list[str]:
        return [family for family, (names, _) in _LEGACY.items() if "filter" in _words(names)]

    def _legacy_tables(self) -> list[Table]:
        """Tables of the kernel's old iptables, translated by iptables' own translator."""
        tables: list[Table] = []
        for family in self._legacy_families():
            program = _LEGACY[family][1]
            saved = _run(f"{program}-legacy-save", "-t", "filter")
            translated = _run(f"{program}-restore-translate", "-f", "/dev/stdin", given=saved)
            tables += parse_translated(family, translated)
        return tables

    # -- checking --------------------------------------------------------------------------

    def _checked(self, made: Mirror) -> HostText:
        """Rules that the kernel refuses in this place are replaced by what is safe.

        A copy that is the same as last time has been checked.
        """
        text = made.text()
        if text == self._last[0]:
            made.notes = self._last[2]
            return self._last[1]
        # A second time: the ruleset may have changed while it was looked at.
        is_taken = not made.chains or self._is_accepted(text) or self._is_accepted(text)
        taken = text if is_taken else self._repaired(made)
        self._last = (text, taken, made.notes)
        return taken

    def _repaired(self, made: Mirror) -> HostText:
        sets = {name: body for name, body in made.sets.items() if self._takes_set(name, body)}
        empty = dict.fromkeys(made.chains, "")
        for name, lines in made.chains.items():
            for number, line in enumerate(lines):
                if line.text and not self._is_accepted(HostText(sets, {**empty, name: line.text})):
                    lines[number] = replace(line, text=line.instead)
                    made.notes.append(line.source)
        made.sets = sets
        text = made.text()
        self._nft.check(_trial(text))
        return text

    def _is_accepted(self, text: HostText) -> bool:
        try:
            self._nft.check(_trial(text))
        except EstibaError:
            return False
        return True

    def _takes_set(self, name: str, body: str) -> bool:
        return self._is_accepted(HostText({name: re.sub(r"(jump|goto) \S+", "drop", body)}))

    # -- telling ---------------------------------------------------------------------------

    def _tell(self, notes: list[str]) -> None:
        if notes and notes != self._noted:
            more = f" and {len(notes) - _SHOWN} more" if len(notes) > _SHOWN else ""
            _log.warning(
                "rules of the host's firewall that are not understood count as refusing published "
                "ports to other machines: %s%s; to open a port all the same: %s",
                "; ".join(notes[:_SHOWN]),
                more,
                self._remedy(),
            )
        self._noted = notes

    def _remedy(self) -> str:
        return f"nft add rule inet {self._table} user-published tcp dport PORT accept"


def _trial(text: HostText) -> str:
    """The copy where it is to stand, as deep in chains as there."""
    return f"""table inet estiba_trial {{
{text}
chain user {{ }}
chain admission {{ jump user; goto host; }}
chain gate {{ type filter hook prerouting priority dstnat - 1; jump admission; }}
}}"""


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def _run(*words: str, given: str = "") -> str:
    return subprocess.run(
        words, input=given, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
    ).stdout
