"""The bridge driver: a Linux bridge with a veth pair for each container, behind NAT.

A pair is made with its peer in the container's namespace and its own end on the bridge in one
request, so that a pair on one of the engine's bridges is always an endpoint's.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import msgspec

from estiba.kernel import failpoint, rtnetlink
from estiba.kernel.netlink import NetlinkError, NetlinkSocket
from estiba.model.container import PortBinding
from estiba.model.errors import Conflict, EstibaError, FailedPrecondition, InvalidArgument
from estiba.network import sandbox
from estiba.network.driver import Attachment
from estiba.network.firewall.rules import BridgeRule, EndpointRule, PortRule
from estiba.network.firewall.table import Firewall
from estiba.network.hostports import HeldPort, PortHolder, bindings_of, requests_of
from estiba.network.ipam import AddressPool, Allocator
from estiba.network.mac import check_mac, random_mac
from estiba.network.plan import parse_subnet, plan_bridge
from estiba.network.reaper import Reaper
from estiba.network.record import (
    LINK_PREFIX,
    Endpoint,
    NetworkRecord,
    NetworkSpec,
    PortRequest,
    endpoint_id,
    link_name,
)

_log = logging.getLogger(__name__)

_BRIDGED_IS_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_TRIES = 3


@dataclass(slots=True)
class _Live:
    """A network that `ensure` has made."""

    record: NetworkRecord
    index: int
    subnet: IPv4Network
    gateway: IPv4Address
    allocator: Allocator
    rule: BridgeRule = field(init=False)

    def __post_init__(self) -> None:
        self.rule = BridgeRule(
            bridge=self.record.bridge,
            subnets=(self.subnet,),
            icc=self.record.icc,
            masquerade=self.record.masquerade,
            internal=self.record.internal,
        )


class BridgeDriver:
    """Implements `driver.Driver`. Networks differ; the host's links, ports and table are one."""

    def __init__(self, *, table: str, pools: tuple[AddressPool, ...]) -> None:
        self._pools = pools
        self._host = NetlinkSocket()
        self._reaper = Reaper()
        self._ports = PortHolder()
        self.firewall = Firewall(table)
        self._live: dict[str, _Live] = {}

    # -- networks --------------------------------------------------------------------------

    def plan(self, network_id: str, spec: NetworkSpec, created_ns: int) -> NetworkRecord:
        record = plan_bridge(
            network_id, spec, created_ns=created_ns, pools=self._pools, taken=self.taken_subnets()
        )
        for live in self._live.values():
            if live.record.bridge == record.bridge:
                raise Conflict(
                    f"bridge {record.bridge} is already in use by network {live.record.name}"
                )
        return msgspec.structs.replace(record, owns_bridge=not self.has_link(record.bridge))

    def taken_subnets(self, *, but: str = "") -> list[IPv4Network]:
        """Subnets in use on the host, leaving out those of the link `but`."""
        own = self._find_link(but) if but else None
        index = own.index if own else -1
        taken = [live.subnet for live in self._live.values() if live.index != index]
        for link, address in rtnetlink.list_addresses(self._host):
            if link != index and isinstance(address, IPv4Interface):
                taken.append(address.network)
        for link, network in rtnetlink.list_routes(self._host):
            if link != index and isinstance(network, IPv4Network) and network.prefixlen:
                taken.append(network)
        return taken

    def has_link(self, name: str) -> bool:
        return self._find_link(name) is not None

    def bridge_address(self, name: str) -> IPv4Interface | None:
        """The first IPv4 address of an existing link."""
        link = self._find_link(name)
        if link is None:
            return None
        for index, address in rtnetlink.list_addresses(self._host):
            if index == link.index and isinstance(address, IPv4Interface):
                return address
        return None

    def ensure(self, network: NetworkRecord) -> None:
        pool = network.pools[0]
        subnet, gateway = parse_subnet(pool.subnet), IPv4Address(pool.gateway)
        link = self._find_link(network.bridge)
        if link is None:
            request = rtnetlink.add_bridge(network.bridge, mac=random_mac(), mtu=network.mtu)
            self._host.execute(request)
            link = rtnetlink.get_link(self._host, network.bridge)
        elif link.kind != "bridge":
            raise FailedPrecondition(
                f"{network.bridge} is a {link.kind or 'physical'} interface and no bridge: "
                "choose another name"
            )
        address = IPv4Interface(f"{gateway}/{subnet.prefixlen}")
        self._host.execute(
            rtnetlink.add_address(link.index, address), rtnetlink.set_link(network.bridge, up=True)
        )
        if network.owns_bridge:
            self._drop_other_addresses(link.index, address)
        # Programs of the host reach published ports at 127.0.0.1 too.
        Path(f"/proc/sys/net/ipv4/conf/{network.bridge}/route_localnet").write_text("1")
        failpoint.hit("network.bridge-made")
        allocator = Allocator(
            subnet,
            gateway=gateway,
            ip_range=parse_subnet(pool.ip_range) if pool.ip_range else None,
            reserved=map(IPv4Address, pool.auxiliary_addresses.values()),
        )
        self._live[network.id] = _Live(network, link.index, subnet, gateway, allocator)

    def start_firewall(self) -> None:
        """Called once, when all networks are made."""
        self.firewall.start(live.rule for live in self._live.values())

    def admit(self, network: NetworkRecord) -> None:
        """Lets the firewall know a network that came later."""
        self.firewall.add_bridge(self._live[network.id].rule)

    def remove(self, network: NetworkRecord) -> None:
        self._live.pop(network.id, None)
        self.firewall.remove_bridge(network.bridge)
        link = self._find_link(network.bridge)
        if network.owns_bridge and link is not None:
            self._reaper.delete_link(link.index)
            self._reaper.drain()

    def close(self, *, delete_table: bool = False) -> None:
        if delete_table:
            self.firewall.delete()
        self.firewall.close()
        self._ports.close()
        self._reaper.close()
        self._host.close()

    # -- endpoints -------------------------------------------------------------------------

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        live = self._live[network.id]
        identity = endpoint_id(attachment.container_id, network.id)
        settings = attachment.settings
        before = attachment.before
        mac = check_mac(settings.mac_address) or (before and before.mac_address) or random_mac()
        wanted = settings.ipam_config.ipv4_address if settings.ipam_config else ""
        address = live.allocator.allocate(
            identity,
            _parse_address(wanted),
            preferred=_parse_address(before.ip_address) if before else None,
        )
        endpoint = Endpoint(
            id=identity,
            network_id=network.id,
            network_name=network.name,
            driver=network.driver,
            container_id=attachment.container_id,
            container_name=attachment.container_name,
            requested=settings,
            interface=attachment.interface,
            host_interface=link_name(identity),
            mac_address=mac,
            ip_address=str(address),
            ip_prefix_len=live.subnet.prefixlen,
            gateway="" if network.internal else str(live.gateway),
            dns_names=list(attachment.dns_names),
        )
        try:
            self._plug(live, endpoint, attachment)
            held = self._publish(live, endpoint, attachment.ports)
        except BaseException:
            self.disconnect(endpoint)
            raise
        return msgspec.structs.replace(endpoint, ports=bindings_of(held))

    def _plug(self, live: _Live, endpoint: Endpoint, attachment: Attachment) -> None:
        self._add_pair(live, endpoint, attachment.sandbox)
        self.firewall.admit(_endpoint_rule(live, endpoint))
        failpoint.hit("network.veth-made")
        is_gateway = attachment.is_gateway and bool(endpoint.gateway)
        sandbox.configure(
            attachment.sandbox,
            endpoint.interface,
            IPv4Interface(f"{endpoint.ip_address}/{endpoint.ip_prefix_len}"),
            gateway=live.gateway if is_gateway else None,
        )
        failpoint.hit("network.veth-configured")

    def _add_pair(self, live: _Live, endpoint: Endpoint, path: Path) -> None:
        name = endpoint.host_interface
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        pair = rtnetlink.add_veth(
            name,
            master=live.index,
            mtu=live.record.mtu,
            peer=endpoint.interface,
            peer_mac=endpoint.mac_address,
            peer_netns_fd=namespace,
        )
        port = rtnetlink.set_bridge_port(
            name, isolated=not live.record.icc, hairpin=_bridged_is_filtered()
        )
        try:
            for attempt in range(_TRIES):
                try:
                    self._host.execute(pair, port)
                    return
                except NetlinkError as error:
                    if error.errno != errno.EEXIST or attempt == _TRIES - 1:
                        raise
                    # What a crash left, or what the reaper has not got to yet.
                    self._delete_link(name)
        finally:
            os.close(namespace)

    def _publish(
        self, live: _Live, endpoint: Endpoint, requests: Iterable[PortRequest]
    ) -> list[HeldPort]:
        rules: list[PortRule] = []
        try:
            held = self._ports.hold(endpoint.id, requests, host_ip=live.record.host_ip)
            failpoint.hit("network.ports-held")
            rules = _rules(endpoint, bindings_of(held))
            self.firewall.publish(rules)
            self._reaper.forget_udp_flows(_udp_ports(rules))
            self._ports.confirm(endpoint.id)
        except EstibaError as error:
            self.firewall.unpublish(rules)
            raise type(error)(
                "driver failed programming external connectivity on endpoint "
                f"{endpoint.container_name} ({endpoint.id}): {error}"
            ) from error
        return held

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        host_ip = self._live[network.id].record.host_ip
        held, earlier = self._ports.swap(endpoint.id, ports, host_ip=host_ip)
        changed = msgspec.structs.replace(endpoint, ports=bindings_of(held))
        old, new = _rules(endpoint, endpoint.ports), _rules(changed, changed.ports)
        gone = [rule for rule in old if rule not in new]
        added = [rule for rule in new if rule not in old]
        try:
            failpoint.hit("network.ports-swapped")
            self.firewall.unpublish(gone)
            self.firewall.publish(added)
            self._reaper.forget_udp_flows(_udp_ports(gone + added))
            self._ports.confirm(endpoint.id)
        except BaseException:
            self.firewall.unpublish(added)
            self.firewall.publish(gone)
            self._ports.swap_back(endpoint.id, earlier)
            raise
        self._ports.drop(earlier, but=held)
        return changed

    def disconnect(self, endpoint: Endpoint) -> None:
        rules = _rules(endpoint, endpoint.ports)
        self.firewall.unpublish(rules)
        self._reaper.forget_udp_flows(_udp_ports(rules))
        self._ports.release(endpoint.id)
        failpoint.hit("network.ports-released")
        link = self._find_link(endpoint.host_interface)
        if link is not None:
            self._reaper.delete_link(link.index)
        self.firewall.dismiss(endpoint.host_interface)
        live = self._live.get(endpoint.network_id)
        if live is not None:
            live.allocator.release(endpoint.id)

    def adopt(self, endpoints: list[Endpoint]) -> None:
        admitted: list[EndpointRule] = []
        rules: list[PortRule] = []
        for endpoint in endpoints:
            live = self._live.get(endpoint.network_id)
            if live is None:
                continue
            try:
                live.allocator.allocate(endpoint.id, IPv4Address(endpoint.ip_address))
            except EstibaError as error:
                _log.warning("address of container %s: %s", endpoint.container_name, error)
            lost = self._ports.adopt(endpoint.id, requests_of(endpoint.ports))
            for request in lost:
                _log.warning(
                    "port %s:%s of container %s was taken by another program meanwhile",
                    request.host_ip,
                    request.host_port,
                    endpoint.container_name,
                )
            admitted.append(_endpoint_rule(live, endpoint))
            rules += _rules(endpoint, endpoint.ports)
        self.firewall.adopt(admitted, rules)

    def counters(self, endpoint: Endpoint) -> rtnetlink.Counters | None:
        """Traffic of the container's end: that of the host's end, seen from the other side."""
        link = self._find_link(endpoint.host_interface)
        if link is None or link.counters is None:
            return None
        there = link.counters
        return rtnetlink.Counters(
            rx_packets=there.tx_packets,
            tx_packets=there.rx_packets,
            rx_bytes=there.tx_bytes,
            tx_bytes=there.rx_bytes,
            rx_errors=there.tx_errors,
            tx_errors=there.rx_errors,
            rx_dropped=there.tx_dropped,
            tx_dropped=there.rx_dropped,
        )

    def sweep(self, wanted: set[str]) -> None:
        """Deletes the pairs on the engine's bridges but for the `wanted` ones."""
        bridges = {live.index for live in self._live.values()}
        for link in rtnetlink.list_links(self._host):
            ours = link.master in bridges and link.name.startswith(LINK_PREFIX)
            if ours and link.name not in wanted:
                self._reaper.delete_link(link.index)

    def drain(self) -> None:
        """Waits until the links of all endpoints disconnected so far are gone."""
        self._reaper.drain()

    # -- links -----------------------------------------------------------------------------

    def _find_link(self, name: str) -> rtnetlink.Link | None:
        try:
            return rtnetlink.get_link(self._host, name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def _delete_link(self, name: str) -> None:
        try:
            self._host.execute(rtnetlink.delete_link(name))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise

    def _drop_other_addresses(self, index: int, kept: IPv4Interface) -> None:
        """What an earlier --bip left on a bridge of ours."""
        for link, address in rtnetlink.list_addresses(self._host):
            if link == index and isinstance(address, IPv4Interface) and address != kept:
                self._host.execute(rtnetlink.delete_address(index, address))


def _endpoint_rule(live: _Live, endpoint: Endpoint) -> EndpointRule:
    return EndpointRule(
        link=endpoint.host_interface,
        bridge=live.record.bridge,
        mac=endpoint.mac_address,
        addresses=(IPv4Address(endpoint.ip_address),),
    )


def _parse_address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text) if text else None
    except ValueError as error:
        raise InvalidArgument(f"invalid IPv4 address: {text[:64]!r}") from error


def _bridged_is_filtered() -> bool:
    """Whether br_netfilter shows bridged packets to NAT: a container that reaches itself by a
    published port then gets its own frame back, which only a hairpin port does.
    """
    return _BRIDGED_IS_FILTERED.exists() and _BRIDGED_IS_FILTERED.read_text().strip() == "1"


def _udp_ports(rules: list[PortRule]) -> set[int]:
    return {rule.host_port for rule in rules if rule.protocol == "udp"}


def _rules(endpoint: Endpoint, bindings: dict[str, list[PortBinding]]) -> list[PortRule]:
    return [
        PortRule(
            request.protocol,
            request.host_ip,
            int(request.host_port),
            IPv4Address(endpoint.ip_address),
            request.container_port,
        )
        for request in requests_of(bindings)
    ]
