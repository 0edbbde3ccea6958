"""Writes the engine's tables as a whole, and says whether they still are what it wrote.

A table that is there is never deleted: chains whose names begin with `user-`, and the sets that
they use, are the administrator's. Everything else in it is replaced in one transaction.
"""

from __future__ import annotations

import contextlib
import logging
import re

from estiba.kernel.nft import Nft
from estiba.model.errors import Internal, NotFound
from estiba.network.firewall.contents import Contents
from estiba.network.firewall.hosttext import HostText
from estiba.network.firewall.layout import SETS, USER_CHAINS
from estiba.network.firewall.policy import PolicyText
from estiba.network.firewall.present import Present, is_users, read
from estiba.network.firewall.text import render_bridge, render_inet

_log = logging.getLogger(__name__)
_TRIES = 3
_FAMILIES = ("inet", "bridge")
_CHANGED_CHAIN = re.compile(r"^(?:add|flush|delete) (?:chain|rule) (\w+) \S+ (\S+)", re.MULTILINE)


class Writer:
    """Used under the firewall's lock."""

    def __init__(self, nft: Nft, table: str) -> None:
        self._nft = nft
        self._table = table
        self._written: dict[str, dict[str, list[bytes]]] = {}
        """Chains as the kernel listed them after they were written, by family."""

        self._touched: set[tuple[str, str]] = set()
        """Chains by family and name that the engine has changed since they were listed."""

        self._users: dict[str, list[str]] = {}
        """The administrator's rules as they were last seen."""

    def is_there(self) -> bool:
        return read(self._nft, "inet", self._table, terse=True) is not None

    def rewrite(self, contents: Contents, policy: PolicyText, host: HostText) -> None:
        """Writes both tables anew. Raises Internal when nftables refuses them."""
        elements = contents.elements()
        for attempt in range(_TRIES):
            present = {f: read(self._nft, f, self._table, terse=True) for f in _FAMILIES}
            if present["inet"] is not None:
                self._note_users(present["inet"])
            # A set that a rule of the administrator's uses cannot be deleted, only emptied.
            clear = "delete" if not attempt else "flush"
            text = "\n".join(
                [
                    *(self._clear(family, there, clear) for family, there in present.items()),
                    render_inet(self._table, elements, policy, host),
                    render_bridge(self._table, elements, policy),
                    self._lost_rules(present["inet"]) if attempt < _TRIES - 1 else "",
                ]
            )
            try:
                self._nft.run(text)
                break
            except (Internal, NotFound) as error:
                if attempt == _TRIES - 1:
                    raise
                _log.debug("writing the table %s again: %s", self._table, error)
        self.remember()

    def remember(self) -> None:
        """What the tables hold now is what they must hold; elements are compared apart."""
        for family in _FAMILIES:
            present = read(self._nft, family, self._table, terse=True)
            self._written[family] = present.own_chains if present else {}
        self._touched.clear()

    def touch(self, commands: str) -> bool:
        """Takes note of the chains that the engine itself changes; returns whether there are any.

        To list a large table takes far longer than to change it: `remember` may come later.
        """
        found = _CHANGED_CHAIN.findall(commands)
        self._touched.update(found)
        return bool(found)

    def is_intact(self, contents: Contents) -> bool:
        """Whether nobody has changed what is the engine's; takes note of the user's rules."""
        elements = contents.elements()
        for family in _FAMILIES:
            present = read(self._nft, family, self._table)
            if present is None:
                return False
            if family == "inet":
                self._note_users(present)
            wanted = {name: found for (of, name), found in elements.items() if of == family}
            if self._untouched(family, present.own_chains) != self._untouched(
                family, self._written.get(family, {})
            ):
                return False
            if not present.holds(wanted, SETS[family]):
                return False
        return all(name in self._users for name in USER_CHAINS)

    def _untouched(self, family: str, chains: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
        return {
            name: rules for name, rules in chains.items() if (family, name) not in self._touched
        }

    # -- text ------------------------------------------------------------------------------

    def _clear(self, family: str, present: Present | None, way: str) -> str:
        name = f"{family} {self._table}"
        lines = [f"add table {name}"]
        if present is None:
            return lines[0]
        chains = [chain for chain in present.chains if not is_users(chain)]
        lines += [f"flush chain {name} {chain}" for chain in chains]
        for each, (kind, _) in present.sets.items():
            if not is_users(each):
                lines.append(f"{way} {kind} {name} {each}")
        lines += [f"delete chain {name} {chain}" for chain in chains]
        return "\n".join(lines)

    def user_rules(self, chain: str) -> list[str]:
        return list(self._users.get(chain, ()))

    # -- the administrator's rules ---------------------------------------------------------

    def _note_users(self, present: Present) -> None:
        for name in USER_CHAINS:
            rules = present.chains.get(name)
            if rules is None:
                self._users.pop(name, None)
            elif len(rules) == 1:
                self._users[name] = []
            else:
                # If the table goes at this moment, what was there before is to come back.
                with contextlib.suppress(NotFound):
                    self._users[name] = self._list_chain(name)

    def _list_chain(self, name: str) -> list[str]:
        text = self._nft.list_text(f"list chain inet {self._table} {name}")
        return [line.strip() for line in text.splitlines() if line.startswith("\t\t")]

    def _lost_rules(self, present: Present | None) -> str:
        """What went with the table when another program deleted it."""
        if present is not None:
            return ""
        return "\n".join(
            f"add rule inet {self._table} {chain} {rule}"
            for chain, rules in self._users.items()
            for rule in rules
        )
