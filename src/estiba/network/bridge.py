"""The bridge driver: a Linux bridge with a veth pair for each container, behind NAT."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from pathlib import Path

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.netlink import NetlinkError
from estiba.kernel.rtnetlink import Counters
from estiba.kernel.rtroutes import Interface
from estiba.model.errors import Conflict, EstibaError
from estiba.network.addresses import Addresses, LocalAddresses, interfaces_of, with_addresses
from estiba.network.driver import Attachment, new_endpoint
from estiba.network.endpointopts import link_local_addresses, setup_of
from estiba.network.firewall.rules import BridgeRule, EndpointRule, PortRule
from estiba.network.firewall.table import Firewall
from estiba.network.ipam import AddressPool
from estiba.network.links import HostLinks, enable_forwarding
from estiba.network.mac import check_mac, random_mac
from estiba.network.plan import (
    OPTION_ANTI_SPOOFING,
    NetworkConfig,
    parse_truth,
    plan_bridge,
    plan_default_bridge,
)
from estiba.network.pools import parse_subnet, taken_by
from estiba.network.publish import Publisher
from estiba.network.reaper import Reaper
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec, PortRequest, link_name
from estiba.network.sandbox import configure

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """A network that `ensure` has made, and its endpoints, by id."""

    record: NetworkRecord
    index: int
    addresses: Addresses
    endpoints: dict[str, Endpoint] = field(default_factory=dict)


class BridgeDriver:
    """Implements `driver.Driver`. Networks differ; the host's links, ports and table are one."""

    interface_prefix = "eth"

    def __init__(
        self,
        *,
        table: str,
        pools: Sequence[AddressPool],
        ip_forward: bool = True,
        obey_host: bool = True,
        make_addresses: Callable[[NetworkRecord], Addresses] = LocalAddresses,
        reaper: Reaper | None = None,
    ) -> None:
        self._pools = tuple(pools)
        self._ip_forward = ip_forward
        self._make_addresses = make_addresses
        self._reaper = reaper or Reaper()
        self._links = HostLinks(self._reaper, f"estiba {table} bridge")
        self.firewall = Firewall(table, obey_host=obey_host)
        self._publisher = Publisher(self.firewall, self._reaper)
        self._live: dict[str, _Live] = {}
        self._mending = threading.Lock()
        self._is_started = False

    # -- networks --------------------------------------------------------------------------

    def plan(
        self, network_id: str, spec: NetworkSpec, created_ns: int, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        record = plan_bridge(
            network_id,
            spec,
            created_ns=created_ns,
            pools=self._pools,
            taken=[*taken_by(others), *self._links.host_networks()],
        )
        for other in others:
            if other.bridge == record.bridge:
                raise Conflict(f"bridge {record.bridge} is already in use by network {other.name}")
        return msgspec.structs.replace(record, owns_bridge=not self._links.has(record.bridge))

    def plan_default(
        self, record: NetworkRecord, config: NetworkConfig, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        """The default network's record as the flags want it. Raises InvalidArgument."""
        return plan_default_bridge(
            record,
            config,
            is_foreign=self._links.is_foreign(config.bridge),
            existing=self._links.addresses_of(config.bridge),
            pools=self._pools,
            taken=[*taken_by(others), *self._links.host_networks(but=config.bridge)],
        )

    def ensure(self, network: NetworkRecord) -> None:
        link = self._links.ensure_bridge(network, _bridge_addresses(network))
        if self._ip_forward:
            for version in network.versions:
                enable_forwarding(ipv6=version == 6)
        failpoint.hit("network.bridge-made")
        known = self._live.get(network.id)
        addresses = known.addresses if known else self._make_addresses(network)
        endpoints = known.endpoints if known else {}
        self._live[network.id] = _Live(network, link.index, addresses, endpoints)
        if self._is_started:
            self.firewall.add_bridge(_bridge_rule(network))
            failpoint.hit("network.bridge-admitted")

    def start(self) -> None:
        self.firewall.start(_bridge_rule(live.record) for live in self._live.values())
        self._is_started = True
        self._links.reap_owned({live.record.bridge for live in self._live.values()})

    def remove(self, network: NetworkRecord) -> None:
        self._live.pop(network.id, None)
        self.firewall.remove_bridge(network.bridge)
        failpoint.hit("network.bridge-dismissed")
        if network.owns_bridge:
            self._links.reap(network.bridge)

    def drain(self) -> None:
        self._reaper.drain()

    def close(self, *, delete: bool = False) -> None:
        self._reaper.drain()
        if delete:
            self.firewall.delete()
        self.firewall.close()
        self._publisher.close()
        self._reaper.close()
        self._links.close()

    # -- endpoints -------------------------------------------------------------------------

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        if network.id not in self._live:
            # Once: whoever made it again would forget the addresses that the first one gave.
            with self._mending:
                if network.id not in self._live:
                    self.ensure(network)
        live = self._live[network.id]
        settings = attachment.settings
        before = attachment.before
        mac = check_mac(settings.mac_address) or (before and before.mac_address) or random_mac()
        local = link_local_addresses(settings.ipam_config)
        bare = msgspec.structs.replace(
            new_endpoint(network, attachment),
            mac_address=mac,
            link_local_ips=[str(address) for address in local],
        )
        given = live.addresses.allocate(bare, settings.ipam_config, before)
        endpoint = with_addresses(bare, network, given)
        endpoint = msgspec.structs.replace(endpoint, host_interface=link_name(bare.id))
        try:
            self._plug(live, endpoint, attachment)
            endpoint = self._publisher.publish(network, endpoint, attachment.ports)
        except BaseException:
            self.disconnect(endpoint, attachment.sandbox)
            raise
        live.endpoints[endpoint.id] = endpoint
        return endpoint

    def _plug(self, live: _Live, endpoint: Endpoint, attachment: Attachment) -> None:
        # Before there is a link: a container's program may be running already.
        self._admit(live.record, endpoint)
        attachment.before_link(endpoint)
        try:
            self._links.add_pair(live.record, live.index, endpoint, attachment.sandbox)
        except NetlinkError as error:
            if error.errno not in (errno.ENODEV, errno.EINVAL) or self._is_whole(live):
                raise
            self._mend(live)
            live = self._live[live.record.id]
            self._links.add_pair(live.record, live.index, endpoint, attachment.sandbox)
        failpoint.hit("network.veth-made")
        setup = setup_of(endpoint, attachment.default_route, is_in_host=live.record.owns_bridge)
        # The opening of the port gives the bridge its carrier.
        ends = (endpoint.host_interface, live.record.bridge)
        configure(attachment.sandbox, setup, lambda: self._links.settle_carrier(*ends))
        failpoint.hit("network.veth-configured")

    def _is_whole(self, live: _Live) -> bool:
        link = self._links.find(live.record.bridge)
        return link is not None and link.index == live.index

    def _mend(self, live: _Live) -> None:
        """Somebody took the bridge away: it comes back, with the pairs that were on it."""
        with self._mending:
            if not self._is_whole(self._live[live.record.id]):
                _log.warning("bridge %s is gone: it is made again", live.record.bridge)
                self.ensure(live.record)
        now = self._live[live.record.id]
        self._links.reattach(now.index, list(now.endpoints.values()))

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        changed = self._publisher.publish(network, endpoint, ports)
        self._live[network.id].endpoints[endpoint.id] = changed
        return changed

    def disconnect(self, endpoint: Endpoint, sandbox: Path) -> None:
        self._publisher.unpublish(endpoint)
        self.firewall.disallow(endpoint.ip_address)
        self._reap(endpoint.host_interface)
        failpoint.hit("network.veth-removed")
        live = self._live.get(endpoint.network_id)
        if live is not None:
            live.addresses.release(endpoint.id)
            live.endpoints.pop(endpoint.id, None)

    def _admit(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        if is_guarded(network) or not network.icc:
            self.firewall.admit(_endpoint_rule(network, endpoint))

    def _reap(self, link: str) -> None:
        """The rule goes after the link, which is taken away in the background."""
        rule = self.firewall.admitted(link)
        self._links.reap(link)
        if rule is not None:
            self._reaper.then(lambda: self.firewall.dismiss(link, rule))

    def renamed(self, endpoint: Endpoint) -> None:
        self._publisher.rename(endpoint)
        live = self._live.get(endpoint.network_id)
        if live is not None:
            live.addresses.rename(endpoint.id, endpoint.container_name)
            live.endpoints[endpoint.id] = endpoint

    def adopt(self, endpoints: list[Endpoint]) -> None:
        admitted: list[EndpointRule] = []
        rules: list[PortRule] = []
        for endpoint in endpoints:
            live = self._live.get(endpoint.network_id)
            if live is None:
                continue
            try:
                live.addresses.adopt(endpoint)
            except EstibaError as error:
                _log.warning("address of container %s: %s", endpoint.container_name, error)
            live.endpoints[endpoint.id] = endpoint
            self._links.reattach(live.index, [endpoint])
            if is_guarded(live.record) or not live.record.icc:
                admitted.append(_endpoint_rule(live.record, endpoint))
            rules += self._publisher.adopt(endpoint)
        self.firewall.adopt(admitted, rules)

    def counters(self, endpoint: Endpoint, sandbox: Path) -> Counters | None:
        return self._links.peer_counters(endpoint.host_interface)

    def sweep(self, endpoints: Iterable[Endpoint]) -> None:
        """Deletes the pairs on the engine's bridges that no endpoint has."""
        wanted = {endpoint.host_interface for endpoint in endpoints}
        self._links.reap_pairs({live.index for live in self._live.values()}, wanted)


def _bridge_addresses(network: NetworkRecord) -> list[Interface]:
    """The gateways of all pools, as far as the bridge is the gateway."""
    found: list[Interface] = []
    for pool in network.pools:
        subnet = parse_subnet(pool.subnet)
        is_ipv4 = subnet.version == 4
        mode = network.gateway_mode_ipv4 if is_ipv4 else network.gateway_mode_ipv6
        if mode != "isolated" and not (is_ipv4 and network.inhibit_ipv4):
            found.append(ip_interface(f"{pool.gateway}/{subnet.prefixlen}"))
    return found


def _bridge_rule(network: NetworkRecord) -> BridgeRule:
    modes = {4: network.gateway_mode_ipv4, 6: network.gateway_mode_ipv6}
    return BridgeRule(
        bridge=network.bridge,
        subnets=tuple(parse_subnet(pool.subnet) for pool in network.pools),
        icc=network.icc,
        masquerade=network.masquerade,
        internal=network.internal,
        routed=tuple(version for version, mode in modes.items() if mode == "routed"),
        unprotected=tuple(v for v, mode in modes.items() if mode == "nat-unprotected"),
        snat=tuple(map(ip_address, filter(None, (network.snat_ipv4, network.snat_ipv6)))),
    )


def is_guarded(network: NetworkRecord) -> bool:
    """Whether its containers may use no addresses but their own."""
    return parse_truth(network.options, OPTION_ANTI_SPOOFING, default=True)


def _endpoint_rule(network: NetworkRecord, endpoint: Endpoint) -> EndpointRule:
    return EndpointRule(
        link=endpoint.host_interface,
        bridge=network.bridge,
        mac=endpoint.mac_address,
        addresses=tuple(address.ip for address in interfaces_of(endpoint)),
        icc=network.icc,
        is_guarded=is_guarded(network),
    )
