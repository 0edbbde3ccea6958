"""The effects on the networks of one container: joined, left, its ports moved, its hosts told.

All blocks, and each may be done twice without harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from estiba.containers.attachments import given_settings
from estiba.containers.hostfiles import HostFiles
from estiba.containers.joining import Way, port_bearer, way_of
from estiba.containers.links import BRIDGE, link_rules
from estiba.containers.publishing import port_requests
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.kernel import failpoint
from estiba.model.container import EndpointSettings
from estiba.model.errors import EstibaError, FailedPrecondition
from estiba.network.endpointopts import interface_name
from estiba.network.firewall.rules import LinkRule
from estiba.network.hostports import requests_of
from estiba.network.record import Endpoint, NetworkRecord, PortRequest

_log = logging.getLogger(__name__)


class Networking(Protocol):
    """The network package; all methods block."""

    def open_sandbox(self, container_id: str) -> Path: ...

    def close_sandbox(self, container_id: str) -> None: ...

    def network(self, name_or_id: str) -> NetworkRecord: ...

    def endpoints_of(self, container_id: str) -> list[Endpoint]: ...

    def connect(
        self,
        container_id: str,
        *,
        container_name: str,
        network: str,
        settings: EndpointSettings,
        ports: Sequence[PortRequest],
        hostname: str,
        interface: str,
        before: Endpoint | None,
    ) -> Endpoint: ...

    def disconnect(self, container_id: str, endpoint: Endpoint) -> None: ...

    def drain(self) -> None: ...

    def reroute(self, container_id: str) -> None: ...

    def rename(self, container_id: str, name: str) -> list[Endpoint]: ...

    def allow(self, container_id: str, rules: Sequence[LinkRule]) -> None: ...

    def republish(
        self, container_id: str, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint: ...


@dataclass(slots=True)
class Plugging:
    """`containers.ports.Connecting` on the real kernel, but for the threads."""

    networks: Networking
    host_files: HostFiles
    _linking: set[str] = field(default_factory=set)
    """Containers that the firewall lets reach others."""

    # -- a start ---------------------------------------------------------------------------

    def join_all(self, record: ContainerRecord) -> list[AttachedNetwork]:
        """Joins everything that the container is to be on, into a sandbox that is open."""
        try:
            joined = self._join_all(record)
            self._allow_links(record, joined)
            return joined
        except EstibaError as error:
            raise type(error)(f"failed to set up container networking: {error}") from error

    def _join_all(self, record: ContainerRecord) -> list[AttachedNetwork]:
        ways = [self._way(net) for net in record.networks]
        bearer = port_bearer(ways)
        if bearer is None and record.networks:
            # What has no ports of its own ignores them.
            bearer = 0 if ways[0].driver in ("host", "null") else None
        requests = port_requests(record)
        joined = list(record.networks)
        # Names that are asked for first, or an interface without one would take them.
        named = [bool(interface_name(net.requested)) for net in joined]
        for place in sorted(range(len(joined)), key=lambda place: not named[place]):
            ports = requests if place == bearer else []
            joined[place] = self._join(record, joined[place], ports)
        return joined

    def _way(self, net: AttachedNetwork) -> Way:
        network = self.networks.network(net.network)
        return Way(
            name=network.name,
            priority=net.requested.gw_priority,
            driver=network.driver,
            is_open=network.has_gateway(4) or network.has_gateway(6),
        )

    def _join(
        self,
        record: ContainerRecord,
        net: AttachedNetwork,
        ports: Sequence[PortRequest],
    ) -> AttachedNetwork:
        network = self.networks.network(net.network)
        endpoint = self.networks.connect(
            record.id,
            container_name=record.name,
            network=network.id,
            settings=given_settings(net.requested, network),
            ports=ports,
            hostname=record.config.hostname,
            interface=interface_name(net.requested),
            before=net.before,
        )
        return AttachedNetwork(
            network=endpoint.network_name, requested=net.requested, endpoint=endpoint
        )

    # -- while it is up --------------------------------------------------------------------

    def join(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        """Joins one more network; the networks that the container has then.

        What it raises leaves traces: `restore` takes them away.
        """
        joined = [*record.networks, self._join(record, net, [])]
        failpoint.hit("connect.joined")
        placed = self._place_ports(record, joined)
        failpoint.hit("connect.published")
        self._tell(record, placed)
        self.host_files.update_resolver(record, placed)
        failpoint.hit("connect.told")
        return placed

    def leave(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        """Leaves a network; the networks that the container has then. There is no way back.

        Its programs do not see the link any more: unlike at the end of a run somebody looks.

        Ports that lived there move to the container's new way out, or are gone.
        """
        if net.endpoint is not None:
            self.networks.disconnect(record.id, net.endpoint)
        failpoint.hit("disconnect.left")
        rest = [other for other in record.networks if other.network != net.network]
        try:
            rest = self._place_ports(record, rest)
        except (EstibaError, OSError) as error:
            _log.warning("container %s: its ports are published no more: %s", record.name, error)
        failpoint.hit("disconnect.published")
        self._tell(record, rest)
        failpoint.hit("disconnect.told")
        self.networks.drain()
        return rest

    def publish(self, record: ContainerRecord) -> list[AttachedNetwork]:
        """Publishes exactly the ports that the record asks for.

        Raises Conflict, InvalidArgument or FailedPrecondition; nothing has changed then.
        """
        bearer = _bearer(record.networks)
        requests = port_requests(record)
        if bearer is None and requests:
            raise FailedPrecondition(
                f"container {record.name} is on no network with a way to the outside: connect it "
                "to one before its ports are published"
            )
        return self._republish(record, record.networks, bearer, requests)

    def restore(self, record: ContainerRecord) -> None:
        """Makes the kernel agree with the record, after a change that was cut off."""
        wanted = {endpoint.network_id: endpoint for endpoint in record.endpoints}
        for endpoint in self.networks.endpoints_of(record.id):
            if endpoint.network_id not in wanted:
                self.networks.disconnect(record.id, endpoint)
        # First what holds ports that belong elsewhere.
        there = sorted(
            self.networks.endpoints_of(record.id),
            key=lambda endpoint: bool(wanted[endpoint.network_id].ports),
        )
        for endpoint in there:
            ports = requests_of(wanted[endpoint.network_id].ports)
            self.networks.republish(record.id, endpoint, ports)
        self.networks.reroute(record.id)
        self._tell(record, record.networks)
        self.networks.drain()

    def rename(self, record: ContainerRecord, name: str) -> list[AttachedNetwork]:
        """The container is called otherwise on its networks."""
        endpoints = {one.network_id: one for one in self.networks.rename(record.id, name)}
        return [
            msgspec.structs.replace(net, endpoint=endpoints.get(net.endpoint.network_id))
            if net.endpoint is not None
            else net
            for net in record.networks
        ]

    def tell_linking(self, parents: Sequence[ContainerRecord]) -> None:
        """Those that are linked to a container learn where it is now."""
        for parent in parents:
            self._tell(parent, parent.networks)

    def forget_link(self, record: ContainerRecord, names: str) -> None:
        """A link is no more."""
        self._tell(record, record.networks, [names])

    def _tell(
        self,
        record: ContainerRecord,
        networks: list[AttachedNetwork],
        gone: Sequence[str] = (),
    ) -> None:
        self._allow_links(record, networks)
        try:
            self.host_files.update_hosts(record, networks, gone)
        except OSError as error:
            _log.warning("container %s: its /etc/hosts stays as it was: %s", record.name, error)

    def _allow_links(self, record: ContainerRecord, networks: list[AttachedNetwork]) -> None:
        """Where containers of the default bridge may not talk, linked ones reach exposed ports."""
        had = record.id in self._linking
        if (record.links or had) and not self.networks.network(BRIDGE).icc:
            rules = link_rules(networks, self.host_files.linked(record))
            self.networks.allow(record.id, rules)
            self._linking.add(record.id)

    def forget(self, record: ContainerRecord) -> None:
        """Its run is over: whom it reached by links it reaches no more."""
        if record.id in self._linking:
            self.networks.allow(record.id, [])
            self._linking.discard(record.id)

    def _place_ports(
        self, record: ContainerRecord, networks: list[AttachedNetwork]
    ) -> list[AttachedNetwork]:
        """Moves published ports to the way out, where they are elsewhere."""
        requests = port_requests(record)
        bearer = _bearer(networks)
        misplaced = any(
            net.endpoint is not None and net.endpoint.ports and place != bearer
            for place, net in enumerate(networks)
        )
        bears = bearer is not None and (endpoint := networks[bearer].endpoint) and endpoint.ports
        if bearer is None or (not misplaced and (bears or not requests)):
            return networks
        return self._republish(record, networks, bearer, requests)

    def _republish(
        self,
        record: ContainerRecord,
        networks: list[AttachedNetwork],
        bearer: int | None,
        requests: Sequence[PortRequest],
    ) -> list[AttachedNetwork]:
        """The others first: they may hold what the bearer is to have."""
        changed = list(networks)
        order = sorted(range(len(networks)), key=lambda place: place == bearer)
        for place in order:
            endpoint = networks[place].endpoint
            wanted = requests if place == bearer else []
            if endpoint is not None and (wanted or endpoint.ports):
                endpoint = self.networks.republish(record.id, endpoint, wanted)
                changed[place] = msgspec.structs.replace(networks[place], endpoint=endpoint)
        return changed


def _bearer(networks: Sequence[AttachedNetwork]) -> int | None:
    up = [(place, net.endpoint) for place, net in enumerate(networks) if net.endpoint is not None]
    chosen = port_bearer(way_of(endpoint) for _, endpoint in up)
    return None if chosen is None else up[chosen][0]
