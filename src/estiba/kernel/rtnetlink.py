"""Links as netlink requests (rtnetlink(7)); addresses and routes are in `rtroutes`.

Numbers are those of linux/if_link.h and rtnetlink.h.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from estiba.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
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

IFF_UP = 0x1

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19

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

_LINK = struct.Struct("=BxHiII")
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


def add_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """A bridge that is up. With a MAC of its own it does not change with its ports."""
    body = _link_header(flags=IFF_UP)
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


def add_vlan(name: str, *, parent: int, tag: int) -> Request:
    """A sub-interface for the frames of one VLAN (802.1q), up."""
    data = nested(_IFLA_INFO_DATA, _u16(_IFLA_VLAN_ID, tag))
    return _add_child(name, "vlan", data, parent=parent, flags=IFF_UP)


def add_local_pair(name: str, peer: str) -> Request:
    """A veth pair with both ends here; once both are up, one is a link that leads nowhere."""
    there = _link_header() + text(_IFLA_IFNAME, peer)
    body = _link_header() + text(_IFLA_IFNAME, name)
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
) -> Request:
    body = _link_header(flags=flags) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
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
    alias: str | None = None,
) -> Request:
    """Changes what is given; `master` 0 takes the link out of its bridge.

    The alias is words that stay with the link. The kernel takes none where a link is made.
    """
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
    if alias is not None:
        body += text(_IFLA_IFALIAS, alias)
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


def settle_carrier(handle: NetlinkSocket, *names: str) -> None:
    """Has the kernel act at once on carriers that these links have got; those not there are none.

    It otherwise does so in its own time (`linkwatch`), a tenth of a second and more on a busy
    machine, and meanwhile drops what they send and keeps their ports of a bridge closed. Being
    asked for the link it does it first, from Linux 6.8 on.
    """
    for name in names:
        try:
            get_link(handle, name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise


def list_links(handle: NetlinkSocket, *, counters: bool = False) -> list[Link]:
    body = _link_header()
    if not counters:
        body += u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [
        _parse_link(entry) for entry in handle.dump(Request(_RTM_GETLINK, 0, body, "list links"))
    ]


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


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def _mac(text_form: str) -> bytes:
    return bytes.fromhex(text_form.replace(":", ""))
