"""Bridges and veth pairs of the host: made, found, mended, deleted.

A pair is made with its peer in the container's namespace and its own end on the bridge in one
request, so that a pair on one of the engine's bridges is always an endpoint's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkError, NetlinkSocket, Request
from estiba.kernel.rtnetlink import Counters, Link
from estiba.kernel.rtroutes import Interface
from estiba.model.errors import Conflict, FailedPrecondition
from estiba.network.ipam import Taken
from estiba.network.mac import random_mac
from estiba.network.reaper import Reaper
from estiba.network.record import LINK_PREFIX, Endpoint, NetworkRecord

_BRIDGED_IS_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_HAS_IPV6 = Path("/proc/sys/net/ipv6")
_TRIES = 3


class HostLinks:
    """The links of the host's namespace, by one socket; methods may be called from any thread.

    What is made here for a network has `owner` as its alias: by that a link is recognised whose
    engine died before it was deleted. A link that the reaper is about to delete is not there
    any more for whoever asks.
    """

    def __init__(self, reaper: Reaper, owner: str) -> None:
        self._host = NetlinkSocket()
        self._reaper = reaper
        self.owner = owner

    def close(self) -> None:
        self._host.close()

    def execute(self, *requests: Request) -> None:
        self._host.execute(*requests)

    def settle_carrier(self, *names: str) -> None:
        rtnetlink.settle_carrier(self._host, *names)

    def find(self, name: str) -> Link | None:
        try:
            link = rtnetlink.get_link(self._host, name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        return None if link.index in self._reaper.doomed else link

    def make(self, request: Request) -> None:
        """Makes a link whose name nobody has, but for one that is being deleted."""
        try:
            self.execute(request)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            self._reaper.drain()
            self.execute(request)

    def has(self, name: str) -> bool:
        return self.find(name) is not None

    def is_foreign(self, name: str) -> bool:
        """Whether a link is there that this owner did not make."""
        link = self.find(name)
        return link is not None and link.alias != self.owner

    def can_make(self, kind: str) -> bool:
        """Whether the kernel has links of that kind."""
        return rtnetlink.has_kind(self._host, kind)

    def addresses_of(self, name: str) -> list[Interface]:
        """None for a link that is not there."""
        link = self.find(name)
        index = link.index if link else -1
        return [a for i, a in rtroutes.list_addresses(self._host) if i == index]

    def host_networks(self, *, but: str = "") -> list[Taken]:
        """What the host has addresses of or routes to, leaving out the link `but`.

        Routes through a gateway are only avoided: a subnet may be a piece of one.
        """
        own = self.find(but) if but else None
        left_out = self._reaper.doomed | ({own.index} if own else set())
        taken = [
            Taken(address.network, f"address of {_name(link)}")
            for link, address in rtroutes.list_addresses(self._host)
            if link not in left_out
        ]
        for route in rtroutes.list_routes(self._host):
            if route.index not in left_out and route.network.prefixlen:
                by = f"route by {_name(route.index)}" if route.index else "route of the host"
                taken.append(Taken(route.network, by, avoided=route.has_gateway))
        return taken

    # -- bridges ---------------------------------------------------------------------------

    def ensure_bridge(self, network: NetworkRecord, addresses: Collection[Interface]) -> Link:
        """The bridge of a network, up, with these addresses; of its own no others stay.

        Raises FailedPrecondition when its name is another kind of link's.
        """
        name = network.bridge
        if network.ipv6 and not _HAS_IPV6.exists():
            raise FailedPrecondition(
                f"cannot make network {network.name}: this host has no IPv6: boot without "
                "ipv6.disable=1, or leave out --ipv6"
            )
        link = self.find(name)
        if link is None:
            self.make(rtnetlink.add_bridge(name, mac=random_mac(), mtu=network.mtu))
            link = rtnetlink.get_link(self._host, name)
        elif link.kind != "bridge":
            raise FailedPrecondition(
                f"{name} is a {link.kind or 'physical'} interface and no bridge: "
                "choose another name"
            )
        _configure_bridge(network)
        requests = [rtroutes.add_address(link.index, address) for address in addresses]
        alias = self.owner if network.owns_bridge else None
        self.execute(*requests, rtnetlink.set_link(name, up=True, alias=alias))
        if network.owns_bridge:
            self._drop_other_addresses(link.index, addresses)
        return link

    def _drop_other_addresses(self, index: int, kept: Collection[Interface]) -> None:
        """What earlier flags left on a bridge of ours."""
        for link, address in rtroutes.list_addresses(self._host):
            if link == index and address not in kept and not address.ip.is_link_local:
                self.execute(rtroutes.delete_address(index, address))

    def reap_owned(self, but: Collection[str]) -> None:
        """Deletes what this owner has made for networks that are no more."""
        for link in rtnetlink.list_links(self._host):
            if link.alias == self.owner and link.name not in but:
                self._reaper.delete_link(link.index)

    # -- pairs -----------------------------------------------------------------------------

    def add_pair(
        self, network: NetworkRecord, bridge: int, endpoint: Endpoint, sandbox: Path
    ) -> None:
        """A pair from the bridge of that index into the sandbox.

        Raises NetlinkError with ENODEV when the bridge is gone, Conflict when the sandbox has
        another interface of that name.
        """
        name = endpoint.host_interface
        namespace = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
        pair = rtnetlink.add_veth(
            name,
            master=bridge,
            mtu=network.mtu,
            peer=endpoint.interface,
            peer_mac=endpoint.mac_address,
            peer_netns_fd=namespace,
        )
        try:
            for attempt in range(_TRIES):
                try:
                    self.execute(pair, _port(name))
                    return
                except NetlinkError as error:
                    # The kernel is asked for the port too when there is no pair.
                    if error.errno != errno.EEXIST:
                        raise
                    if attempt == _TRIES - 1:
                        raise Conflict(
                            f"container {endpoint.container_name} has an interface "
                            f"{endpoint.interface} that is not the engine's: remove it, or choose "
                            "another name"
                        ) from error
                    # What a crash left, or what the reaper has not got to yet: here or inside.
                    self._delete(name)
                    self._reaper.drain()
        finally:
            os.close(namespace)

    def reattach(self, bridge: int, endpoints: Iterable[Endpoint]) -> None:
        """Puts pairs back on their bridge, which somebody has taken away, and sets up its ports."""
        for endpoint in endpoints:
            link = self.find(endpoint.host_interface)
            if link is not None:
                if link.master != bridge:
                    self.execute(rtnetlink.set_link(link.name, master=bridge))
                self.execute(_port(link.name))

    def reap(self, name: str) -> None:
        """Deletes a link in the background; one that is gone is no error."""
        # Unlike a request by netlink this does not wait while the kernel deletes another link.
        with contextlib.suppress(OSError):
            self._reaper.delete_link(socket.if_nametoindex(name))

    def reap_pairs(self, bridges: Collection[int], but: Collection[str]) -> None:
        """Deletes the pairs on these bridges except those named."""
        for link in rtnetlink.list_links(self._host):
            ours = link.master in bridges and link.name.startswith(LINK_PREFIX)
            if ours and link.name not in but:
                self._reaper.delete_link(link.index)

    def peer_counters(self, name: str) -> Counters | None:
        """Traffic of the container's end: that of the host's end, seen from the other side."""
        link = self.find(name)
        if link is None or link.counters is None:
            return None
        there = link.counters
        return Counters(
            rx_packets=there.tx_packets,
            tx_packets=there.rx_packets,
            rx_bytes=there.tx_bytes,
            tx_bytes=there.rx_bytes,
            rx_errors=there.tx_errors,
            tx_errors=there.rx_errors,
            rx_dropped=there.tx_dropped,
            tx_dropped=there.rx_dropped,
        )

    def _delete(self, name: str) -> None:
        try:
            self.execute(rtnetlink.delete_link(name))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise


def enable_forwarding(*, ipv6: bool) -> None:
    """Lets the host pass packets on, as dockerd does.

    A host that forwards IPv6 ignores router advertisements, and with them would lose its own
    default route: interfaces that listened to them go on doing so (accept_ra 2).
    """
    if not ipv6:
        write_sysctl("net/ipv4/ip_forward", "1")
        return
    root = Path("/proc/sys/net/ipv6/conf")
    forwarding = root / "all/forwarding"
    if not forwarding.exists() or forwarding.read_text().strip() == "1":
        return
    for setting in root.glob("*/accept_ra"):
        if setting.parent.name in ("all", "default"):
            # Links that others make later, perhaps for guests, are theirs to decide on.
            continue
        # Links come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if setting.read_text().strip() == "1":
                setting.write_text("2")
    forwarding.write_text("1")


def write_sysctl(name: str, value: str) -> None:
    """Where the kernel has that setting, and it is not so already."""
    path = Path("/proc/sys", name)
    if path.exists() and path.read_text().strip() != value:
        path.write_text(value)


def _configure_bridge(network: NetworkRecord) -> None:
    name = network.bridge
    # Programs of the host reach published ports at 127.0.0.1 too.
    write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
    # Advertisements on it come from containers.
    write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    write_sysctl(f"net/ipv6/conf/{name}/accept_redirects", "0")
    if network.owns_bridge or network.ipv6:
        write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if network.ipv6 else "1")


def _port(name: str) -> Request:
    return rtnetlink.set_bridge_port(name, hairpin=bridged_is_filtered())


def bridged_is_filtered() -> bool:
    """Whether br_netfilter shows bridged packets to NAT: a container that reaches itself by a
    published port then gets its own frame back, which only a hairpin port does.
    """
    return _BRIDGED_IS_FILTERED.exists() and _BRIDGED_IS_FILTERED.read_text().strip() == "1"


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"link {index}"
