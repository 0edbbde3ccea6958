"""Addresses that a plugin manages (`/IpamDriver.*`), for networks of any driver.

The order of calls, and what is asked anew after a restart, are those of libnetwork.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path

import msgspec

from estiba.model.container import EndpointIpamConfig
from estiba.model.decoding import from_json
from estiba.model.errors import EstibaError, Internal, InvalidArgument, NotFound, Unavailable
from estiba.network.addresses import Addresses, Given, LocalAddresses
from estiba.network.ipam import Address, parse_address
from estiba.network.ipamcalls import Capabilities, IpamClient, checked_subnet
from estiba.network.notes import Notes
from estiba.network.pools import parse_subnet
from estiba.network.record import Endpoint, IpamConfig, NetworkRecord, NetworkSpec
from estiba.plugins.client import PluginError
from estiba.plugins.registry import IPAM, Plugin, Registry

_log = logging.getLogger(__name__)

BUILT_IN = ("", "default", "null")
_MAC = "com.docker.network.endpoint.macaddress"


class RemoteIpam:
    """All networks whose addresses come from plugins. `notes` outlive the engine's process."""

    def __init__(self, registry: Registry | None, notes: Path) -> None:
        self._registry = registry
        self._notes = Notes(notes)
        self._lock = threading.Lock()
        self._capabilities: dict[str, Capabilities] = {}
        self._made: set[str] = set()
        """Networks of this life of the engine: their pools need not be asked for anew."""

        self._addresses: dict[str, RemoteAddresses] = {}

    def manages(self, driver: str) -> bool:
        return driver not in BUILT_IN

    def request(self, network_id: str, spec: NetworkSpec) -> tuple[NetworkSpec, list[str]]:
        """The spec with all pools as the plugin gave them, IPv4 first, and what it calls them.

        Raises NotFound, Unavailable, Internal, InvalidArgument; the plugin holds nothing then.
        """
        client = IpamClient(self._plugin(spec.ipam_driver))
        pools: list[IpamConfig] = []
        ids: list[str] = []
        try:
            space = client.space()
            for config, version in _wanted(spec):
                pool = client.pool(space, config, version, spec.ipam_options or {})
                ids.append(pool.id)
                subnet = checked_subnet(pool.pool, version, client.name)
                pools.append(IpamConfig(subnet=str(subnet)))
                gateway = client.gateway(pool, config, version)
                pools[-1] = IpamConfig(
                    subnet=str(subnet), gateway=gateway, ip_range=config.ip_range
                )
                for name, text in config.auxiliary_addresses.items():
                    client.address(pool.id, parse_address(text, version), {})
                    pools[-1].auxiliary_addresses[name] = text
        except BaseException:
            _release(client, pools, ids)
            raise
        with self._lock:
            self._made.add(network_id)
        return msgspec.structs.replace(spec, pools=pools), ids

    def undo(self, network_id: str, spec: NetworkSpec, pool_ids: list[str]) -> None:
        """Gives back what `request` got."""
        with self._lock:
            self._made.discard(network_id)
        self._give_back(spec.name, spec.ipam_driver, spec.pools, pool_ids)

    def release(self, network: NetworkRecord) -> None:
        """Gives the pools of a network back; what the plugin says to that is logged."""
        with self._lock:
            known = self._addresses.pop(network.id, None)
            self._made.discard(network.id)
        if self.manages(network.ipam_driver):
            ids = known.pool_ids if known else network.pool_ids
            self._give_back(network.name, network.ipam_driver, network.pools, ids)

    def _give_back(
        self, network: str, driver: str, pools: list[IpamConfig], ids: list[str]
    ) -> None:
        if not ids:
            return
        try:
            client = IpamClient(self._plugin(driver, is_query=True), hurry=True)
            _release(client, pools, ids)
        except EstibaError as error:
            _log.warning("pools of network %s: %s", network, error)

    def addresses(self, network: NetworkRecord) -> Addresses:
        """Where the network's driver gets addresses from; asks nobody yet."""
        if network.ipam_driver == "null":
            return NoAddresses()
        if not self.manages(network.ipam_driver):
            return LocalAddresses(network)
        with self._lock:
            found = self._addresses.get(network.id)
            if found is None:
                is_new = network.id in self._made
                found = RemoteAddresses(self, network, self._notes, is_new=is_new)
                self._addresses[network.id] = found
        return found

    def sweep(self, live: set[str]) -> None:
        """Releases what owners have that are none of the `live` endpoints."""
        for name, _ in list(self._notes.all()):
            if name not in live:
                self.settle(name)

    def settle(self, owner: str) -> None:
        """Releases what was noted of an owner; a plugin that is away is told another time."""
        try:
            note = from_json(self._notes.get(owner), _Note)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            _log.warning("addresses of an endpoint that is gone: %s", error)
            self._notes.drop(owner)
            return
        if self.give_back(note.driver, note.held, "of an endpoint that is gone"):
            self._notes.drop(owner)

    def give_back(self, driver: str, held: list[tuple[str, str]], whose: str) -> bool:
        """Pools and addresses in them; False when the plugin could not be told of them all."""
        is_told = True
        for pool_id, text in held:
            try:
                self.client(driver, is_query=True).release(pool_id, text)
            except EstibaError as error:
                _log.warning("address %s %s: %s", text, whose, error)
                # One that says no has heard it.
                is_told &= isinstance(error, PluginError)
        return is_told

    def client(self, driver: str, *, is_query: bool = False) -> IpamClient:
        return IpamClient(self._plugin(driver, is_query=is_query), is_query=is_query)

    def capabilities(self, driver: str) -> Capabilities:
        """Those of a plugin that cannot say are none, as in libnetwork."""
        with self._lock:
            found = self._capabilities.get(driver)
        if found is None:
            try:
                found = self.client(driver).capabilities()
            except PluginError:
                found = Capabilities()
            with self._lock:
                self._capabilities[driver] = found
        return found

    def _plugin(self, driver: str, *, is_query: bool = False) -> Plugin:
        if self._registry is None:
            raise NotFound(f'plugin "{driver[:128]}" not found')
        try:
            return self._registry.get(driver, IPAM, is_query=is_query)
        except NotFound as error:
            raise NotFound(f'plugin "{driver[:128]}" not found') from error


