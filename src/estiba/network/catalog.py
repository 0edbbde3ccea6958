"""The records of all networks: in memory, in the store, and how they come and go.

Sole writer of both. `lock` guards what is in memory and is never held over work in the kernel;
whoever needs a network to stay for a moment holds it too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.netns import alone_in_netns
from estiba.model.errors import AlreadyExists, EstibaError, Forbidden, InvalidArgument, NotFound
from estiba.network.dns.records import parse_zone
from estiba.network.driver import Driver
from estiba.network.drivers import Drivers
from estiba.network.plan import NO_BRIDGE, NetworkConfig, without_bridge
from estiba.network.policy.egress import check_option
from estiba.network.record import (
    KIND,
    NetworkRecord,
    NetworkSpec,
    decode,
    encode,
    network_event,
)
from estiba.network.templates import check_template, from_template, plan_template
from estiba.store import Store, Transaction

_log = logging.getLogger(__name__)

PREDEFINED = ("bridge", "host", "none")
_PATIENCE_S = 10.0
"""What another engine may take for a network of its own."""


class Catalog:
    """Made once an engine: `start`, then everything else. All methods block; any thread."""

    def __init__(
        self,
        store: Store,
        drivers: Drivers,
        *,
        users: Callable[[str], list[str]],
        removed: Callable[[NetworkRecord], None],
        make_id: Callable[[], str],
    ) -> None:
        """`users` says who is connected to a network, `removed` hears that one is gone."""
        self._store = store
        self._drivers = drivers
        self._users = users
        self._removed = removed
        self._make_id = make_id
        self.lock = threading.Lock()
        self._planning = threading.Lock()
        self._records: dict[str, NetworkRecord] = {}

    def start(self, config: NetworkConfig) -> None:
        """Makes all networks on the host; the predefined ones are recorded the first time.

        Raises Unavailable, FailedPrecondition or OSError when the host does not allow it.
        """
        stored = {record.id: decode(record.body) for record in self._store.load(KIND)}
        by_name = {record.name: record for record in stored.values()}
        wanted = [record for record in stored.values() if not record.predefined]
        with _alone_on_host():
            predefined = [
                self._plan_predefined(name, by_name.get(name), wanted, config)
                for name in PREDEFINED
            ]
            self._take_in(predefined, stored)
        self._take_in(wanted, stored)

    def _take_in(self, records: list[NetworkRecord], stored: dict[str, NetworkRecord]) -> None:
        for record in records:
            if stored.get(record.id) != record:
                self._save(record)
            self._records[record.id] = record
            self._make_again(record)

    def _make_again(self, record: NetworkRecord) -> None:
        """One that the host cannot make any more does not keep the others from working."""
        try:
            self._drivers.get(record.driver).ensure(record)
        except (EstibaError, OSError) as error:
            if record.predefined:
                raise
            _log.warning("network %s is out of order: %s", record.name, error)

    def all(self) -> list[NetworkRecord]:
        with self.lock:
            return list(self._records.values())

    def has(self, network_id: str) -> bool:
        """The caller may hold `lock`."""
        return network_id in self._records

    def find(self, name_or_id: str) -> NetworkRecord:
        """By name, id, or the beginning of an id that is the only one like it.

        Raises NotFound or InvalidArgument.
        """
        with self.lock:
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
        spec = self._drivers.with_full_names(spec)
        with contextlib.ExitStack() as stack:
            if self._drivers.looks_for_room(spec):
                stack.enter_context(_alone_on_host())
            return self._make(spec)

    def _make(self, spec: NetworkSpec) -> NetworkRecord:
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
        with self.lock:
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
            with self.lock:
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
            with self.lock:
                self._records[record.id] = record
        return record

    def _check_name_free(self, name: str) -> None:
        if any(other.name == name for other in self._records.values()):
            raise AlreadyExists(f"network with name {name} already exists")

    def _template(self, name_or_id: str) -> NetworkRecord:
        with contextlib.suppress(NotFound):
            record = self.find(name_or_id)
            if record.config_only:
                return record
        raise NotFound(f'configuration network "{name_or_id}" does not exist')

    def remove(self, name_or_id: str) -> NetworkRecord:
        """Removes a network that nobody is connected to; after an error it can be asked for again.

        Raises NotFound, Forbidden, and what the host or the disk say to it.
        """
        record = self.find(name_or_id)
        if record.predefined:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self.lock:
            if any(other.config_from == record.name for other in self._records.values()):
                raise Forbidden(
                    f'error while removing network: configuration network "{record.name}" is in use'
                )
            users = self._users(record.id)
            if users:
                raise Forbidden(
                    f"error while removing network: network {record.name} has active endpoints: "
                    f"disconnect {', '.join(sorted(users))} first"
                )
            self._records.pop(record.id, None)
        try:
            self._erase(record)
        except BaseException:
            with self.lock:
                # Its record is still stored: without it here nobody could take the rest away.
                self._records[record.id] = record
            raise
        return record

    def _erase(self, record: NetworkRecord) -> None:
        """The host's part first: a record without it is made good at the next start."""
        with self.lock:
            self._records.pop(record.id, None)
        self._drivers.get(record.driver).remove(record)
        self._drivers.ipam.release(record)
        failpoint.hit("network.bridge-removed")

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            tx.add_event(network_event(record, "destroy"))

        self._store.commit_blocking(write, durable=True)
        self._removed(record)

    def _plan_predefined(
        self,
        name: str,
        earlier: NetworkRecord | None,
        others: Sequence[NetworkRecord],
        config: NetworkConfig,
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
        if config.bridge == NO_BRIDGE:
            return without_bridge(record)
        record = msgspec.structs.replace(record, driver="bridge")
        return self._drivers.bridges.plan_default(record, config, others)

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


@contextlib.contextmanager
def _alone_on_host() -> Iterator[None]:
    """Other engines of the host wait: what is free when a subnet is chosen is free until the
    bridge has its address.
    """
    with alone_in_netns(_PATIENCE_S) as is_alone:
        if not is_alone:
            _log.warning(
                "another engine has been making a network for %g s: a subnet is chosen all the "
                "same, and both may have chosen one", _PATIENCE_S,
            )  # fmt: skip
        yield
