"""The engine's nftables table: translation of published ports, masquerading, isolation.

One table of family inet for each engine, so that two engines and a genuine dockerd live side
by side. The chains never change; bridges and published ports are elements of sets and maps,
so that publishing a port costs one element, whatever else is published.

    guard         nobody outside reaches the host's loopback, although bridges route it
    prerouting    published port at an address of the host → container
    output        the same for the host's own programs, 127.0.0.1 included
    forward       what belongs to a connection that was let pass; then what the policies say;
                  within a bridge if its containers may talk; into one only to published ports;
                  nothing crosses the edge of an internal network
    policies      of whoever makes policies (`PolicySource`); accept and drop are final
    postrouting   containers leave with the host's address; a container that reaches a
                  neighbour by a published port does so with the bridge's, or the answer would
                  go past the translation
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from estiba.kernel.nft import Nft, RulesetWatch
from estiba.model.errors import EstibaError, NotFound
from estiba.network.firewall.coexist import Admission
from estiba.network.firewall.policy import NO_POLICY, PolicySource, PolicyText
from estiba.network.firewall.rules import BridgeRule, EndpointRule, PortRule

_log = logging.getLogger(__name__)


class Firewall:
    """Sole writer of one table. It remembers what the table holds and can write it anew."""

    def __init__(self, table: str, nft: Nft | None = None) -> None:
        self.table = table
        self._nft = nft or Nft()
        self._admission = Admission(self._nft, table)
        self._watch: RulesetWatch | None = None
        self.lock = threading.RLock()
        """Held over every change; a `PolicySource` guards with it what `render` reads."""

        self._policy: PolicySource | None = None
        self._bridges: dict[str, BridgeRule] = {}
        self._ports: dict[tuple[str, str], PortRule] = {}
        self._endpoints: dict[str, EndpointRule] = {}

    def start(self, bridges: Iterable[BridgeRule]) -> None:
        """Writes a table without ports, unless an earlier engine left one: then its ports go on
        working until `adopt` says which are still wanted.
        """
        with self.lock:
            self._bridges = {rule.bridge: rule for rule in bridges}
            self._watch = RulesetWatch(self._heal)
            self._ensure_present()

    def close(self) -> None:
        """Lets go of the table and leaves it in force."""
        self._stop_watching()
        self._nft.close()

    def adopt(self, endpoints: Iterable[EndpointRule], ports: Iterable[PortRule]) -> None:
        """Writes the whole table with these endpoints and ports too, in one transaction."""
        with self.lock:
            self._endpoints.update({rule.link: rule for rule in endpoints})
            self._ports.update({(r.map, r.key): r for r in ports if r.address.version == 4})
            self._rebuild()

    def add_bridge(self, rule: BridgeRule) -> None:
        with self.lock:
            self._bridges[rule.bridge] = rule
            self._rebuild()

    def remove_bridge(self, bridge: str) -> None:
        with self.lock:
            if self._bridges.pop(bridge, None) is not None:
                self._rebuild()

    def admit(self, endpoint: EndpointRule) -> None:
        """Lets what comes from a container's link pass as far as its addresses are its own."""
        with self.lock:
            self._endpoints[endpoint.link] = endpoint

    def dismiss(self, link: str) -> None:
        """Forgets a container's link; one that is gone is no error."""
        with self.lock:
            self._endpoints.pop(link, None)

    def exchange(self, gone: Iterable[PortRule], new: Iterable[PortRule]) -> None:
        """Takes translations away and adds others, in one transaction.

        Those that are gone already are no error; a table that somebody flushed is written anew.
        """
        added = [rule for rule in new if rule.address.version == 4]
        with self.lock:
            known = [rule for rule in gone if self._ports.get((rule.map, rule.key)) == rule]
            for rule in known:
                del self._ports[(rule.map, rule.key)]
            self._ports.update({(rule.map, rule.key): rule for rule in added})
            where = f"element inet {self.table}"
            commands = [f"delete {where} {rule.map} {{ {rule.key} }}" for rule in known]
            commands += [f"add {where} {rule.map} {{ {rule} }}" for rule in added]
            self._change(commands)

    def set_policy(self, source: PolicySource) -> None:
        """Whoever writes the chain `policies`; before `start`."""
        self._policy = source

    def change(self, commands: str) -> None:
        """Executes commands of a policy's maker in one transaction, all or nothing.

        They name the table as `inet <self.table>`. When they meet something that is not there,
        the whole table is written anew with what `PolicySource.render` says by then: change the
        state first, then the table. Raises Internal for commands that nftables refuses.
        """
        with self.lock:
            self._change((commands,))

    def delete(self) -> None:
        """Deletes the table; none is no error."""
        self._stop_watching()
        with self.lock:
            self._bridges, self._ports, self._endpoints = {}, {}, {}
            self._admission.ensure(())
            self._nft.run(f"add table inet {self.table}\ndelete table inet {self.table}\n")

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _change(self, commands: Iterable[str]) -> None:
        batch = "\n".join(commands)
        if not batch:
            return
        try:
            self._nft.run(batch)
        except NotFound:
            self._rebuild()

    def _heal(self) -> None:
        """Another program changed the ruleset: `nft flush ruleset` takes everyone's tables."""
        try:
            with self.lock:
                self._ensure_present()
        except EstibaError as error:
            _log.warning("cannot restore the table %s: %s", self.table, error)

    def _ensure_present(self) -> None:
        try:
            self._nft.list_json(f"list table inet {self.table}")
            self._admission.ensure(self._bridges)
        except NotFound:
            self._rebuild()

    def _rebuild(self) -> None:
        name = f"inet {self.table}"
        policy = self._policy.render() if self._policy is not None else NO_POLICY
        table = render_table(self.table, self._bridges.values(), self._ports.values(), policy)
        self._nft.run(f"add table {name}\ndelete table {name}\n{table}")
        self._admission.ensure(self._bridges)


