"""Elements as the kernel keeps them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from estiba.kernel.nfelements import ElementChange
from estiba.network.firewall.elements import Element

MAX_BATCH = 100
"""More elements than that go by libnftables: there is room for so many answers."""

_LINK_BYTES = 16
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_PACK: dict[str, Callable[[str], bytes]] = {
    "link": lambda text: text.encode().ljust(_LINK_BYTES, b"\0"),
    "mac": lambda text: bytes.fromhex(text.replace(":", "")),
    "ipv4": lambda text: IPv4Address(text).packed,
    "ipv6": lambda text: IPv6Address(text).packed,
    "protocol": lambda text: bytes([_PROTOCOLS[text]]),
    "port": lambda text: struct.pack("!H", int(text)),
    "target": lambda text: int(text, 16).to_bytes(16, "big"),
}
_KEYS = {
    "bridges": "link",
    "talking": "link link",
    "silent": "link link",
    "internal": "link",
    "unprotected": "link",
    "unprotected6": "link",
    "published": "protocol port",
    "published_at": "ipv4 protocol port",
    "published6": "protocol port",
    "published6_at": "ipv6 protocol port",
    "ports": "protocol port",
    "ports_at": "ipv4 protocol port",
    "ports6": "protocol port",
    "ports6_at": "ipv6 protocol port",
    "linked": "ipv4 ipv4 protocol port",
    "inner": "ipv4 protocol port",
    "inner6": "ipv6 protocol port",
    "apart": "link",
    "links": "link",
    "macs": "link mac",
    "sources": "link ipv4",
    "sources6": "link ipv6",
    "targets6": "link target",
}
_VALUES = {
    "published": "ipv4 port",
    "published_at": "ipv4 port",
    "published6": "ipv6 port",
    "published6_at": "ipv6 port",
    "leaving_as": "ipv4",
    "leaving6_as": "ipv6",
}
_SUBNETS = ("leaving", "leaving6", "leaving_as", "leaving6_as")
_LINKS_WITH_SUBNET = ("own", "own6")


def changes(
    table: str, gone: Iterable[Element], come: Iterable[Element]
) -> list[ElementChange] | None:
    """What `elements.change` says in words, or None for more than fits."""
    before, after = dict.fromkeys(gone), dict.fromkeys(come)
    found = [(False, each) for each in before if each not in after]
    found += [(True, each) for each in after if each not in before]
    if len(found) > MAX_BATCH:
        return None
    return [change for is_new, each in found for change in _changes(table, each, is_new)]


def _changes(table: str, element: Element, is_new: bool) -> Iterator[ElementChange]:
    def change(key: bytes, **more: Any) -> ElementChange:
        return ElementChange(is_new, element.family, table, element.set, key, **more)

    value = _pack(_VALUES[element.set], element.value) if element.value else b""
    if element.set in _SUBNETS:
        subnet = ip_network(element.key[0])
        yield change(subnet.network_address.packed, value=value)
        beyond = int(subnet.broadcast_address) + 1
        if beyond < 1 << subnet.max_prefixlen:
            yield change(beyond.to_bytes(subnet.max_prefixlen // 8, "big"), ends=True)
    elif element.set in _LINKS_WITH_SUBNET:
        subnet = ip_network(element.key[1])
        link = _PACK["link"](element.key[0])
        last = link + subnet.broadcast_address.packed
        yield change(link + subnet.network_address.packed, key_end=last)
    else:
        yield change(_pack(_KEYS[element.set], element.key), value=value)


def _pack(kinds: str, parts: tuple[str, ...]) -> bytes:
    """Each part of a concatenation begins at a multiple of four."""
    packed = [_PACK[kind](part) for kind, part in zip(kinds.split(), parts, strict=True)]
    if len(packed) == 1:
        return packed[0]
    return b"".join(part + b"\0" * (-len(part) % 4) for part in packed)
