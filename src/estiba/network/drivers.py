"""All drivers of an engine by name: those that are built in, and a plugin for each other name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from estiba.model.decoding import from_json
from estiba.model.errors import InvalidArgument
from estiba.network.bridge import BridgeDriver
from estiba.network.driver import Driver, HostDriver
from estiba.network.firewall.rules import table_name
from estiba.network.ipam import AddressPool
from estiba.network.macvlan import ParentDriver
from estiba.network.notes import Notes
from estiba.network.parents import IPVLAN, MACVLAN
from estiba.network.plan import NetworkConfig
from estiba.network.reaper import Reaper
from estiba.network.record import Endpoint, NetworkSpec
from estiba.network.remote import RemoteDriver
from estiba.network.remoteipam import RemoteIpam
from estiba.plugins.registry import Registry

_log = logging.getLogger(__name__)


class Drivers:
    """Made once an engine; any thread."""

    def __init__(
        self, config: NetworkConfig, pools: tuple[AddressPool, ...], registry: Registry | None
    ) -> None:
        run = config.netns_root.parent
        self._pools = pools
        self._registry = registry
        self._notes = Notes(run / "endpoints")
        self._lock = threading.Lock()
        self.ipam = RemoteIpam(registry, run / "addresses")
        table = table_name(config.bridge)
        # One for all: a name inside a container may go from one driver's link to another's.
        reaper = Reaper()
        self.bridges = BridgeDriver(
            table=table,
            pools=pools,
            ip_forward=config.ip_forward,
            obey_host=config.publish_policy != "open",
            make_addresses=self.ipam.addresses,
            reaper=reaper,
        )
        plain = HostDriver()
        self._drivers: dict[str, Driver] = {
            "bridge": self.bridges,
            "macvlan": ParentDriver(MACVLAN, pools, table, self.ipam.addresses, reaper),
            "ipvlan": ParentDriver(IPVLAN, pools, table, self.ipam.addresses, reaper),
            "host": plain,
            "null": plain,
        }

    def with_full_names(self, spec: NetworkSpec) -> NetworkSpec:
        """Plugins as records call them."""
        if self._registry is None:
            return spec
        return msgspec.structs.replace(
            spec,
            driver=self._registry.full_name(spec.driver),
            ipam_driver=self._registry.full_name(spec.ipam_driver),
        )

    def get(self, name: str) -> Driver:
        """The driver of that name; a plugin need not be there yet."""
        with self._lock:
            found = self._drivers.get(name)
            if found is None:
                found = self._drivers[name] = RemoteDriver(
                    name, self._registry, self._pools, self.ipam.addresses, self._notes
                )
        return found

    def looks_for_room(self, spec: NetworkSpec) -> bool:
        """Whether the host's own addresses and routes tell which subnets the network may have."""
        with self._lock:
            is_bridge = self._drivers.get(spec.driver) is self.bridges
        return is_bridge and not spec.config_only and not self.ipam.manages(spec.ipam_driver)

    def for_network(self, spec: NetworkSpec) -> Driver:
        """The driver for a new network.

        Raises NotFound, FailedPrecondition, Unavailable or Internal for a plugin that is not
        there or not fit, InvalidArgument for addresses that the driver cannot do without.
        """
        with self._lock:
            is_known = spec.driver in self._drivers
        driver = self.get(spec.driver)
        if isinstance(driver, RemoteDriver):
            try:
                driver.check()
            except BaseException:
                if not is_known:
                    with self._lock:
                        self._drivers.pop(spec.driver, None)
                raise
        elif spec.ipam_driver == "null":
            raise InvalidArgument(
                f"networks of the driver {spec.driver} need addresses: use another IPAM driver "
                "than null"
            )
        return driver

    def each(self) -> list[Driver]:
        """One may bear several names."""
        with self._lock:
            return list({id(driver): driver for driver in self._drivers.values()}.values())

    def sweep(self, endpoints: Iterable[Endpoint], netns_root: Path) -> None:
        """Takes away what none of all live endpoints needs, from plugins too."""
        kept = list(endpoints)
        live = {endpoint.id for endpoint in kept}
        for name, content in list(self._notes.all()):
            if name in live:
                continue
            try:
                left = from_json(content, Endpoint)
            except msgspec.DecodeError:
                self._notes.drop(name)
                continue
            _log.warning("endpoint %s of an engine that died is taken away", left.container_name)
            self.get(left.driver).disconnect(left, netns_root / left.container_id)
        self.ipam.sweep(live)
        for driver in self.each():
            driver.sweep(kept)