def render_table(
    table: str,
    bridges: Iterable[BridgeRule],
    ports: Iterable[PortRule],
    policy: PolicyText = NO_POLICY,
) -> str:
    """The whole table in the nft language."""
    rules = list(bridges)
    by_map: dict[str, list[str]] = {"published": [], "published_at": []}
    for port in ports:
        by_map[port.map].append(str(port))
    return _TABLE.format(
        table=table,
        bridges=_elements(f'"{rule.bridge}"' for rule in rules),
        talking=_elements(f'"{rule.bridge}" . "{rule.bridge}"' for rule in rules if rule.icc),
        internal=_elements(f'"{rule.bridge}"' for rule in rules if rule.internal),
        own=_elements(
            f'"{rule.bridge}" . {subnet}'
            for rule in rules
            for subnet in rule.subnets
            if subnet.version == 4
        ),
        leaving=_elements(
            str(subnet)
            for rule in rules
            if rule.masquerade and not rule.internal
            for subnet in rule.subnets
            if subnet.version == 4
        ),
        published=_elements(by_map["published"]),
        published_at=_elements(by_map["published_at"]),
        policy=f"{policy.sets}\n{policy.chains}",
    )


def _elements(members: Iterable[str]) -> str:
    joined = ", ".join(members)
    return f"elements = {{ {joined} }}" if joined else ""


_TABLE = """\
table inet {table} {{
  set bridges {{ type ifname; {bridges}; }}
  set talking {{ type ifname . ifname; {talking}; }}
  set internal {{ type ifname; {internal}; }}
  set own {{ type ifname . ipv4_addr; flags interval; {own}; }}
  set leaving {{ type ipv4_addr; flags interval; {leaving}; }}
  map published {{
    type inet_proto . inet_service : ipv4_addr . inet_service; {published};
  }}
  map published_at {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {published_at};
  }}

  {policy}

  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    jump policies
    iifname . oifname @talking accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges jump inbound
  }}
  chain inbound {{
    ct status dnat accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname . ip saddr @own ct status dnat masquerade
    oifname . ip saddr @own accept
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr @leaving masquerade
  }}
}}
"""
