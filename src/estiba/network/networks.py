"""All networks of an engine: their records, their drivers, and who is connected to what.

All methods block; they may be called from any thread. The lock guards the tables in memory
and is never held over work in the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import msgspec

from estiba.kernel import failpoint, rtnetlink
from estiba.model.container import EndpointSettings
from estiba.model.errors import AlreadyExists, EstibaError, Forbidden, InvalidArgument, NotFound
from estiba.model.ids import new_id, short
from estiba.network import sandbox
from estiba.network.dns.records import parse_zone
from estiba.network.driver import Attachment, Driver, EndpointObserver, new_endpoint
from estiba.network.drivers import Drivers
from estiba.network.firewall.rules import check_interface_name
from estiba.network.firewall.table import Firewall
from estiba.network.ipam import with_defaults
from estiba.network.plan import NetworkConfig
from estiba.network.policy.egress import check_option
from estiba.network.record import (
    KIND,
    Endpoint,
    NetworkRecord,
    NetworkSpec,
    PortRequest,
    decode,
    encode,
    network_event,
)
from estiba.network.roster import Roster, default_routes
from estiba.network.sandbox import Sandboxes
from estiba.network.templates import check_template, from_template, plan_template
from estiba.plugins.registry import Registry
from estiba.store import Store, Transaction

_log = logging.getLogger(__name__)

PREDEFINED = ("bridge", "host", "none")


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
        self._store = store
        self._make_id = make_id
        self._lock = threading.Lock()
        self._sandboxes = Sandboxes(config.netns_root)
        self._planning = threading.Lock()
        pools = with_defaults(config.pools, config.engine_id or config.bridge)
        self._drivers = Drivers(config, pools, plugins)
        self._bridges = self._drivers.bridges
        self._records: dict[str, NetworkRecord] = {}
        self._roster = Roster()

    # -- the engine's life -----------------------------------------------------------------

    def start(self) -> None:
        """Makes all networks on the host; the predefined ones are recorded the first time.

        Raises Unavailable, FailedPrecondition or OSError when the host does not allow it.
        """
        stored = {record.id: decode(record.body) for record in self._store.load(KIND)}
        by_name = {record.name: record for record in stored.values()}
        wanted = [record for record in stored.values() if not record.predefined]
        predefined = [self._plan_predefined(n, by_name.get(n), wanted) for n in PREDEFINED]
        wanted = predefined + wanted
        for record in wanted:
            if stored.get(record.id) != record:
                self._save(record)
            self._records[record.id] = record
            self._restore_network(record)
        for driver in self._drivers.each():
            driver.start()

    def _restore_network(self, record: NetworkRecord) -> None:
        """One that the host cannot make any more does not keep the others from working."""
        try:
            self._drivers.get(record.driver).ensure(record)
        except (EstibaError, OSError) as error:
            if record.predefined:
                raise
            _log.warning("network %s is out of order: %s", record.name, error)

    def restore(self, endpoints: Iterable[Endpoint]) -> None:
        """Takes over the endpoints of containers that outlived an earlier engine."""
        live = list(endpoints)
        self._roster.put(live)
        known = self._records
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
        for record in self._records.values():
            self._drivers.get(record.driver).remove(record)
        for driver in self._drivers.each():
            driver.close(delete=True)

    @property
    def firewall(self) -> Firewall:
        return self._bridges.firewall

    def drain(self) -> None:
        """Waits until the links of everything disconnected so far are gone."""
        for driver in self._drivers.each():
            driver.drain()

    # -- networks --------------------------------------------------------------------------

    def networks(self) -> list[NetworkRecord]:
        with self._lock:
            return list(self._records.values())

    def network(self, name_or_id: str) -> NetworkRecord:
        """By name, id, or the beginning of an id that is the only one like it.

        Raises NotFound or InvalidArgument.
        """
        with self._lock:
            records = list(self._records.values())
        wanted = "bridge" if name_or_id == "default" else name_or_id
        for record in records:
            if wanted in (record.name, record.id):
                return record
        matches = [record for record in records if wanted and record.id.startswith(wanted)]
        if len(matches) > 1:
            raise InvalidArgument(f"network {name_or_id} is ambiguous: give more of its id")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def endpoints(self, network_id: str) -> list[Endpoint]:
        """Who is connected to a network."""
        return self._roster.of_network(network_id)

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Makes a network. Raises AlreadyExists, InvalidArgument, NotFound or Conflict."""
        _check_name(spec.name)
        if spec.name in (*PREDEFINED, "default") or spec.driver in ("host", "null"):
            raise Forbidden(
                f"operation is not permitted on predefined {spec.name} network: "
                "choose another name, and the driver bridge"
            )
        check_template(spec)
        if spec.config_from:
            spec = from_template(spec, self._template(spec.config_from))
        check_option(spec.options, spec.driver)
        parse_zone(spec.options)
        record = self._planned(spec)
        try:
            self._save(record, "create")
            failpoint.hit("network.recorded")
            self._drivers.get(record.driver).ensure(record)
        except BaseException:
            self._erase(record)
            raise
        return record

    def _planned(self, spec: NetworkSpec) -> NetworkRecord:
        """Plugins are asked before the lock of all plans is taken: they may take their time."""
        with self._lock:
            self._check_name_free(spec.name)
        network_id = self._make_id()
        if spec.config_only:
            return self._plan(network_id, self._drivers.get("null"), spec)
        driver = self._drivers.for_network(spec)
        if not self._drivers.ipam.manages(spec.ipam_driver):
            return self._plan(network_id, driver, spec)
        given, pool_ids = self._drivers.ipam.request(network_id, spec)
        try:
            return self._plan(network_id, driver, given, asked=spec, pool_ids=pool_ids)
        except BaseException:
            self._drivers.ipam.undo(network_id, given, pool_ids)
            raise

    def _plan(
        self,
        network_id: str,
        driver: Driver,
        spec: NetworkSpec,
        *,
        asked: NetworkSpec | None = None,
        pool_ids: Sequence[str] = (),
    ) -> NetworkRecord:
        """One at a time, so that no two choose the same subnet; the name is taken then."""
        now = time.time_ns()
        with self._planning:
            with self._lock:
                self._check_name_free(spec.name)
                others = [one for one in self._records.values() if not one.config_only]
            if spec.config_only:
                record = plan_template(network_id, spec, now)
            else:
                record = driver.plan(network_id, spec, now, others)
            record = msgspec.structs.replace(
                record,
                asked_pools=(asked or spec).pools,
                config_from=spec.config_from,
                pool_ids=list(pool_ids),
            )
            with self._lock:
                self._records[record.id] = record
        return record

    def _check_name_free(self, name: str) -> None:
        if any(other.name == name for other in self._records.values()):
            raise AlreadyExists(f"network with name {name} already exists")

    def _template(self, name_or_id: str) -> NetworkRecord:
        with contextlib.suppress(NotFound):
            record = self.network(name_or_id)
            if record.config_only:
                return record
        raise NotFound(f'configuration network "{name_or_id}" does not exist')

    def remove(self, name_or_id: str) -> NetworkRecord:
        """Removes a network that nobody is connected to. Raises NotFound, Forbidden."""
        record = self.network(name_or_id)
        if record.predefined:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self._lock:
            if any(other.config_from == record.name for other in self._records.values()):
                raise Forbidden(
                    f'error while removing network: configuration network "{record.name}" is in use'
                )
            users = [one.container_name for one in self._roster.of_network(record.id)]
            if users:
                raise Forbidden(
                    f"error while removing network: network {record.name} has active endpoints: "
                    f"disconnect {', '.join(sorted(users))} first"
                )
            self._records.pop(record.id, None)
        self._erase(record)
        return record

    def _erase(self, record: NetworkRecord) -> None:
        """The host's part first: a record without it is made good at the next start."""
        with self._lock:
            self._records.pop(record.id, None)
        self._drivers.get(record.driver).remove(record)
        self._drivers.ipam.release(record)
        failpoint.hit("network.bridge-removed")

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            tx.add_event(network_event(record, "destroy"))

        self._store.commit_blocking(write, durable=True)
        for observer in self._observers:
            observer.removed(record)

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
        Raises NotFound, InvalidArgument, Conflict or FailedPrecondition; nothing is left then.
        """
        settings = settings or EndpointSettings()
        record = self.network(network)
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
        )
        attachment = self._enrol(record, attachment)
        try:
            endpoint = self._drivers.get(record.driver).connect(record, attachment)
        except BaseException:
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
        with self._lock:
            if record.id not in self._records:
                raise NotFound(f"network {record.name} not found")
            pending, default_route = self._roster.enrol(
                record, new_endpoint(record, attachment), prefix
            )
        return replace(attachment, interface=pending.interface, default_route=default_route)

    # -- records ---------------------------------------------------------------------------

    def _plan_predefined(
        self, name: str, earlier: NetworkRecord | None, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        record = earlier or NetworkRecord(
            id=self._make_id(),
            name=name,
            driver={"none": "null"}.get(name, name),
            created_ns=time.time_ns(),
            predefined=True,
        )
        if name != "bridge":
            return record
        return self._bridges.plan_default(record, self._config, others)

    def _save(self, record: NetworkRecord, action: str = "") -> None:
        def write(tx: Transaction) -> None:
            tx.put(KIND, record.id, encode(record), record.name)
            if action:
                tx.add_event(network_event(record, action))

        self._store.commit_blocking(write, durable=True)


def _check_name(name: str) -> None:
    """Docker takes nearly anything; what no path of the API could name is left out."""
    if not name.strip() or len(name) > 255 or "/" in name or not name.isprintable():
        raise InvalidArgument(
            f"invalid network name ({name[:64]!r}): give up to 255 printable characters, no slash"
        )
