"""All networks of an engine: their records, their drivers, and who is connected to what.

All methods block; they may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import msgspec

from estiba.kernel import rtnetlink
from estiba.model.container import EndpointSettings
from estiba.model.errors import NotFound
from estiba.model.ids import new_id, short
from estiba.network import sandbox
from estiba.network.catalog import Catalog
from estiba.network.driver import Attachment, EndpointObserver, new_endpoint
from estiba.network.drivers import Drivers
from estiba.network.firewall.rules import LinkRule, check_interface_name
from estiba.network.firewall.table import Firewall
from estiba.network.ipam import with_defaults
from estiba.network.plan import NetworkConfig
from estiba.network.record import (
    Endpoint,
    NetworkRecord,
    NetworkSpec,
    PortRequest,
)
from estiba.network.roster import Roster, default_routes
from estiba.network.sandbox import Sandboxes
from estiba.network.templates import check_no_template
from estiba.plugins.registry import Registry
from estiba.store import Store


class Networks:
    """Made once a daemon: `start`, then `restore`, then everything else."""

    def __init__(
        self,
        config: NetworkConfig,
        store: Store,
        observers: Sequence[EndpointObserver] = (),
        *,
        plugins: Registry | None = None,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._observers = observers
        check_interface_name(config.bridge)
        self._config = config
        self._sandboxes = Sandboxes(config.netns_root)
        pools = with_defaults(config.pools, config.engine_id or config.bridge)
        self._drivers = Drivers(config, pools, plugins)
        self._roster = Roster()
        self._catalog = Catalog(
            store,
            self._drivers,
            users=lambda network_id: [one.container_name for one in self.endpoints(network_id)],
            removed=self._announce_removal,
            make_id=make_id,
        )

    # -- the engine's life -----------------------------------------------------------------

    def start(self) -> None:
        """Makes all networks on the host; the predefined ones are recorded the first time.

        Raises Unavailable, FailedPrecondition or OSError when the host does not allow it.
        """
        self._catalog.start(self._config)
        for driver in self._drivers.each():
            driver.start()

    def restore(self, endpoints: Iterable[Endpoint]) -> None:
        """Takes over the endpoints of containers that outlived an earlier engine."""
        live = list(endpoints)
        self._roster.put(live)
        known = {record.id: record for record in self._catalog.all()}
        pairs = [(known[each.network_id], each) for each in live if each.network_id in known]
        # First: the firewall is written anew with what the policies say of these endpoints.
        for observer in self._observers:
            observer.adopted(pairs)
        for driver in self._drivers.each():
            driver.adopt([one for one in live if self._drivers.get(one.driver) is driver])

    def sweep(self, live_container_ids: Iterable[str]) -> None:
        """Removes sandboxes, links and rules of this engine that no live container has."""
        live = set(live_container_ids)
        for endpoint in self._roster.all():
            if endpoint.container_id not in live:
                self.disconnect(endpoint.container_id, endpoint)
        for container_id in set(self._sandboxes.ids()) - live:
            self._sandboxes.close(container_id)
        self._drivers.sweep(self._roster.all(), self._config.netns_root)

    def stop(self) -> None:
        """Lets go of everything; bridges, rules and running containers stay as they are."""
        for driver in self._drivers.each():
            driver.close()

    def remove_all_traces(self) -> None:
        """Stops, and takes away the table and every bridge that the engine made."""
        for record in self._catalog.all():
            self._drivers.get(record.driver).remove(record)
        for driver in self._drivers.each():
            driver.close(delete=True)

    @property
    def firewall(self) -> Firewall:
        return self._drivers.bridges.firewall

    def drain(self) -> None:
        """Waits until the links of everything disconnected so far are gone."""
        for driver in self._drivers.each():
            driver.drain()

    # -- networks --------------------------------------------------------------------------

    def networks(self) -> list[NetworkRecord]:
        return self._catalog.all()

    def network(self, name_or_id: str) -> NetworkRecord:
        """By name, id, or the beginning of an id that is the only one like it.

        Raises NotFound or InvalidArgument.
        """
        return self._catalog.find(name_or_id)

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Makes a network. Raises AlreadyExists, InvalidArgument, NotFound or Conflict."""
        return self._catalog.create(spec)

    def remove(self, name_or_id: str) -> NetworkRecord:
        """Removes a network that nobody is connected to. Raises NotFound, Forbidden."""
        return self._catalog.remove(name_or_id)

    def _announce_removal(self, record: NetworkRecord) -> None:
        for observer in self._observers:
            observer.removed(record)

    def endpoints(self, network_id: str) -> list[Endpoint]:
        """Who is connected to a network."""
        return self._roster.of_network(network_id)

    # -- containers ------------------------------------------------------------------------

    def sandbox_path(self, container_id: str) -> Path:
        return self._sandboxes.path(container_id)

    def open_sandbox(self, container_id: str) -> Path:
        """The network namespace for a container, with loopback up; made if it is not there."""
        return self._sandboxes.open(container_id)

    def close_sandbox(self, container_id: str) -> None:
        """Takes it away with whatever is still connected; none is no error.

        Processes inside keep the namespace alive, but without links.
        """
        for endpoint in self._roster.of_container(container_id):
            self.disconnect(container_id, endpoint)
        self._sandboxes.close(container_id)

    def connect(
        self,
        container_id: str,
        *,
        container_name: str,
        network: str,
        settings: EndpointSettings | None = None,
        ports: Sequence[PortRequest] = (),
        hostname: str = "",
        interface: str = "",
        before: Endpoint | None = None,
    ) -> Endpoint:
        """Joins an open sandbox to a network; connecting again begins anew.

        `interface` is its name inside, by default the first free ethN; `before` is what the
        container had on the network when it last ran, and gets again where that is free.
        Raises NotFound, Forbidden, InvalidArgument, Conflict or FailedPrecondition; nothing is left
        then.
        """
        settings = settings or EndpointSettings()
        record = self.network(network)
        check_no_template(record)
        earlier = self._roster.find(container_id, record.id)
        if earlier is not None:
            self.disconnect(container_id, earlier)
        names = [container_name, *settings.aliases, short(container_id), hostname]
        names = names if record.has_names else []
        attachment = Attachment(
            container_id=container_id,
            container_name=container_name,
            sandbox=self._sandboxes.path(container_id),
            interface=interface,
            settings=settings,
            ports=tuple(ports),
            dns_names=tuple(dict.fromkeys(filter(None, names))),
            before=before,
            before_link=lambda coming: self._announce(record, coming),
        )
        attachment = self._enrol(record, attachment)
        try:
            endpoint = self._drivers.get(record.driver).connect(record, attachment)
        except BaseException:
            for observer in self._observers:
                observer.left(new_endpoint(record, attachment))
            self._roster.strike(container_id, record.id)
            self.reroute(container_id)
            raise
        self._roster.put([endpoint])
        try:
            for observer in self._observers:
                observer.joined(record, endpoint)
        except BaseException:
            self.disconnect(container_id, endpoint)
            raise
        return endpoint

    def _announce(self, record: NetworkRecord, endpoint: Endpoint) -> None:
        for observer in self._observers:
            observer.joining(record, endpoint)

    def disconnect(self, container_id: str, endpoint: Endpoint) -> None:
        """Undoes `connect`; an endpoint that is gone is no error."""
        for observer in self._observers:
            observer.left(endpoint)
        path = self._sandboxes.path(container_id)
        self._drivers.get(endpoint.driver).disconnect(endpoint, path)
        self._roster.strike(container_id, endpoint.network_id)
        if endpoint.gateway or endpoint.ipv6_gateway:
            self.reroute(container_id)

    def reroute(self, container_id: str) -> None:
        """Leads the container's default routes through the endpoints that they belong to."""
        ways = default_routes(self._roster.of_container(container_id))
        routes = [(one.interface, ip_address(one.gateway_of(version))) for one, version in ways]
        path = self._sandboxes.path(container_id)
        if routes and path.exists():
            sandbox.set_default_routes(path, routes)

    def republish(
        self, container_id: str, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        """Publishes exactly these ports of a live endpoint: what stays is not interrupted.

        Raises Conflict, FailedPrecondition or InvalidArgument; nothing has changed then.
        """
        record = self.network(endpoint.network_id)
        changed = self._drivers.get(endpoint.driver).republish(record, endpoint, ports)
        self._roster.put([changed])
        return changed

    def allow(self, container_id: str, rules: Sequence[LinkRule]) -> None:
        """Lets a container reach just these ports of others on a network that keeps them apart."""
        self.firewall.allow(container_id, rules)

    def rename(self, container_id: str, name: str) -> list[Endpoint]:
        """The container is called otherwise; returns its endpoints as they are now.

        Who keeps names hears that the endpoints left and joined.
        """
        changed = []
        for endpoint in self._roster.of_container(container_id):
            names = [name if one == endpoint.container_name else one for one in endpoint.dns_names]
            now = msgspec.structs.replace(
                endpoint, container_name=name, dns_names=list(dict.fromkeys(names))
            )
            self._drivers.get(endpoint.driver).renamed(now)
            self._roster.put([now])
            record = self.network(endpoint.network_id)
            for observer in self._observers:
                observer.left(endpoint)
                observer.joined(record, now)
            changed.append(now)
        return changed

    def endpoints_of(self, container_id: str) -> list[Endpoint]:
        """What a container is connected to."""
        return self._roster.of_container(container_id)

    def interface_statistics(self, container_id: str) -> dict[str, rtnetlink.Counters]:
        """Traffic counters by the interface's name inside the container."""
        path = self._sandboxes.path(container_id)
        found = {
            endpoint.interface: self._drivers.get(endpoint.driver).counters(endpoint, path)
            for endpoint in self._roster.of_container(container_id)
        }
        return {name: counters for name, counters in found.items() if counters is not None}

    def _enrol(self, record: NetworkRecord, attachment: Attachment) -> Attachment:
        """Notes an endpoint before it is made, so that its network stays; picks its name."""
        prefix = self._drivers.get(record.driver).interface_prefix
        if prefix:
            prefix = record.interface_prefix or prefix
        else:
            attachment = replace(attachment, interface="")
        with self._catalog.lock:
            if not self._catalog.has(record.id):
                raise NotFound(f"network {record.name} not found")
            pending, default_route = self._roster.enrol(
                record, new_endpoint(record, attachment), prefix
            )
        return replace(attachment, interface=pending.interface, default_route=default_route)
