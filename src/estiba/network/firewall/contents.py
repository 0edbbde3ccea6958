"""What the engine's tables are to hold: the firewall's memory, of which the kernel has a copy.

Every method says which elements go and which come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from estiba.network.firewall.elements import Element, of_bridge, of_endpoint, of_link, of_port
from estiba.network.firewall.rules import BridgeRule, EndpointRule, LinkRule, PortRule

Change = tuple[list[Element], list[Element]]
_Key = tuple[int, tuple[str, ...]]


@dataclass(slots=True)
class Contents:
    """All bridges, endpoints and ports of an engine. Guarded by the firewall's lock."""

    bridges: dict[str, BridgeRule] = field(default_factory=dict)
    endpoints: dict[str, EndpointRule] = field(default_factory=dict)
    ports: dict[_Key, PortRule] = field(default_factory=dict)
    links: dict[str, tuple[LinkRule, ...]] = field(default_factory=dict)
    """By the container that reaches others."""

    def put_bridge(self, rule: BridgeRule) -> Change:
        old = self.bridges.get(rule.bridge)
        self.bridges[rule.bridge] = rule
        return list(of_bridge(old)) if old else [], list(of_bridge(rule))

    def drop_bridge(self, bridge: str) -> Change:
        old = self.bridges.pop(bridge, None)
        return list(of_bridge(old)) if old else [], []

    def put_endpoint(self, rule: EndpointRule) -> Change:
        old = self.endpoints.get(rule.link)
        self.endpoints[rule.link] = rule
        return list(of_endpoint(old)) if old else [], list(of_endpoint(rule))

    def drop_endpoint(self, link: str) -> Change:
        old = self.endpoints.pop(link, None)
        return list(of_endpoint(old)) if old else [], []

    def put_links(self, container_id: str, rules: Iterable[LinkRule]) -> Change:
        """In place of those that the container had. Its address is no other's."""
        old = self.links.pop(container_id, ())
        new = tuple(dict.fromkeys(rules))
        if new:
            self.links[container_id] = new
        return _of_links(old), _of_links(new)

    def drop_links_of(self, address: str) -> Change:
        """Those from and to an address that the next container may get."""
        gone: list[Element] = []
        for container_id, rules in list(self.links.items()):
            ends = [rule for rule in rules if address in (str(rule.source), str(rule.target))]
            if ends:
                gone += _of_links(ends)
                self.links[container_id] = tuple(rule for rule in rules if rule not in ends)
        return gone, []

    def put_ports(self, rules: Iterable[PortRule]) -> Change:
        gone: list[Element] = []
        come: list[Element] = []
        for rule in rules:
            old = self.ports.get(_key(rule))
            gone += self._of_port(old) if old else ()
            come += self._of_port(rule)
            self.ports[_key(rule)] = rule
        return gone, come

    def drop_ports(self, rules: Iterable[PortRule]) -> Change:
        """A port that belongs to another container by now stays."""
        gone: list[Element] = []
        for rule in rules:
            if self.ports.get(_key(rule)) == rule:
                del self.ports[_key(rule)]
                gone += self._of_port(rule)
        return gone, []

    def _of_port(self, rule: PortRule) -> list[Element]:
        version = rule.address.version
        is_routed = any(
            version in bridge.routed and any(rule.address in subnet for subnet in bridge.subnets)
            for bridge in self.bridges.values()
            if bridge.routed
        )
        return list(of_port(rule, is_routed=is_routed))

    def elements(self) -> dict[tuple[str, str], list[Element]]:
        """All of them, by family and set."""
        found: dict[tuple[str, str], list[Element]] = {}
        for bridge in self.bridges.values():
            _sort(of_bridge(bridge), found)
        for endpoint in self.endpoints.values():
            _sort(of_endpoint(endpoint), found)
        for port in self.ports.values():
            _sort(self._of_port(port), found)
        for rules in self.links.values():
            _sort(_of_links(rules), found)
        return found


def _of_links(rules: Iterable[LinkRule]) -> list[Element]:
    return [element for rule in rules for element in of_link(rule)]


def _key(rule: PortRule) -> _Key:
    return rule.address.version, rule.key


def _sort(elements: Iterable[Element], found: dict[tuple[str, str], list[Element]]) -> None:
    for element in elements:
        found.setdefault((element.family, element.set), []).append(element)
