"""Addresses and routes as netlink requests (rtnetlink(7)); links are in `rtnetlink`.

Numbers are those of linux/if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from estiba.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    parse_attributes,
    text,
    u32,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 5, 6, 7, 8
_RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 9, 18, 30
_RTAX_CC_ALGO = 16
_KERNEL_PRIORITY6 = 256
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RTPROT_BOOT, _RTN_UNICAST = 254, 2, 3, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RT_TABLE_LOCAL, _RTN_LOCAL = 255, 2

_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; `index` of its interface is 0 where it has none or several."""

    index: int
    network: Network
    has_gateway: bool


def add_address(index: int, address: Interface) -> Request:
    """An address that exists already is no error."""
    packed = address.ip.packed
    flags = 0 if address.version == 4 else _IFA_F_NODAD
    body = _ADDRESS.pack(_family(address), address.network.prefixlen, flags, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if address.version == 4 and address.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return Request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {address}")


def delete_address(index: int, address: Interface) -> Request:
    body = _ADDRESS.pack(_family(address), address.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.ip.packed)
    return Request(_RTM_DELADDR, 0, body, f"delete address {address}")


def set_default_route(index: int, gateway: Address) -> Request:
    """Makes `gateway` the default route, instead of another one."""
    body = _ROUTE.pack(
        _family(gateway), 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    )
    body += attribute(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index)
    return Request(
        _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"set default route via {gateway}"
    )


def add_route(index: int, destination: Network, gateway: Address | None) -> Request:
    """By a gateway, or without one to neighbours on the link itself."""
    scope = _RT_SCOPE_UNIVERSE if gateway or destination.version == 6 else _RT_SCOPE_LINK
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    header = (destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    body = _ROUTE.pack(family, *header)
    body += attribute(_RTA_DST, destination.network_address.packed) + u32(_RTA_OIF, index)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    return Request(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"add route {destination}")


def set_congestion_control(index: int, address: Interface, algorithm: str) -> Request:
    """For TCP to the neighbours of `address`, by the route that the kernel made for them when its
    link came up. A program may choose otherwise for its socket."""
    network = address.network
    scope = _RT_SCOPE_LINK if address.version == 4 else _RT_SCOPE_UNIVERSE
    header = (network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_KERNEL, scope, _RTN_UNICAST, 0)
    body = _ROUTE.pack(_family(address), *header)
    body += attribute(_RTA_DST, network.network_address.packed) + u32(_RTA_OIF, index)
    if address.version == 4:
        body += attribute(_RTA_PREFSRC, address.ip.packed)
    else:
        body += u32(_RTA_PRIORITY, _KERNEL_PRIORITY6)
    body += nested(_RTA_METRICS, text(_RTAX_CC_ALGO, algorithm))
    what = f"set congestion control to {network}"
    return Request(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def add_local_route(index: int, address: Address) -> Request:
    """Packets to `address` are for the host itself, although no link bears it."""
    body = _local_route(index, address)
    return Request(
        _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"add local route to {address}"
    )


def delete_local_route(index: int, address: Address) -> Request:
    body = _local_route(index, address)
    return Request(_RTM_DELROUTE, 0, body, f"delete local route to {address}")


def _local_route(index: int, address: Address) -> bytes:
    length = address.max_prefixlen
    header = (length, 0, 0, _RT_TABLE_LOCAL, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_LOCAL, 0)
    body = _ROUTE.pack(_family(address), *header)
    return body + attribute(_RTA_DST, address.packed) + u32(_RTA_OIF, index)


def set_direct_route(index: int, version: int) -> Request:
    """Makes the link itself the default route of a family: all the world is on it."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = _RT_SCOPE_LINK if version == 4 else _RT_SCOPE_UNIVERSE
    body = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    return Request(
        _RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        body + u32(_RTA_OIF, index),
        f"set default route of IPv{version} by link {index}",
    )


def list_addresses(handle: NetlinkSocket) -> list[tuple[int, Interface]]:
    """Interface index and address, of both families."""
    found: list[tuple[int, Interface]] = []
    for entry in handle.dump(Request(_RTM_GETADDR, 0, _ADDRESS.pack(0, 0, 0, 0, 0), "list addr")):
        _, prefix, _, _, index = _ADDRESS.unpack_from(entry)
        attributes = parse_attributes(entry, _ADDRESS.size)
        packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
        found.append((index, ipaddress.ip_interface((packed, prefix))))
    return found


def list_routes(handle: NetlinkSocket) -> list[Route]:
    """All routes of the main table, of both families."""
    found: list[Route] = []
    for entry in handle.dump(Request(_RTM_GETROUTE, 0, _ROUTE.pack(*[0] * 9), "list routes")):
        family, length, _, _, table, *_ = _ROUTE.unpack_from(entry)
        if family not in (socket.AF_INET, socket.AF_INET6) or table != _RT_TABLE_MAIN:
            continue
        attributes = parse_attributes(entry, _ROUTE.size)
        packed = attributes.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
        index = int.from_bytes(attributes.get(_RTA_OIF, b""), "little")
        onward = bool({_RTA_GATEWAY, _RTA_VIA, _RTA_MULTIPATH, _RTA_NH_ID} & attributes.keys())
        found.append(Route(index, ipaddress.ip_network((packed, length)), onward))
    return found


def _family(address: Interface | Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
