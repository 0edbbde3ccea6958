"""Networks of a plugin: `Driver` by Docker's plugin protocol (`/NetworkDriver.*`).

The plugin makes a link on the host; it is moved into the sandbox and set up there, and handed
back before the endpoint goes. The order of calls and the way back on errors are libnetwork's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.netlink import NetlinkError
from estiba.kernel.rtnetlink import Counters
from estiba.model.decoding import from_json
from estiba.model.errors import EstibaError, Internal, NotFound, Unavailable
from estiba.network import moving
from estiba.network import sandbox as inside
from estiba.network.addresses import Addresses, with_addresses
from estiba.network.driver import Attachment, new_endpoint
from estiba.network.endpointopts import interface_name, link_local_addresses, setup_of
from estiba.network.ipam import AddressPool
from estiba.network.mac import check_mac
from estiba.network.notes import Notes
from estiba.network.plan import plan_addresses
from estiba.network.pools import taken_by
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec, PortRequest
from estiba.network.remotecalls import (
    Capabilities,
    Created,
    Joined,
    Nothing,
    OperInfo,
    endpoint_arguments,
    link_names,
    names,
    network_arguments,
    port_options,
    published,
    routes_of,
    with_answer,
    with_gateways,
)
from estiba.plugins.client import NotServed, PluginError
from estiba.plugins.registry import NETWORK, Plugin, Registry

_log = logging.getLogger(__name__)
T = TypeVar("T", bound=msgspec.Struct)

_REMOVAL_S = 10.0
_SCOPES = ("local", "global")


class RemoteDriver:
    """Implements `driver.Driver` for one plugin; asks nobody before it has to."""

    interface_prefix = "eth"

    def __init__(
        self,
        name: str,
        registry: Registry | None,
        pools: Sequence[AddressPool],
        make_addresses: Callable[[NetworkRecord], Addresses],
        notes: Notes,
    ) -> None:
        self._name = name
        self._registry = registry
        self._pools = tuple(pools)
        self._make_addresses = make_addresses
        self._notes = notes
        self._lock = threading.Lock()
        self._planned: set[str] = set()
        """Networks that the plugin has not been told of yet."""

        self._sure: set[str] = set()
        """Networks that the plugin is known to know."""

        self._addresses: dict[str, Addresses] = {}

    # -- networks --------------------------------------------------------------------------

    def check(self) -> None:
        """Whether the plugin is there and can have networks of this host alone.

        Raises NotFound, FailedPrecondition, Unavailable, Internal.
        """
        scope = self._call("GetCapabilities", None, Capabilities).scope
        if scope not in _SCOPES:
            raise Internal(
                f"network plugin {self._name}: invalid capability: expecting 'local' or "
                f"'global', got {scope[:32]!r}"
            )
        if scope == "global":
            raise Unavailable(
                f"networks of the plugin {self._name} span several hosts, and this node is not a "
                "swarm manager"
            )

    def plan(
        self, network_id: str, spec: NetworkSpec, created_ns: int, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        wanted, is_null = spec, spec.ipam_driver == "null"
        if is_null:
            wanted = msgspec.structs.replace(spec, enable_ipv4=True, enable_ipv6=False, pools=[])
        record = plan_addresses(
            network_id, wanted, created_ns=created_ns, pools=self._pools, taken=taken_by(others)
        )
        if is_null:
            record = msgspec.structs.replace(record, pools=[])
        with self._lock:
            self._planned.add(network_id)
        return msgspec.structs.replace(record, mtu=0)

    def ensure(self, network: NetworkRecord) -> None:
        with self._lock:
            is_new = network.id in self._planned
            self._planned.discard(network.id)
            if network.id not in self._addresses:
                self._addresses[network.id] = self._make_addresses(network)
        if is_new:
            self._call("CreateNetwork", network_arguments(network), Nothing)
            self._sure.add(network.id)
        failpoint.hit("network.plugin-network-made")

    def start(self) -> None:
        pass

    def remove(self, network: NetworkRecord) -> None:
        """A plugin that is gone or does not want to is no reason to keep the network."""
        with self._lock:
            self._addresses.pop(network.id, None)
            self._planned.discard(network.id)
        self._sure.discard(network.id)
        self._attempt("DeleteNetwork", {"NetworkID": network.id}, timeout_s=_REMOVAL_S)

    def drain(self) -> None:
        pass

    def close(self, *, delete: bool = False) -> None:
        pass

    # -- endpoints -------------------------------------------------------------------------

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        self.ensure(network)
        settings = attachment.settings
        bare = msgspec.structs.replace(
            new_endpoint(network, attachment),
            mac_address=check_mac(settings.mac_address),
            link_local_ips=[str(one) for one in link_local_addresses(settings.ipam_config)],
        )
        if self._notes.has(bare.id):
            # A step back that failed earlier: the plugin may still have an endpoint of that id.
            self._attempt("Leave", names(bare))
            self._attempt("DeleteEndpoint", names(bare))
        addresses = self._addresses[network.id]
        given = addresses.allocate(bare, settings.ipam_config, attachment.before)
        endpoint = with_addresses(bare, network, given)
        self._notes.put(endpoint.id, msgspec.json.encode(endpoint))
        try:
            endpoint = self._make(network, endpoint, attachment)
            return self._join(network, endpoint, attachment)
        except BaseException:
            # As it was noted last: with the link that has perhaps been moved already.
            noted = from_json(self._notes.get(endpoint.id), Endpoint)
            self.disconnect(noted, attachment.sandbox)
            raise

    def _make(self, network: NetworkRecord, endpoint: Endpoint, attachment: Attachment) -> Endpoint:
        arguments = endpoint_arguments(endpoint, attachment)
        try:
            answer = self._call("CreateEndpoint", arguments, Created)
        except PluginError:
            if network.id in self._sure:
                raise
            # An engine that died may not have told it of the network, or it has forgotten.
            self._attempt("CreateNetwork", network_arguments(network))
            self._attempt("DeleteEndpoint", names(endpoint))
            answer = self._call("CreateEndpoint", arguments, Created)
        self._sure.add(network.id)
        failpoint.hit("network.plugin-endpoint-made")
        return with_answer(endpoint, answer.interface, self._name)

    def _join(self, network: NetworkRecord, endpoint: Endpoint, attachment: Attachment) -> Endpoint:
        options = port_options(attachment.ports)
        arguments = {
            **names(endpoint),
            "SandboxKey": str(attachment.sandbox),
            "Options": options,
        }
        joined = self._call("Join", arguments, Joined)
        failpoint.hit("network.plugin-joined")
        endpoint = with_gateways(endpoint, joined, network, self._name)
        endpoint = self._move(endpoint, joined, attachment)
        if attachment.default_route:
            self._optional("ProgramExternalConnectivity", {**names(endpoint), "Options": options})
        info = self._optional("EndpointOperInfo", names(endpoint))
        return msgspec.structs.replace(endpoint, ports=published(info))

    def _move(self, endpoint: Endpoint, joined: Joined, attachment: Attachment) -> Endpoint:
        """The plugin's link, under its name in the sandbox and with all that it is to have."""
        if joined.interface_name is None or not joined.interface_name.src_name:
            return msgspec.structs.replace(endpoint, interface="")
        source, prefix = link_names(joined.interface_name, self._name)
        moving.check_unused(source)
        wanted = interface_name(endpoint.requested) or joined.interface_name.dst_name
        if not wanted and prefix != self.interface_prefix:
            wanted = moving.free_name(attachment.sandbox, prefix)
        endpoint = msgspec.structs.replace(
            endpoint, host_interface=source, interface=wanted or endpoint.interface
        )
        self._notes.put(endpoint.id, msgspec.json.encode(endpoint))
        try:
            moving.move_in(source, attachment.sandbox, endpoint.interface, endpoint.mac_address)
            failpoint.hit("network.plugin-link-moved")
            setup = setup_of(endpoint, attachment.default_route)
            inside.configure(
                attachment.sandbox, replace(setup, routes=routes_of(joined, self._name))
            )
        except NetlinkError as error:
            raise Internal(
                f"network plugin {self._name}: the interface {source} cannot be set up as "
                f"{endpoint.interface}: {error}"
            ) from error
        return endpoint

    def disconnect(self, endpoint: Endpoint, sandbox: Path) -> None:
        """Whatever the plugin says to it: the container's end is not held up. What it could not
        be told is told when the engine starts again, or when the container comes back."""
        arguments = names(endpoint)
        self._attempt("RevokeExternalConnectivity", arguments, is_optional=True)
        done = self._attempt("Leave", arguments)
        if endpoint.host_interface:
            moving.move_out(sandbox, endpoint.interface, endpoint.host_interface)
        done &= self._attempt("DeleteEndpoint", arguments)
        if endpoint.host_interface and not done:
            moving.discard(endpoint.host_interface)
        addresses = self._addresses.get(endpoint.network_id)
        if addresses is not None:
            addresses.release(endpoint.id)
        if done:
            self._notes.drop(endpoint.id)

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        self._optional("RevokeExternalConnectivity", names(endpoint))
        arguments = {**names(endpoint), "Options": port_options(ports)}
        self._optional("ProgramExternalConnectivity", arguments)
        info = self._optional("EndpointOperInfo", names(endpoint))
        return msgspec.structs.replace(endpoint, ports=published(info))

    def renamed(self, endpoint: Endpoint) -> None:
        pass

    def adopt(self, endpoints: list[Endpoint]) -> None:
        for endpoint in endpoints:
            addresses = self._addresses.get(endpoint.network_id)
            if addresses is not None:
                try:
                    addresses.adopt(endpoint)
                except EstibaError as error:
                    _log.warning("address of container %s: %s", endpoint.container_name, error)

    def counters(self, endpoint: Endpoint, sandbox: Path) -> Counters | None:
        return inside.counters(sandbox, endpoint.interface) if endpoint.interface else None

    def sweep(self, endpoints: Iterable[Endpoint]) -> None:
        """What an engine that died had begun is undone by `network.drivers`, by its notes."""

    def discover(self, address: str, *, is_new: bool) -> None:
        """Tells the plugin of a node that came or left (the cluster's)."""
        method = "DiscoverNew" if is_new else "DiscoverDelete"
        data = {"DiscoveryType": 1, "DiscoveryData": {"Address": address, "self": False}}
        self._attempt(method, data, is_optional=True)

    # -- the plugin ------------------------------------------------------------------------

    def _plugin(self, *, is_query: bool = False) -> Plugin:
        if self._registry is None:
            raise NotFound(_not_found(self._name))
        try:
            return self._registry.get(self._name, NETWORK, is_query=is_query)
        except NotFound as error:
            raise NotFound(_not_found(self._name)) from error

    def _call(self, method: str, arguments: Mapping[str, Any] | None, kind: type[T]) -> T:
        client = self._plugin().client
        try:
            return client.call(f"{NETWORK}.{method}", arguments, kind)
        except PluginError as error:
            raise type(error)(f"remote: {error}") from error

    def _optional(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A method that plugins need not have."""
        try:
            return self._call(method, arguments, OperInfo).value or {}
        except NotServed:
            return {}

    def _attempt(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        is_optional: bool = False,
        timeout_s: float | None = None,
    ) -> bool:
        """A step back: it is taken once, in little time; False when it could not be.

        Without a time of its own it is not taken at all when the plugin has just been silent.
        """
        try:
            client = self._plugin(is_query=True).client
            client.call(
                f"{NETWORK}.{method}",
                arguments,
                Nothing,
                is_query=timeout_s is None,
                timeout_s=timeout_s,
                away_s=0,
            )
        except NotServed:
            return is_optional
        except EstibaError as error:
            _log.warning("network plugin %s: %s: %s", self._name, method, error)
            return False
        return True


def _not_found(name: str) -> str:
    return f'plugin "{name[:128]}" not found'
