"""The drivers macvlan and ipvlan: containers are neighbours of the host on its own network.

A container's link is made in its sandbox and lives there only; the host keeps nothing of it.
Ports are not published: the container's address is known outside.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from estiba.kernel import failpoint, rtnetlink
from estiba.kernel.netlink import NetlinkError, Request
from estiba.kernel.rtnetlink import Counters
from estiba.model.errors import EstibaError, FailedPrecondition, InvalidArgument
from estiba.network import sandbox as inside
from estiba.network.addresses import Addresses, LocalAddresses, with_addresses
from estiba.network.driver import Attachment, new_endpoint
from estiba.network.endpointopts import link_local_addresses, setup_of
from estiba.network.ipam import AddressPool
from estiba.network.links import HostLinks, write_sysctl
from estiba.network.mac import check_mac, random_mac
from estiba.network.parents import (
    IPVLAN,
    MACVLAN,
    OPTION_PARENT,
    Kind,
    check_sharing,
    mode_numbers,
    parse_vlan,
    plan_mode,
    plan_parent,
)
from estiba.network.plan import OPTION_MTU, plan_addresses
from estiba.network.pools import taken_by
from estiba.network.reaper import Reaper
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec, PortRequest

_log = logging.getLogger(__name__)
_MODULES = {"macvlan": "CONFIG_MACVLAN", "ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q"}


class ParentDriver:
    """Implements `driver.Driver` for one kind of link."""

    interface_prefix = "eth"

    def __init__(
        self,
        kind: Kind,
        pools: Sequence[AddressPool],
        owner: str,
        make_addresses: Callable[[NetworkRecord], Addresses] = LocalAddresses,
        reaper: Reaper | None = None,
    ) -> None:
        self._kind = kind
        self._pools = tuple(pools)
        self._make_addresses = make_addresses
        self._reaper = reaper or Reaper()
        self._links = HostLinks(self._reaper, f"estiba {owner} {kind.name}")
        self._addresses: dict[str, Addresses] = {}
        self._parents: dict[str, str] = {}

    # -- networks --------------------------------------------------------------------------

    def plan(
        self, network_id: str, spec: NetworkSpec, created_ns: int, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        """Raises InvalidArgument, Forbidden, or FailedPrecondition for what the kernel lacks."""
        mode = plan_mode(self._kind, spec.options)
        parent = plan_parent(self._kind, network_id, spec)
        self._check_kernel(self._kind.name, f"networks of the driver {self._kind.name}")
        if not self._links.has(parent) and spec.options.get(OPTION_PARENT):
            self._check_vlan(parent)
        record = plan_addresses(
            network_id, spec, created_ns=created_ns, pools=self._pools, taken=taken_by(others)
        )
        record = msgspec.structs.replace(
            record,
            internal=spec.internal or not spec.options.get(OPTION_PARENT),
            mtu=record.mtu if spec.options.get(OPTION_MTU) else 0,
            parent=parent,
            parent_mode=mode,
            owns_parent=not self._links.has(parent),
        )
        check_sharing(record, others)
        return record

    def _check_vlan(self, parent: str) -> None:
        if "." not in parent:
            raise InvalidArgument(f"-o parent interface was not found on the host: {parent}")
        master, _ = parse_vlan(parent)
        if not self._links.has(master):
            raise InvalidArgument(f"failed to find master interface {master} on the host")
        self._check_kernel("vlan", f"the sub-interface {parent}")

    def _check_kernel(self, kind: str, what: str) -> None:
        if not self._links.can_make(kind):
            raise FailedPrecondition(
                f"cannot make {what}: this kernel has no {kind} links; use one that is built with "
                f"{_MODULES[kind]}, and load its module"
            )

    def ensure(self, network: NetworkRecord) -> None:
        if network.owns_parent and not self._links.has(network.parent):
            self._make_parent(network)
        self._parents[network.id] = network.parent
        failpoint.hit("network.parent-made")
        if network.id not in self._addresses:
            self._addresses[network.id] = self._make_addresses(network)

    def _make_parent(self, network: NetworkRecord) -> None:
        if OPTION_PARENT not in network.options:
            peer = f"dp-{network.parent.removeprefix('dm-')}"
            self._links.make(rtnetlink.add_local_pair(network.parent, peer))
            for name in (network.parent, peer):
                write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
                self._links.execute(rtnetlink.set_link(name, up=True))
            # The one end: the other goes with it.
            self._links.execute(rtnetlink.set_link(network.parent, alias=self._links.owner))
            return
        master, tag = parse_vlan(network.parent)
        found = self._links.find(master)
        if found is None:
            raise FailedPrecondition(f"failed to find master interface {master} on the host")
        self._links.make(rtnetlink.add_vlan(network.parent, parent=found.index, tag=tag))
        self._links.execute(rtnetlink.set_link(network.parent, alias=self._links.owner))

    def start(self) -> None:
        self._links.reap_owned(set(self._parents.values()))

    def remove(self, network: NetworkRecord) -> None:
        self._addresses.pop(network.id, None)
        self._parents.pop(network.id, None)
        if network.owns_parent:
            self._links.reap(network.parent)

    def drain(self) -> None:
        self._reaper.drain()

    def close(self, *, delete: bool = False) -> None:
        self._reaper.close()
        self._links.close()

    # -- endpoints -------------------------------------------------------------------------

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        self.ensure(network)
        settings, before = attachment.settings, attachment.before
        mac = ""
        if self._kind is MACVLAN:
            earlier = before.mac_address if before else ""
            mac = check_mac(settings.mac_address) or earlier or random_mac()
        bare = msgspec.structs.replace(
            new_endpoint(network, attachment),
            mac_address=mac,
            link_local_ips=[str(one) for one in link_local_addresses(settings.ipam_config)],
        )
        given = self._addresses[network.id].allocate(bare, settings.ipam_config, before)
        endpoint = with_addresses(bare, network, given)
        setup = setup_of(endpoint, attachment.default_route)
        if network.parent_mode.startswith("l3"):
            # Nobody answers ARP there: the host's own table of routes decides.
            versions = tuple(v for v in attachment.default_route if endpoint.gateway_of(v))
            setup = replace(setup, gateways=(), direct=versions)
        # One of that name or MAC, or the only one in mode passthru, may be on its way out.
        self._reaper.drain()
        try:
            self._make_link(network, endpoint, attachment.sandbox)
            failpoint.hit("network.child-made")
            inside.configure(attachment.sandbox, setup)
        except BaseException as error:
            self.disconnect(endpoint, attachment.sandbox)
            if isinstance(error, NetlinkError) and error.errno == errno.EADDRINUSE:
                raise FailedPrecondition(
                    f"cannot join network {network.name}: the MAC address {endpoint.mac_address} "
                    f"is in use on {network.parent}; give another one with --mac-address"
                ) from error
            raise
        return endpoint

    def _make_link(self, network: NetworkRecord, endpoint: Endpoint, sandbox: Path) -> None:
        parent = self._links.find(network.parent)
        if parent is None:
            raise FailedPrecondition(
                f"parent interface {network.parent} of network {network.name} is not there: "
                "bring it back, or remove the network"
            )
        namespace = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
        request = self._request(network, endpoint, parent.index, namespace)
        try:
            self._links.execute(request)
        except NetlinkError as error:
            raise self._refusal(network, error) from error
        finally:
            os.close(namespace)

    def _request(
        self, network: NetworkRecord, endpoint: Endpoint, parent: int, namespace: int
    ) -> Request:
        mode, flag = mode_numbers(self._kind, network.parent_mode)
        name, mtu = endpoint.interface, network.mtu
        if self._kind is IPVLAN:
            return rtnetlink.add_ipvlan(
                name, parent=parent, mode=mode, flags=flag, mtu=mtu, netns_fd=namespace
            )
        return rtnetlink.add_macvlan(
            name,
            parent=parent,
            mode=mode,
            mac=endpoint.mac_address,
            mtu=mtu,
            netns_fd=namespace,
        )

    def _refusal(self, network: NetworkRecord, error: NetlinkError) -> EstibaError:
        hint = ""
        if error.errno == errno.EEXIST:
            hint = ": the container has an interface of that name that is not the engine's"
        elif network.parent_mode == "passthru" and error.errno == errno.EINVAL:
            hint = ": in mode passthru a network has room for one container"
        elif error.errno == errno.EBUSY:
            hint = ": another program has made it a port or a parent of another kind"
        return FailedPrecondition(
            f"cannot join network {network.name} by its parent {network.parent}: "
            f"{error.strerror}{hint}"
        )

    def disconnect(self, endpoint: Endpoint, sandbox: Path) -> None:
        name = endpoint.interface
        # In the background, for the kernel takes 20 ms. A namespace that is closed before keeps
        # the MAC and the place on the parent taken until the kernel gets around to it.
        handle = inside.open_handle(sandbox)
        if handle is not None:
            self._reaper.then(lambda: inside.remove_interface(handle, name, self._kind.name))
        failpoint.hit("network.child-removed")
        addresses = self._addresses.get(endpoint.network_id)
        if addresses is not None:
            addresses.release(endpoint.id)

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        return endpoint

    def renamed(self, endpoint: Endpoint) -> None:
        addresses = self._addresses.get(endpoint.network_id)
        if addresses is not None:
            addresses.rename(endpoint.id, endpoint.container_name)

    def adopt(self, endpoints: list[Endpoint]) -> None:
        for endpoint in endpoints:
            addresses = self._addresses.get(endpoint.network_id)
            if addresses is None:
                continue
            try:
                addresses.adopt(endpoint)
            except EstibaError as error:
                _log.warning("address of container %s: %s", endpoint.container_name, error)

    def counters(self, endpoint: Endpoint, sandbox: Path) -> Counters | None:
        return inside.counters(sandbox, endpoint.interface)

    def sweep(self, endpoints: Iterable[Endpoint]) -> None:
        """Links go with their sandbox."""