class NoAddresses:
    """`Addresses` of the IPAM driver null: whatever the network's driver gives."""

    def allocate(
        self, endpoint: Endpoint, wanted: EndpointIpamConfig | None, before: Endpoint | None
    ) -> list[Given]:
        return []

    def adopt(self, endpoint: Endpoint) -> None:
        pass

    def release(self, owner: str) -> None:
        pass

    def rename(self, owner: str, name: str) -> None:
        pass


class _Note(msgspec.Struct, frozen=True):
    driver: str
    held: list[tuple[str, str]]
    """Pool and address."""


class RemoteAddresses:
    """`Addresses` of one network, out of the plugin's pools."""

    def __init__(
        self, ipam: RemoteIpam, network: NetworkRecord, notes: Notes, *, is_new: bool
    ) -> None:
        self._ipam = ipam
        self._network = network
        self._notes = notes
        self._lock = threading.Lock()
        self._held: dict[str, list[tuple[int, Given]]] = {}
        """By owner: the number of the pool, and what was given."""

        self._is_replayed = is_new
        self.pool_ids = list(network.pool_ids)
        self._subnets = [parse_subnet(pool.subnet) for pool in network.pools]

    def allocate(
        self, endpoint: Endpoint, wanted: EndpointIpamConfig | None, before: Endpoint | None
    ) -> list[Given]:
        with self._lock:
            held = self._held.get(endpoint.id)
        if held:
            return [given for _, given in held]
        self._ipam.settle(endpoint.id)
        client = self._ipam.client(self._network.ipam_driver)
        self._replay(client)
        wishes = (wanted.ipv4_address, wanted.ipv6_address) if wanted else ("", "")
        earlier = (before.ip_address, before.ipv6_address) if before else ("", "")
        try:
            for version, wish, last in zip((4, 6), wishes, earlier, strict=True):
                if wish or any(subnet.version == version for subnet in self._subnets):
                    number, given = self._take(client, version, wish, last, endpoint.mac_address)
                    self._note(endpoint.id, number, given)
        except BaseException:
            self.release(endpoint.id)
            raise
        with self._lock:
            return [given for _, given in self._held.get(endpoint.id, [])]

    def _take(
        self, client: IpamClient, version: int, wish: str, last: str, mac: str
    ) -> tuple[int, Given]:
        capabilities = self._ipam.capabilities(self._network.ipam_driver)
        options = {_MAC: mac} if capabilities.needs_mac and mac else {}
        numbers = [n for n, subnet in enumerate(self._subnets) if subnet.version == version]
        if wish:
            address = parse_address(wish, version)
            numbers = [number for number in numbers if address in self._subnets[number]]
            if not numbers:
                raise InvalidArgument(
                    f"Invalid address {address}: It does not belong to any of this network's "
                    f"subnets: {', '.join(map(str, self._subnets))}"
                )
            return self._ask(client, numbers[0], address, options)
        if last:
            address = parse_address(last, version)
            for number in numbers:
                if address in self._subnets[number]:
                    try:
                        return self._ask(client, number, address, options)
                    except PluginError:
                        break
        failure: EstibaError = Unavailable(f"network {self._network.name} has no pool")
        for number in numbers:
            try:
                return self._ask(client, number, None, options)
            except PluginError as error:
                failure = error
        raise failure

    def _ask(
        self, client: IpamClient, number: int, address: Address | None, options: Mapping[str, str]
    ) -> tuple[int, Given]:
        subnet = self._subnets[number]
        pool_id = self.pool_ids[number]
        text = self._network.pools[number].gateway
        gateway = parse_address(text, subnet.version) if text else None
        found = client.address(pool_id, address, options).ip
        if self._is_held(found) or found == gateway:
            # It stays with whom it belongs to.
            raise Internal(f"IPAM plugin {client.name} gave the address {found}, which is taken")
        if found not in subnet or address not in (None, found):
            client.release(pool_id, str(found))
            wanted = address if found in subnet else f"of {subnet}"
            raise Internal(
                f"IPAM plugin {client.name} gave the address {found}, which is not {wanted}"
            )
        return number, Given(ip_interface((found, subnet.prefixlen)), gateway)

    def _is_held(self, address: Address) -> bool:
        """With the address of another, or of the gateway, a container would be let pass as that."""
        with self._lock:
            return any(
                given.address.ip == address for pairs in self._held.values() for _, given in pairs
            )

    def adopt(self, endpoint: Endpoint) -> None:
        """Live ones keep their addresses, whether the plugin is there yet or not."""
        for text in (endpoint.ip_address, endpoint.ipv6_address):
            for number, subnet in enumerate(self._subnets):
                if text and ip_address(text) in subnet:
                    given = Given(ip_interface((ip_address(text), subnet.prefixlen)), None)
                    self._note(endpoint.id, number, given)
                    break
        try:
            client = self._ipam.client(self._network.ipam_driver, is_query=True)
            self._replay(client)
        except EstibaError as error:
            _log.warning("addresses of network %s: %s", self._network.name, error)

    def _replay(self, client: IpamClient) -> None:
        """After a restart a plugin that keeps nothing is asked for everything again."""
        if self._is_replayed:
            return
        if self._ipam.capabilities(self._network.ipam_driver).needs_replay:
            network = self._network
            space = client.space()
            for number, config in enumerate(network.pools):
                version = self._subnets[number].version
                pool = client.pool(space, config, version, network.ipam_options or {})
                self.pool_ids[number] = pool.id
                client.gateway(pool, config, version)
                for text in config.auxiliary_addresses.values():
                    client.address(pool.id, parse_address(text, version), {})
            with self._lock:
                held = [pair for pairs in self._held.values() for pair in pairs]
            for number, given in held:
                client.address(self.pool_ids[number], given.address.ip, {})
        self._is_replayed = True

    def _note(self, owner: str, number: int, given: Given) -> None:
        with self._lock:
            mine = self._held.setdefault(owner, [])
            if (number, given) not in mine:
                mine.append((number, given))
            held = [(self.pool_ids[n], str(one.address.ip)) for n, one in mine]
        self._notes.put(owner, msgspec.json.encode(_Note(self._network.ipam_driver, held)))

    def release(self, owner: str) -> None:
        with self._lock:
            pairs = self._held.pop(owner, [])
            held = [(self.pool_ids[number], str(given.address.ip)) for number, given in pairs]
        whose = f"on network {self._network.name}"
        if held and self._ipam.give_back(self._network.ipam_driver, held, whose):
            self._notes.drop(owner)

    def rename(self, owner: str, name: str) -> None:
        pass


