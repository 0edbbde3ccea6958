"""The engine's firewall: sole writer of its two nftables tables (see `layout`).

It remembers what the tables hold. Adding and removing a bridge, an endpoint or a port changes
elements of sets, in one transaction; the tables are written anew when the engine starts, and
when somebody else has changed them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from estiba.kernel.nfelements import ElementSocket
from estiba.kernel.nfrules import RuleSocket
from estiba.kernel.nft import Nft, RulesetWatch
from estiba.model.errors import EstibaError, Internal, NotFound
from estiba.network.firewall import standin, wire
from estiba.network.firewall.coexist import Admission
from estiba.network.firewall.contents import Change, Contents
from estiba.network.firewall.elements import change
from estiba.network.firewall.hostpolicy import HostPolicy
from estiba.network.firewall.hosttext import HostText
from estiba.network.firewall.policy import NO_POLICY, PolicySource
from estiba.network.firewall.removal import remove
from estiba.network.firewall.rules import BridgeRule, EndpointRule, LinkRule, PortRule
from estiba.network.firewall.writer import Writer

_log = logging.getLogger(__name__)
_REMEMBERED_AFTER_S = 1.0
_REMEMBERED_BY_S = 10.0


class Firewall:
    """Any method may be called from any thread; each is one transaction."""

    def __init__(self, table: str, nft: Nft | None = None, *, obey_host: bool = True) -> None:
        """`obey_host`: what the host's input policy refuses is not opened by publishing.

        Raises Unavailable when nftables is not installed.
        """
        self.table = table
        self._nft = nft or Nft()
        self._elements = ElementSocket()
        self._writer = Writer(self._nft, table)
        self._rules = RuleSocket()
        self._admission = Admission(self._nft, self._rules, table)
        self._host = HostPolicy(table, obey=obey_host)
        self._obeys_host = obey_host
        self._watch: RulesetWatch | None = None
        self.lock = threading.RLock()
        """Held over every change; a `PolicySource` guards with it what `render` reads."""

        self._policy: PolicySource | None = None
        self._contents = Contents()
        self._is_whole = False
        self._timer: threading.Timer | None = None
        self._first_at = self._changed_at = 0.0

    # -- the engine's life -----------------------------------------------------------------

    def start(self, bridges: Iterable[BridgeRule]) -> None:
        """Writes tables without ports, unless an earlier engine left some: then its ports go on
        working until `adopt` says which are still wanted.
        """
        standin.add_route()
        with self.lock:
            for rule in bridges:
                self._contents.put_bridge(rule)
            self._watch = RulesetWatch(self._settle, self._host.tick_s)
            self._host.text = self._host.read()
            if self._writer.is_there():
                self._admission.ensure(self._contents.bridges)
            else:
                self._rewrite()

    def adopt(self, endpoints: Iterable[EndpointRule], ports: Iterable[PortRule]) -> None:
        """Writes the whole tables with these endpoints and ports too, in one transaction."""
        with self.lock:
            for endpoint in endpoints:
                self._contents.put_endpoint(endpoint)
            self._contents.put_ports(ports)
            self._is_whole = True
            self._rewrite()

    def close(self) -> None:
        """Lets go of the tables and leaves them in force."""
        self._stop_watching()
        self._host.close()
        self._nft.close()
        self._elements.close()
        self._rules.close()

    def delete(self) -> None:
        """Deletes everything that is the firewall's, the administrator's chains too; none is no
        error.
        """
        self._stop_watching()
        with self.lock:
            self._contents = Contents()
            remove(self._nft, self.table)

    # -- elements --------------------------------------------------------------------------

    def add_bridge(self, rule: BridgeRule) -> None:
        with self.lock:
            self._change(self._contents.put_bridge(rule))
            self._admission.add(rule.bridge)

    def remove_bridge(self, bridge: str) -> None:
        """One that is gone is no error."""
        with self.lock:
            self._change(self._contents.drop_bridge(bridge))
            self._admission.remove(bridge)

    def admit(self, endpoint: EndpointRule) -> None:
        """Lets what comes from a container's link pass as far as its addresses are its own.

        Called before the link is there, so that no packet precedes the rule.
        """
        with self.lock:
            self._change(self._contents.put_endpoint(endpoint))

    def admitted(self, link: str) -> EndpointRule | None:
        """The very rule that was admitted last."""
        return self._contents.endpoints.get(link)

    def dismiss(self, link: str, rule: EndpointRule | None = None) -> None:
        """Forgets a container's link once that is gone; none is no error.

        With `rule` only if no later one was admitted for a link of that name.
        """
        with self.lock:
            if rule is None or self._contents.endpoints.get(link) is rule:
                self._change(self._contents.drop_endpoint(link))

    def allow(self, container_id: str, rules: Iterable[LinkRule]) -> None:
        """Lets a container reach just these ports where containers may not talk."""
        with self.lock:
            self._change(self._contents.put_links(container_id, rules))

    def disallow(self, address: str) -> None:
        """Ends what `allow` opened from and to an address that is about to be free."""
        with self.lock:
            if self._contents.links:
                self._change(self._contents.drop_links_of(address))

    def links(self) -> list[LinkRule]:
        """All that is allowed so."""
        with self.lock:
            return [rule for rules in self._contents.links.values() for rule in rules]

    def exchange(self, gone: Iterable[PortRule], new: Iterable[PortRule]) -> None:
        """Takes translations away and adds others, in one transaction.

        Those that are gone already are no error; tables that somebody flushed are written anew.
        """
        with self.lock:
            went, _ = self._contents.drop_ports(gone)
            replaced, came = self._contents.put_ports(new)
            self._change((went + replaced, came))

    @property
    def host_text(self) -> HostText | None:
        """The copy of the host's own firewall; None where that is not obeyed."""
        return self._host.text if self._obeys_host else None

    def user_rules(self, chain: str) -> list[str]:
        """What the administrator wrote into one of `USER_CHAINS`, as it was last seen."""
        return self._writer.user_rules(chain)

    # -- policies --------------------------------------------------------------------------

    def set_policy(self, source: PolicySource) -> None:
        """Whoever writes the chains `policies`; before `start`."""
        self._policy = source

    def change(self, commands: str) -> None:
        """Executes commands of a policy's maker in one transaction, all or nothing.

        They name the tables as `inet <self.table>` and `bridge <self.table>`. When they meet
        something that is not there, both tables are written anew with what
        `PolicySource.render` says by then: change the state first, then the table. Raises
        Internal for commands that nftables refuses.
        """
        if not commands.strip():
            return
        with self.lock:
            try:
                self._nft.run(commands)
            except NotFound:
                self._rewrite()
                return
            if self._writer.touch(commands):
                self._remember_later()

    def _remember_later(self) -> None:
        """When nothing has changed for a second, or after ten."""
        self._changed_at = time.monotonic()
        if self._timer is None:
            self._first_at = self._changed_at
            self._arm()

    def _arm(self) -> None:
        self._timer = threading.Timer(_REMEMBERED_AFTER_S, self._remember)
        self._timer.daemon = True
        self._timer.start()

    def _remember(self) -> None:
        with self.lock:
            if self._timer is None:
                return
            now = time.monotonic()
            is_busy = now - self._changed_at < _REMEMBERED_AFTER_S
            if is_busy and now - self._first_at < _REMEMBERED_BY_S:
                self._arm()
                return
            self._timer = None
            try:
                self._writer.remember()
            except EstibaError as error:
                _log.warning("cannot read the table %s: %s", self.table, error)

    # -- the tables ------------------------------------------------------------------------

    def _change(self, what: Change) -> None:
        elements = wire.changes(self.table, *what)
        try:
            if elements is None:
                self._nft.run(change(self.table, *what))
            elif elements:
                self._elements.execute(elements)
        except (NotFound, Internal) as error:
            _log.info("the table %s is not as it was left, and written anew: %s", self.table, error)
            self._rewrite()

    def _rewrite(self) -> None:
        policy = self._policy.render() if self._policy is not None else NO_POLICY
        try:
            self._writer.rewrite(self._contents, policy, self._host.text)
        except Internal as error:
            if not self._host.text.chains:
                raise
            # Containers have their network, whatever the host's rules are.
            self._host.text = self._host.closed(error)
            self._writer.rewrite(self._contents, policy, self._host.text)
        self._admission.ensure(self._contents.bridges)
        self._admission.warn(self._contents.bridges)

    def _settle(self) -> None:
        """Another program changed the ruleset: its own firewall perhaps, or ours."""
        try:
            new = self._host.read()
            with self.lock:
                old, self._host.text = self._host.text, new
                if self._is_whole and not self._writer.is_intact(self._contents):
                    _log.warning("another program changed the table %s: restored", self.table)
                    self._rewrite()
                elif new != old and self._is_whole:
                    self._follow(old, new)
                self._admission.ensure(self._contents.bridges)
                self._admission.warn(self._contents.bridges)
        except Exception as error:
            _log.warning("cannot restore the table %s: %s", self.table, error)

    def _follow(self, old: HostText, new: HostText) -> None:
        """The host's firewall says something else by now."""
        try:
            self._nft.run(old.replace(self.table, new))
        except (NotFound, Internal):
            self._rewrite()
            return
        self._writer.remember()

    def _stop_watching(self) -> None:
        with self.lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None
