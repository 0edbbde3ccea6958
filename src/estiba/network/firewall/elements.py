"""What each bridge, port and endpoint puts into the sets and maps of the engine's tables. Pure.

All that ever changes in the tables are these elements: none but `layout` knows the chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from estiba.network.firewall.rules import BridgeRule, EndpointRule, LinkRule, PortRule

INET, BRIDGE = "inet", "bridge"
_LINKS_IN_KEY = {
    "bridges": 1,
    "talking": 2,
    "silent": 2,
    "internal": 1,
    "own": 1,
    "own6": 1,
    "unprotected": 1,
    "unprotected6": 1,
    "apart": 1,
    "links": 1,
    "macs": 1,
    "sources": 1,
    "sources6": 1,
    "targets6": 1,
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element as nftables lists it, in parts; `value` is what a map leads to."""

    family: str
    set: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()

    @property
    def key_text(self) -> str:
        """Names of links are quoted, for they may be any word of the language."""
        quoted = _LINKS_IN_KEY.get(self.set, 0)
        return " . ".join(
            f'"{part}"' if number < quoted else part for number, part in enumerate(self.key)
        )

    def __str__(self) -> str:
        return f"{self.key_text} : {' . '.join(self.value)}" if self.value else self.key_text


def of_bridge(rule: BridgeRule) -> Iterator[Element]:
    yield Element(INET, "bridges", (rule.bridge,))
    yield Element(INET, "talking" if rule.icc else "silent", (rule.bridge, rule.bridge))
    if rule.internal:
        yield Element(INET, "internal", (rule.bridge,))
    for version in rule.unprotected:
        yield Element(INET, f"unprotected{_digit(version)}", (rule.bridge,))
    for subnet in rule.subnets:
        digit = _digit(subnet.version)
        yield Element(INET, f"own{digit}", (rule.bridge, str(subnet)))
        if not rule.masquerade or rule.internal or subnet.version in rule.routed:
            continue
        yield Element(INET, f"leaving{digit}", (str(subnet),))
        for address in rule.snat:
            if address.version == subnet.version:
                yield Element(INET, f"leaving{digit}_as", (str(subnet),), (str(address),))


def of_port(rule: PortRule, *, is_routed: bool) -> Iterator[Element]:
    """The translation, and the key alone: a map cannot be asked whether it holds one.

    `is_routed`: the container's own address is known outside, and the port open there.
    """
    digit = _digit(rule.address.version)
    where = "" if rule.is_anywhere else "_at"
    target = (str(rule.address), str(rule.port))
    yield Element(INET, f"published{digit}{where}", rule.key, target)
    yield Element(INET, f"ports{digit}{where}", rule.key)
    if is_routed:
        inner = (str(rule.address), rule.protocol, str(rule.port))
        yield Element(INET, f"inner{digit}", inner)


def of_link(rule: LinkRule) -> Iterator[Element]:
    key = (str(rule.source), str(rule.target), rule.protocol, str(rule.port))
    for family in INET, BRIDGE:
        yield Element(family, "linked", key)


def of_endpoint(rule: EndpointRule) -> Iterator[Element]:
    if not rule.icc:
        yield Element(BRIDGE, "apart", (rule.link,))
    if not rule.is_guarded:
        return
    yield Element(BRIDGE, "links", (rule.link,))
    yield Element(BRIDGE, "macs", (rule.link, rule.mac.lower()))
    for address in dict.fromkeys((*rule.addresses, link_local(rule.mac))):
        if isinstance(address, IPv6Address):
            yield Element(BRIDGE, "sources6", (rule.link, str(address)))
            yield Element(BRIDGE, "targets6", (rule.link, f"{int(address):#x}"))
        else:
            yield Element(BRIDGE, "sources", (rule.link, str(address)))


def link_local(mac: str) -> IPv6Address:
    """The address that an interface gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def _digit(version: int) -> str:
    return "" if version == 4 else "6"


def change(table: str, gone: Iterable[Element], come: Iterable[Element]) -> str:
    """The commands that lead from the one to the other; what both have stays untouched."""
    before, after = dict.fromkeys(gone), dict.fromkeys(come)
    lines = [
        f"delete element {each.family} {table} {each.set} {{ {each.key_text} }}"
        for each in before
        if each not in after
    ]
    lines += [
        f"add element {each.family} {table} {each.set} {{ {each} }}"
        for each in after
        if each not in before
    ]
    return "\n".join(lines)
