"""Links, addresses and routes as netlink requests (rtnetlink(7)); sends nothing by itself.

Numbers are those of linux/if_link.h, if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from estiba.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    parse_attributes,
    text,
    u8,
    u32,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IFF_UP = 0x1

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_STATS64 = 18, 20, 23
_IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 27, 28, 29
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 4, 5
_VETH_INFO_PEER = 1
_IFLA_MACVLAN_MODE, _IFLA_VLAN_ID = 1, 1
_IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS = 1, 2
_IFLA_BRPORT_MODE, _IFLA_BRPORT_LEARNING, _IFLA_BRPORT_ISOLATED = 4, 8, 33
_IFLA_BRPORT_GROUP_FWD_MASK = 31
_RESERVED_GROUPS = 0xFFFD
"""01:80:c2:00:00:00 to 0f without that of pauses, which the kernel drops."""

_RTEXT_FILTER_SKIP_STATS = 8

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 9, 18, 30
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RT_TABLE_LOCAL, _RTN_LOCAL = 255, 2

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_STATS64 = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Counters:
    """The first eight of rtnl_link_stats64, in its order."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; `index` of its interface is 0 where it has none or several."""

    index: int
    network: Network
    has_gateway: bool


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface; `master` is the index of the bridge that it is a port of."""

    index: int
    name: str
    kind: str
    master: int
    mac: str
    mtu: int
    flags: int
    counters: Counters | None
    alias: str = ""

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)


def add_bridge(name: str, *, mac: str, mtu: int, alias: str = "") -> Request:
    """A bridge that is up. With a MAC of its own it does not change with its ports.

    The alias is words that stay with the link.
    """
    body = _link_header(flags=IFF_UP) + (text(_IFLA_IFALIAS, alias) if alias else b"")
    body += text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, _mac(mac)) + u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add bridge {name}")


def add_veth(
    name: str, *, master: int, mtu: int, peer: str, peer_mac: str, peer_netns_fd: int
) -> Request:
    """A pair whose first end is a port of bridge `master` and whose peer lives elsewhere.

    The peer is made in its namespace, so that its name never clashes with the host's.
    """
    there = _link_header() + text(_IFLA_IFNAME, peer) + attribute(_IFLA_ADDRESS, _mac(peer_mac))
    there += u32(_IFLA_MTU, mtu) + u32(_IFLA_NET_NS_FD, peer_netns_fd)
    body = _link_header() + text(_IFLA_IFNAME, name)
    body += u32(_IFLA_MTU, mtu) + u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, there)),
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name}")


def add_macvlan(name: str, *, parent: int, mode: int, mac: str, mtu: int, netns_fd: int) -> Request:
    """A macvlan link over `parent`, of this namespace, made in the namespace of `netns_fd`.

    An MTU of 0 is that of the parent.
    """
    data = nested(_IFLA_INFO_DATA, u32(_IFLA_MACVLAN_MODE, mode))
    return _add_child(name, "macvlan", data, parent=parent, mac=mac, mtu=mtu, netns_fd=netns_fd)


def add_ipvlan(
    name: str, *, parent: int, mode: int, flags: int, mtu: int, netns_fd: int
) -> Request:
    """An ipvlan link over `parent`, whose MAC it shares, made as `add_macvlan` does."""
    data = nested(_IFLA_INFO_DATA, _u16(_IFLA_IPVLAN_MODE, mode), _u16(_IFLA_IPVLAN_FLAGS, flags))
    return _add_child(name, "ipvlan", data, parent=parent, mac="", mtu=mtu, netns_fd=netns_fd)


def add_vlan(name: str, *, parent: int, tag: int, alias: str = "") -> Request:
    """A sub-interface for the frames of one VLAN (802.1q), up."""
    data = nested(_IFLA_INFO_DATA, _u16(_IFLA_VLAN_ID, tag))
    return _add_child(name, "vlan", data, parent=parent, flags=IFF_UP, alias=alias)


def add_local_pair(name: str, peer: str, *, alias: str = "") -> Request:
    """A veth pair with both ends here; once both are up, one is a link that leads nowhere."""
    there = _link_header() + text(_IFLA_IFNAME, peer)
    body = _link_header() + text(_IFLA_IFNAME, name)
    body += text(_IFLA_IFALIAS, alias) if alias else b""
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, there)),
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name}")


def _add_child(
    name: str,
    kind: str,
    data: bytes,
    *,
    parent: int,
    flags: int = 0,
    mac: str = "",
    mtu: int = 0,
    netns_fd: int | None = None,
    alias: str = "",
) -> Request:
    body = _link_header(flags=flags) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    if alias:
        body += text(_IFLA_IFALIAS, alias)
    if mac:
        body += attribute(_IFLA_ADDRESS, _mac(mac))
    if mtu:
        body += u32(_IFLA_MTU, mtu)
    if netns_fd is not None:
        body += u32(_IFLA_NET_NS_FD, netns_fd)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), data)
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add {kind} {name}")


def set_link(
    name: str,
    *,
    up: bool | None = None,
    master: int | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    netns_fd: int | None = None,
) -> Request:
    """Changes what is given; `master` 0 takes the link out of its bridge."""
    flags, change = (IFF_UP if up else 0), (0 if up is None else IFF_UP)
    body = _link_header(flags=flags, change=change) + text(_IFLA_IFNAME, name)
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, _mac(mac))
    if mtu is not None:
        body += u32(_IFLA_MTU, mtu)
    if netns_fd is not None:
        body += u32(_IFLA_NET_NS_FD, netns_fd)
    return Request(_RTM_SETLINK, 0, body, f"set link {name}")


def move_link(index: int, *, netns_fd: int, name: str) -> Request:
    """Into another namespace, down, with the name that it is to have there."""
    body = _link_header(index=index, flags=0, change=IFF_UP)
    body += u32(_IFLA_NET_NS_FD, netns_fd) + text(_IFLA_IFNAME, name)
    return Request(_RTM_SETLINK, 0, body, f"move link {index} as {name}")


def set_bridge_port(
    name: str, *, up: bool = True, isolated: bool = False, hairpin: bool = False
) -> Request:
    """Sets a port's flags. An isolated port reaches the bridge but no other isolated port.

    A hairpin port gets frames back that it sent. Frames to reserved groups (802.1D) go the way of
    all others: else the bridge learns their source and hands them to the host past every filter.
    """
    body = _link_header(flags=IFF_UP if up else 0, change=IFF_UP) + text(_IFLA_IFNAME, name)
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_SLAVE_KIND, "bridge"),
        nested(
            _IFLA_INFO_SLAVE_DATA,
            u8(_IFLA_BRPORT_MODE, hairpin),
            u8(_IFLA_BRPORT_LEARNING, 1),
            _u16(_IFLA_BRPORT_GROUP_FWD_MASK, _RESERVED_GROUPS),
            u8(_IFLA_BRPORT_ISOLATED, isolated),
        ),
    )
    return Request(_RTM_NEWLINK, 0, body, f"set bridge port {name}")


def delete_link(link: str | int) -> Request:
    """By name, or by index, which unlike a name is not given to another link soon."""
    if isinstance(link, int):
        return Request(_RTM_DELLINK, 0, _link_header(index=link), f"delete link {link}")
    body = _link_header() + text(_IFLA_IFNAME, link)
    return Request(_RTM_DELLINK, 0, body, f"delete link {link}")


def set_link_group(index: int, group: int) -> Request:
    """Puts a link into a group: a number, by which many can be deleted at once."""
    body = _link_header(index=index) + u32(_IFLA_GROUP, group)
    return Request(_RTM_SETLINK, 0, body, f"set group of link {index}")


def delete_link_group(group: int) -> Request:
    """ENODEV when there is no link in it."""
    return Request(
        _RTM_DELLINK, 0, _link_header() + u32(_IFLA_GROUP, group), f"delete links of group {group}"
    )


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


def has_kind(handle: NetlinkSocket, kind: str) -> bool:
    """Whether the kernel can make links of a kind that needs a parent, `macvlan` for example.

    It is asked for one without a parent, which it refuses as invalid if it knows the kind, and
    loads the module for it first.
    """
    body = _link_header() + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    try:
        handle.execute(Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"probe {kind}"))
    except NetlinkError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def get_link(handle: NetlinkSocket, name: str) -> Link:
    """Raises NetlinkError with ENODEV when there is none of that name."""
    body = _link_header() + text(_IFLA_IFNAME, name)
    return _parse_link(handle.query(Request(_RTM_GETLINK, 0, body, f"get link {name}")))


def list_links(handle: NetlinkSocket, *, counters: bool = False) -> list[Link]:
    body = _link_header()
    if not counters:
        body += u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [
        _parse_link(entry) for entry in handle.dump(Request(_RTM_GETLINK, 0, body, "list links"))
    ]


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


def _link_header(*, flags: int = 0, change: int | None = None, index: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, flags, flags if change is None else change)


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = parse_attributes(body, _LINK.size)
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))
    stats = attributes.get(_IFLA_STATS64)
    return Link(
        index=index,
        name=attributes[_IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        master=int.from_bytes(attributes.get(_IFLA_MASTER, b""), "little"),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(attributes.get(_IFLA_MTU, b""), "little"),
        flags=flags,
        counters=Counters(*_STATS64.unpack_from(stats)) if stats else None,
        alias=attributes.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _family(address: Interface | Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def _mac(text_form: str) -> bytes:
    return bytes.fromhex(text_form.replace(":", ""))