def _release(client: IpamClient, pools: list[IpamConfig], ids: list[str]) -> None:
    """All that a network has, each for itself."""
    for number, pool_id in enumerate(ids):
        pool = pools[number] if number < len(pools) else IpamConfig()
        for address in (pool.gateway, *pool.auxiliary_addresses.values()):
            if address:
                _try(partial(client.release, pool_id, address))
        _try(partial(client.release_pool, pool_id))


def _try(step: Callable[[], None]) -> None:
    try:
        step()
    except EstibaError as error:
        _log.warning("IPAM plugin: %s", error)


def _wanted(spec: NetworkSpec) -> list[tuple[IpamConfig, int]]:
    """The pools to ask for with their families, IPv4 first; at least one a family."""
    found: list[tuple[IpamConfig, int]] = []
    for version, enabled in ((4, spec.enable_ipv4), (6, spec.enable_ipv6)):
        mine = [config for config in spec.pools if _family(config) == version]
        if enabled:
            found += [(config, version) for config in mine or [IpamConfig()]]
    return found


def _family(config: IpamConfig) -> int:
    if config.subnet:
        return parse_subnet(config.subnet).version
    named = (config.gateway, config.ip_range, *config.auxiliary_addresses.values())
    return 6 if any(":" in text for text in named) else 4
