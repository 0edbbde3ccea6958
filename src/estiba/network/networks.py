"""All networks of an engine: their records, their drivers, and who is connected to what.

All methods block; they may be called from any thread. The lock guards the tables in memory
and is never held over work in the kernel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from estiba.kernel import failpoint, rtnetlink
from estiba.model.container import EndpointSettings
from estiba.model.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    InvalidArgument,
    NotFound,
)
from estiba.model.ids import new_id, short
from estiba.network import sandbox
from estiba.network.bridge import BridgeDriver
from estiba.network.driver import Attachment, Driver, EndpointObserver, HostDriver
from estiba.network.firewall.rules import check_interface_name, table_name
from estiba.network.firewall.table import Firewall
from estiba.network.plan import NetworkConfig, plan_default_bridge
from estiba.network.record import (
    KIND,
    Endpoint,
    NetworkRecord,
    NetworkSpec,
    PortRequest,
    decode,
    encode,
    endpoint_id,
    network_event,
)
from estiba.network.sandbox import Sandboxes
from estiba.store import Store, Transaction

PREDEFINED = ("bridge", "host", "none")


class Networks:
    """Made once a daemon: `start`, then `restore`, then everything else."""

    def __init__(
        self,
        config: NetworkConfig,
        store: Store,
        observers: Sequence[EndpointObserver] = (),
        *,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._observers = observers
        check_interface_name(config.bridge)
        self._config = config
        self._store = store
        self._make_id = make_id
        self._lock = threading.Lock()
        self._sandboxes = Sandboxes(config.netns_root)
        self._bridges = BridgeDriver(table=table_name(config.bridge), pools=config.pools)
        plain = HostDriver()
        self._drivers: dict[str, Driver] = {
            "bridge": self._bridges,
            "host": plain,
            "null": plain,
        }
        self._records: dict[str, NetworkRecord] = {}
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        """Endpoints by container, then by network; one under way is there already."""

    # -- the engine's life -----------------------------------------------------------------

    def start(self) -> None:
        """Makes all networks on the host; the predefined ones are recorded the first time.

        Raises Unavailable, FailedPrecondition or OSError when the host does not allow it.
        """
        if self._config.ip_forward:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        stored = {record.id: decode(record.body) for record in self._store.load(KIND)}
        by_name = {record.name: record for record in stored.values()}
        wanted = [self._plan_predefined(name, by_name.get(name)) for name in PREDEFINED]
        wanted += [record for record in stored.values() if not record.predefined]
        for record in wanted:
            if stored.get(record.id) != record:
                self._save(record)
            self._records[record.id] = record
            self._drivers[record.driver].ensure(record)
        self._bridges.start_firewall()

    def restore(self, endpoints: Iterable[Endpoint]) -> None:
        """Takes over the endpoints of containers that outlived an earlier engine."""
        by_driver: dict[str, list[Endpoint]] = {name: [] for name in self._drivers}
        with self._lock:
            for endpoint in endpoints:
                self._endpoints.setdefault(endpoint.container_id, {})[endpoint.network_id] = (
                    endpoint
                )
                by_driver[endpoint.driver].append(endpoint)
        for name, driver in self._drivers.items():
            driver.adopt(by_driver[name])
        known = self._records
        live = [endpoint for found in by_driver.values() for endpoint in found]
        pairs = [(known[each.network_id], each) for each in live if each.network_id in known]
        for observer in self._observers:
            observer.adopted(pairs)

    def sweep(self, live_container_ids: Iterable[str]) -> None:
        """Removes sandboxes, links and rules of this engine that no live container has."""
        live = set(live_container_ids)
        with self._lock:
            dead = [
                endpoint
                for container_id, endpoints in self._endpoints.items()
                for endpoint in endpoints.values()
                if container_id not in live
            ]
        for endpoint in dead:
            self.disconnect(endpoint.container_id, endpoint)
        for container_id in set(self._sandboxes.ids()) - live:
            self._sandboxes.close(container_id)
        with self._lock:
            kept = {
                endpoint.host_interface
                for endpoints in self._endpoints.values()
                for endpoint in endpoints.values()
            }
        self._bridges.sweep(kept)

    def stop(self) -> None:
        """Lets go of everything; bridges, rules and running containers stay as they are."""
        self._bridges.drain()
        self._bridges.close()

    def remove_all_traces(self) -> None:
        """Stops, and takes away the table and every bridge that the engine made."""
        for record in self._records.values():
            self._drivers[record.driver].remove(record)
        self._bridges.close(delete_table=True)

    @property
    def firewall(self) -> Firewall:
        return self._bridges.firewall

    def drain(self) -> None:
        """Waits until the links of everything disconnected so far are gone."""
        self._bridges.drain()

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
        with self._lock:
            return [
                endpoints[network_id]
                for endpoints in self._endpoints.values()
                if network_id in endpoints
            ]

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Makes a network. Raises AlreadyExists, InvalidArgument, NotFound or Conflict."""
        _check_name(spec.name)
        if spec.name in (*PREDEFINED, "default") or spec.driver in ("host", "null"):
            raise Forbidden(
                f"operation is not permitted on predefined {spec.name} network: "
                "choose another name, and the driver bridge"
            )
        driver = self._drivers.get(spec.driver)
        if driver is None:
            raise NotFound(f"could not find plugin {spec.driver} in v1 plugin registry: not found")
        record = driver.plan(self._make_id(), spec, time.time_ns())
        with self._lock:
            if any(other.name == spec.name for other in self._records.values()):
                raise AlreadyExists(f"network with name {spec.name} already exists")
            self._records[record.id] = record
        try:
            self._save(record, "create")
            driver.ensure(record)
            self._bridges.admit(record)
        except BaseException:
            self._erase(record)
            raise
        return record

    def remove(self, name_or_id: str) -> NetworkRecord:
        """Removes a network that nobody is connected to. Raises NotFound, Forbidden."""
        record = self.network(name_or_id)
        if record.predefined:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self._lock:
            users = [
                found[record.id].container_name
                for found in self._endpoints.values()
                if record.id in found
            ]
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
        self._drivers[record.driver].remove(record)
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
        with self._lock:
            left = list(self._endpoints.get(container_id, {}).values())
        for endpoint in left:
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
        with self._lock:
            earlier = self._endpoints.get(container_id, {}).get(record.id)
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
            endpoint = self._drivers[record.driver].connect(record, attachment)
        except BaseException:
            self._strike(container_id, record.id)
            self.reroute(container_id)
            raise
        with self._lock:
            self._endpoints[container_id][record.id] = endpoint
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
        self._drivers[endpoint.driver].disconnect(endpoint)
        self._strike(container_id, endpoint.network_id)
        if endpoint.gateway:
            self.reroute(container_id)

    def reroute(self, container_id: str) -> None:
        """Leads the container's default route through the endpoint that it belongs to."""
        with self._lock:
            mine = list(self._endpoints.get(container_id, {}).values())
        ways = [endpoint for endpoint in mine if endpoint.gateway]
        path = self._sandboxes.path(container_id)
        if ways and path.exists():
            chosen = min(ways, key=lambda endpoint: endpoint.gateway_rank)
            sandbox.set_default_route(path, chosen.interface, IPv4Address(chosen.gateway))

    def republish(
        self, container_id: str, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        """Publishes exactly these ports of a live endpoint: what stays is not interrupted.

        Raises Conflict or InvalidArgument; nothing has changed then.
        """
        record = self.network(endpoint.network_id)
        changed = self._drivers[endpoint.driver].republish(record, endpoint, ports)
        with self._lock:
            self._endpoints.setdefault(container_id, {})[endpoint.network_id] = changed
        return changed

    def interface_statistics(self, container_id: str) -> dict[str, rtnetlink.Counters]:
        """Traffic counters by the interface's name inside the container."""
        with self._lock:
            endpoints = list(self._endpoints.get(container_id, {}).values())
        found = ((endpoint.interface, self._bridges.counters(endpoint)) for endpoint in endpoints)
        return {name: counters for name, counters in found if counters is not None}

    def _enrol(self, record: NetworkRecord, attachment: Attachment) -> Attachment:
        """Notes an endpoint before it is made, so that its network stays; picks its name."""
        container_id = attachment.container_id
        with self._lock:
            if record.id not in self._records:
                raise NotFound(f"network {record.name} not found")
            mine = self._endpoints.setdefault(container_id, {})
            used = {endpoint.interface for endpoint in mine.values()}
            if attachment.interface in used:
                raise Conflict(
                    f"interface name {attachment.interface} is taken in container "
                    f"{attachment.container_name}: choose another one"
                )
            number = next(n for n in range(len(used) + 1) if f"eth{n}" not in used)
            name = attachment.interface or f"eth{number}"
            pending = Endpoint(
                id=endpoint_id(container_id, record.id),
                network_id=record.id,
                network_name=record.name,
                driver=record.driver,
                container_id=container_id,
                container_name=attachment.container_name,
                requested=attachment.settings,
                interface="" if record.driver in ("host", "null") else name,
            )
            others = [endpoint for endpoint in mine.values() if endpoint.gateway]
            mine[record.id] = pending
        first = all(pending.gateway_rank < other.gateway_rank for other in others)
        return replace(attachment, interface=pending.interface, is_gateway=first)

    def _strike(self, container_id: str, network_id: str) -> None:
        """Forgets an endpoint."""
        with self._lock:
            mine = self._endpoints.get(container_id, {})
            mine.pop(network_id, None)
            if not mine:
                self._endpoints.pop(container_id, None)

    # -- records ---------------------------------------------------------------------------

    def _plan_predefined(self, name: str, earlier: NetworkRecord | None) -> NetworkRecord:
        record = earlier or NetworkRecord(
            id=self._make_id(),
            name=name,
            driver={"none": "null"}.get(name, name),
            created_ns=time.time_ns(),
            predefined=True,
        )
        if name != "bridge":
            return record
        bridge = self._config.bridge
        return plan_default_bridge(
            record,
            self._config,
            exists=self._bridges.has_link(bridge),
            existing=self._bridges.bridge_address(bridge),
            taken=self._bridges.taken_subnets(but=bridge),
        )

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
