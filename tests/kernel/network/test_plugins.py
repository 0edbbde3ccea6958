"""Networks and addresses of a plugin in a process of its own, with real packets."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.kernel.network.private_host import Host, configure_outside, entered, make_uplink, traces
from tests.support.daemon import wait_until
from tests.support.plugins import PluginProcess

from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import (
    EstibaError,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from estiba.network.networks import Networks
from estiba.network.notes import Notes
from estiba.network.plan import NetworkConfig
from estiba.network.record import IpamConfig, NetworkSpec, PortRequest
from estiba.network.remote import RemoteDriver
from estiba.network.remoteipam import NoAddresses
from estiba.plugins.client import Patience, PluginError
from estiba.plugins.places import Places
from estiba.plugins.registry import Registry
from estiba.store import Store
from estiba.store.events import EventBus

pytestmark = pytest.mark.kernel

QUICK = Patience(call_s=3.0, query_s=1.0, away_s=1.0, turn_s=0.5, first_pause_s=0.05, silence_s=1.0)


@dataclass
class Plugged(Host):
    """A host whose engine knows plugins."""

    plugin: PluginProcess = None  # type: ignore[assignment]

    def engine(self) -> Networks:
        return Networks(self.config, self.store, plugins=self.engine_registry())

    def engine_registry(self) -> Registry:
        return Registry(Places((self.root / "plugins",), ()), QUICK, activation_s=1.0)

    def restarted(self, live: list[str] | None = None) -> Networks:
        """Another engine, with these containers still up; the old one just died."""
        kept = [
            endpoint
            for network in self.networks.networks()
            for endpoint in self.networks.endpoints(network.id)
            if endpoint.container_id in (live or [])
        ]
        self.networks.stop()
        self.networks = self.engine()
        self.networks.start()
        self.networks.restore(kept)
        self.networks.sweep(live or [])
        return self.networks

    def links(self) -> set[str]:
        """Those of the plugin."""
        return {name for _, name in socket.if_nameindex() if name.startswith("pt")}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Plugged]:
    here, outside = tmp_path / "host", tmp_path / "outside"
    ensure_netns(outside)
    ensure_netns(here)
    store = Store.open(tmp_path / "estiba.db", EventBus())
    try:
        with entered(here):
            yield from _made(tmp_path, outside, store)
    finally:
        store.close()
        remove_netns(here)
        remove_netns(outside)


def _made(root: Path, outside: Path, store: Store) -> Iterator[Plugged]:
    make_uplink(outside)
    run_in_netns(outside, configure_outside)
    before = traces(root)
    tag = f"pt{secrets.token_hex(1)}"
    plugin = PluginProcess(
        "network", root / "plugins/blue.sock", root / "blue", tag=tag, subnet="10.88"
    )
    plugin.start()
    config = NetworkConfig(netns_root=root / "netns", bridge="estiba9")
    made = Plugged(root, outside, config, store, None, plugin=plugin)  # type: ignore[arg-type]
    made.networks = made.engine()
    made.networks.start()
    made.networks.restore([])
    try:
        yield made
    finally:
        plugin.behave()
        if plugin.process is None:
            plugin.start()
        made.stack.close()
        made.networks.sweep([])
        for network in made.networks.networks():
            if not network.predefined:
                made.networks.remove(network.id)
        made.networks.drain()
        made.networks.remove_all_traces()
        state = plugin.state() if (plugin.root / "state").exists() else {}
        plugin.kill()
    assert not any(state.values()), f"the plugin still has {state}"
    wait_until(lambda: traces(root) == before, what="the host to be clean", deadline_s=5)


def spec(name: str = "net", **wanted: object) -> NetworkSpec:
    return NetworkSpec(name=name, driver="blue", **wanted)  # type: ignore[arg-type]


def inside(host: Plugged, container: str, *words: str) -> str:
    path = host.networks.sandbox_path(container)

    def run() -> str:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
        return done.stdout

    return run_in_netns(path, run)


# -- the driver --------------------------------------------------------------------------------


def test_containers_on_a_network_of_a_plugin_talk(host: Plugged) -> None:
    record = host.networks.create(spec(pools=[IpamConfig(subnet="10.5.0.0/24")]))
    created = host.plugin.calls("NetworkDriver.CreateNetwork")[0]
    assert created["NetworkID"] == record.id
    assert created["IPv4Data"][0]["Pool"] == "10.5.0.0/24"
    assert created["IPv4Data"][0]["Gateway"] == "10.5.0.1/24"
    one = host.attach("one", "net")
    two = host.attach("two", "net")
    assert (one.ip_address, two.ip_address) == ("10.5.0.2", "10.5.0.3")
    assert one.interface == "eth0"
    assert one.mac_address.startswith("02:aa:")
    assert one.gateway == "10.5.0.1"
    host.serve(host.networks.sandbox_path("one"), 80)
    assert host.ask(host.networks.sandbox_path("two"), "10.5.0.2", 80) == "10.5.0.3"
    assert host.ask(None, "10.5.0.2", 80) == "10.5.0.1", "from the host, by the plugin's bridge"
    assert "default via 10.5.0.1" in inside(host, "one", "route")
    counters = host.networks.interface_statistics("one")["eth0"]
    assert counters.rx_packets > 0
    with pytest.raises(Forbidden, match="active endpoints"):
        host.networks.remove("net")
    host.networks.close_sandbox("one")
    host.networks.close_sandbox("two")
    assert not host.plugin.state()["endpoints"]
    host.networks.remove("net")
    assert not host.links()


def test_the_order_of_calls_is_libnetworks(host: Plugged) -> None:
    host.networks.create(spec())
    host.attach("one", "net", ports=[PortRequest(container_port=80, host_port="8080")])
    host.networks.close_sandbox("one")
    host.networks.remove("net")
    assert [method.removeprefix("NetworkDriver.") for method in host.plugin.methods()] == [
        "Plugin.Activate",
        "GetCapabilities",
        "CreateNetwork",
        "CreateEndpoint",
        "Join",
        "ProgramExternalConnectivity",
        "EndpointOperInfo",
        "RevokeExternalConnectivity",
        "Leave",
        "DeleteEndpoint",
        "DeleteNetwork",
    ]
    asked = host.plugin.calls("NetworkDriver.ProgramExternalConnectivity")[0]["Options"]
    assert asked["com.docker.network.portmap"] == [
        {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
    ]
    joined = host.plugin.calls("NetworkDriver.Join")[0]
    assert joined["SandboxKey"] == str(host.networks.sandbox_path("one"))


def test_names_routes_and_families_are_the_plugins_choice(host: Plugged) -> None:
    host.networks.create(
        spec(
            enable_ipv6=True,
            pools=[IpamConfig(subnet="10.5.0.0/24"), IpamConfig(subnet="fd00:5::/64")],
            options={"prefix": "blue", "route": "10.5.0.9"},
        )
    )
    endpoint = host.attach("one", "net")
    assert endpoint.interface == "blue0"
    assert endpoint.ipv6_address == "fd00:5::2"
    assert endpoint.ipv6_gateway == "fd00:5::1"
    routes = inside(host, "one", "route")
    assert "203.0.113.0/24 via 10.5.0.9 dev blue0" in routes
    assert "198.51.100.0/24 dev blue0 scope link" in routes
    assert "default via fd00:5::1" in inside(host, "one", "-6", "route")
    assert endpoint.mac_address in inside(host, "one", "link", "show", "blue0")
    wished = EndpointSettings(
        mac_address="02:00:00:00:00:07",
        ipam_config=EndpointIpamConfig(ipv4_address="10.5.0.77"),
        driver_opts={"com.docker.network.endpoint.ifname": "mine"},
    )
    endpoint = host.attach("two", "net", settings=wished)
    assert (endpoint.interface, endpoint.ip_address) == ("mine", "10.5.0.77")
    assert "02:00:00:00:00:07" in inside(host, "two", "link", "show", "mine")


def test_addresses_may_be_the_drivers_own(host: Plugged) -> None:
    host.networks.create(spec(ipam_driver="null", options={"address": "10.9.9.9/24"}))
    data = host.plugin.calls("NetworkDriver.CreateNetwork")[0]["IPv4Data"]
    assert data == [{"AddressSpace": "null", "Pool": "0.0.0.0/0", "Gateway": "0.0.0.0/0"}]
    endpoint = host.attach("one", "net")
    assert (endpoint.ip_address, endpoint.ip_prefix_len) == ("10.9.9.9", 24)
    assert "10.9.9.9/24" in inside(host, "one", "addr")
    with pytest.raises(InvalidArgument, match="need addresses"):
        host.networks.create(NetworkSpec(name="no", driver="bridge", ipam_driver="null"))


@pytest.mark.parametrize("method", ["CreateEndpoint", "Join", "ProgramExternalConnectivity"])
@pytest.mark.parametrize("how", ["no way", "die", "garbage"])
def test_a_step_that_fails_is_undone(host: Plugged, method: str, how: str) -> None:
    host.networks.create(spec())
    host.plugin.behave(**{method: how})
    with pytest.raises(EstibaError, match="no way" if how == "no way" else "plugin blue"):
        host.attach("one", "net")
    assert not host.networks.endpoints(host.networks.network("net").id)
    assert "eth0" not in inside(host, "one", "link")
    if how == "die":
        host.plugin.kill()
        host.plugin.start()
        host.networks.close_sandbox("one")
        host.plugin.behave()
        host.attach("one", "net")
        host.networks.close_sandbox("one")
    host.plugin.behave()
    assert not host.plugin.state()["endpoints"]
    host.attach("two", "net")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"InterfaceName": {"SrcName": "nowhere", "DstPrefix": "eth"}}', "not on this host"),
        ('{"InterfaceName": {"SrcName": "lo", "DstPrefix": "eth"}}', "no usable SrcName"),
        ('{"InterfaceName": {"SrcName": "up0", "DstPrefix": "eth"}}', "the host itself uses"),
        ('{"InterfaceName": {"SrcName": "up1", "DstPrefix": "eth"}}', "the host itself uses"),
        ('{"InterfaceName": {"SrcName": "x", "DstPrefix": "a/b"}}', "no usable DstPrefix"),
        ('{"Gateway": "10.5.0.300"}', "no IPv4 gateway"),
        ('{"StaticRoutes": [{"Destination": "all"}]}', "no destination"),
        ('{"InterfaceName": 7}', "not what the protocol says"),
    ],
)
def test_answers_that_make_no_sense_are_refused(host: Plugged, answer: str, words: str) -> None:
    host.networks.create(spec(options={"join": answer}))
    with pytest.raises(EstibaError, match=words):
        host.attach("one", "net")
    assert not host.plugin.state()["endpoints"]


def test_what_the_plugin_may_not_have(host: Plugged) -> None:
    with pytest.raises(NotFound, match='plugin "red" not found'):
        host.networks.create(NetworkSpec(name="no", driver="red"))
    host.plugin.kill()
    host.plugin.settings["PLUGIN_CAPABILITIES"] = '{"scope": "global"}'
    host.plugin.start()
    with pytest.raises(Unavailable, match="not a swarm manager"):
        host.networks.create(spec())
    host.plugin.kill()
    host.plugin.settings["PLUGIN_CAPABILITIES"] = '{"scope": "cosmic"}'
    host.plugin.start()
    with pytest.raises(Internal, match="invalid capability"):
        host.networks.create(spec())
    host.plugin.kill()
    host.plugin.settings["PLUGIN_CAPABILITIES"] = "{}"
    host.plugin.start()
    host.plugin.behave(CreateNetwork="no room")
    with pytest.raises(PluginError, match="remote: no room"):
        host.networks.create(spec())
    with pytest.raises(NotFound):
        host.networks.network("net")


def test_a_plugin_that_hangs_keeps_no_other_network_waiting(host: Plugged) -> None:
    host.networks.create(spec("before"))
    host.plugin.behave(GetCapabilities="hang", CreateEndpoint="hang")
    failures: list[str] = []

    def attempt(step: object) -> None:
        try:
            step()  # type: ignore[operator]
        except EstibaError as error:
            failures.append(str(error))

    threads = [
        threading.Thread(target=attempt, args=(lambda: host.networks.create(spec("hangs")),)),
        threading.Thread(target=attempt, args=(lambda: host.attach("stuck", "before"),)),
    ]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: (
            {"NetworkDriver.CreateEndpoint"} <= set(host.plugin.methods())
            and host.plugin.methods().count("NetworkDriver.GetCapabilities") == 2
        ),
        what="both to hang",
    )
    begin = time.monotonic()
    host.networks.create(NetworkSpec(name="other"))
    host.attach("free", "other")
    host.networks.close_sandbox("free")
    host.networks.remove("other")
    assert time.monotonic() - begin < 1.5
    for thread in threads:
        thread.join()
    assert len(failures) == 2
    assert all("no answer in time" in words for words in failures)
    host.plugin.behave()
    # The call that was given up may still have been served: the next start sees to it.
    wait_until(lambda: host.plugin.state()["endpoints"], what="the plugin to do it after all")
    host.restarted()
    assert not host.plugin.state()["endpoints"]


# -- the engine's life -------------------------------------------------------------------------


def test_an_engine_starts_without_the_plugin_and_goes_on_with_it(host: Plugged) -> None:
    host.networks.create(spec())
    before = host.attach("one", "net")
    host.plugin.kill()
    host.plugin.socket.unlink()
    networks = host.restarted(["one"])
    assert [one.ip_address for one in networks.endpoints(networks.network("net").id)] == [
        before.ip_address
    ]
    with pytest.raises(NotFound, match='plugin "blue" not found'):
        host.attach("two", "net")
    host.plugin.start()
    assert host.attach("two", "net").ip_address != before.ip_address
    networks.close_sandbox("one")
    assert len(host.plugin.state()["endpoints"]) == 1


def test_a_container_ends_although_the_plugin_is_dead(host: Plugged) -> None:
    host.networks.create(spec())
    host.attach("one", "net")
    host.plugin.kill()
    begin = time.monotonic()
    host.networks.close_sandbox("one")
    assert time.monotonic() - begin < 3
    host.plugin.start()
    host.attach("one", "net")
    host.networks.close_sandbox("one")


@pytest.mark.parametrize(
    "point",
    ["plugin-network-made", "plugin-endpoint-made", "plugin-joined", "plugin-link-moved"],
)
def test_an_engine_killed_at_a_step_leaves_nothing(
    host: Plugged, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from estiba.network import remote

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == f"network.{point}":
            raise Killed

    if point != "plugin-network-made":
        host.networks.create(spec())
    monkeypatch.setattr(remote.failpoint, "hit", die)
    # Nothing is undone: a dead engine does nothing any more.
    monkeypatch.setattr(remote.RemoteDriver, "disconnect", lambda *arguments: None)
    monkeypatch.setattr(remote.RemoteDriver, "remove", lambda *arguments: None)
    monkeypatch.setattr(host.networks._catalog, "_erase", lambda record: None)
    with pytest.raises(Killed):
        if point == "plugin-network-made":
            host.networks.create(spec())
        else:
            host.attach("one", "net")
    monkeypatch.undo()
    host.restarted()
    assert not host.plugin.state()["endpoints"]
    host.attach("two", "net")
    host.networks.close_sandbox("two")
    assert host.networks.network("net").driver == "blue"


# -- addresses ---------------------------------------------------------------------------------


def test_addresses_come_from_a_plugin(host: Plugged) -> None:
    record = host.networks.create(
        NetworkSpec(
            name="leased",
            enable_ipv6=True,
            ipam_driver="blue",
            ipam_options={"rack": "7"},
            pools=[IpamConfig(auxiliary_addresses={"printer": "10.88.1.200"})],
        )
    )
    assert [pool.subnet for pool in record.pools] == ["10.88.1.0/24", "fd00:10:88:2::/64"]
    assert [pool.gateway for pool in record.pools] == ["10.88.1.1", "fd00:10:88:2::1"]
    assert record.pool_ids == ["here/10.88.1.0/24", "here/fd00:10:88:2::/64"]
    pools = host.plugin.state()["pools"]
    assert pools["here/10.88.1.0/24"]["options"] == {"rack": "7"}
    assert set(pools["here/10.88.1.0/24"]["used"]) == {"10.88.1.1", "10.88.1.200"}
    one = host.attach("one", "leased")
    assert (one.ip_address, one.ipv6_address) == ("10.88.1.50", "fd00:10:88:2::32")
    wished = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="10.88.1.99"))
    two = host.attach("two", "leased", settings=wished)
    assert two.ip_address == "10.88.1.99"
    host.serve(host.networks.sandbox_path("one"), 80)
    assert host.ask(host.networks.sandbox_path("two"), "10.88.1.50", 80) == "10.88.1.99"
    with pytest.raises(PluginError, match=r"10\.88\.1\.99 is taken"):
        host.attach("three", "leased", settings=wished)
    host.networks.close_sandbox("two")
    again = host.attach("two", "leased", before=two)
    assert again.ip_address == "10.88.1.99", "what it had before"
    for container in ("one", "two"):
        host.networks.close_sandbox(container)
    assert set(host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"]) == {
        "10.88.1.1",
        "10.88.1.200",
    }
    host.networks.remove("leased")
    assert not host.plugin.state()["pools"]


def test_a_network_that_fails_gives_its_pools_back(host: Plugged) -> None:
    host.plugin.behave(RequestAddress="none left")
    with pytest.raises(PluginError, match="none left"):
        host.networks.create(NetworkSpec(name="no", ipam_driver="blue"))
    host.plugin.behave()
    assert not host.plugin.state()["pools"]
    taken = str(ip_network("10.88.1.0/24"))
    host.networks.create(NetworkSpec(name="first", pools=[IpamConfig(subnet=taken)]))
    with pytest.raises(Forbidden, match="overlaps"):
        host.networks.create(NetworkSpec(name="second", ipam_driver="blue"))
    assert not host.plugin.state()["pools"]


def test_a_plugin_that_keeps_nothing_is_asked_again(host: Plugged) -> None:
    host.plugin.settings["PLUGIN_CAPABILITIES"] = '{"replay": true, "mac": true}'
    host.plugin.kill()
    host.plugin.start()
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    one = host.attach("one", "leased")
    used = host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"]
    assert used[one.ip_address] == {"com.docker.network.endpoint.macaddress": one.mac_address}
    host.plugin.kill()
    (host.plugin.root / "state").unlink()
    host.plugin.start()
    host.restarted(["one"])
    used = host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"]
    assert set(used) == {"10.88.1.1", one.ip_address}
    assert host.attach("two", "leased").ip_address == "10.88.1.51"


def test_addresses_of_an_engine_that_died_are_given_back(
    host: Plugged, monkeypatch: pytest.MonkeyPatch
) -> None:
    from estiba.network import bridge

    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "network.veth-made":
            raise Killed

    monkeypatch.setattr(bridge.failpoint, "hit", die)
    monkeypatch.setattr(bridge.BridgeDriver, "disconnect", lambda *arguments: None)
    with pytest.raises(Killed):
        host.attach("one", "leased")
    monkeypatch.undo()
    assert "10.88.1.50" in host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"]
    host.restarted()
    assert set(host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"]) == {"10.88.1.1"}


@pytest.mark.parametrize("how", ["hang", "die", "garbage"])
def test_a_plugin_of_addresses_that_misbehaves(host: Plugged, how: str) -> None:
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    host.plugin.behave(RequestAddress=how)
    with pytest.raises(Unavailable, match=r"plugin blue: IpamDriver\.RequestAddress"):
        host.attach("one", "leased")
    host.attach("free", "bridge")
    host.networks.close_sandbox("free")
    host.plugin.behave()
    if how == "die":
        host.plugin.kill()
        host.plugin.start()
    assert host.attach("two", "leased").ip_address.startswith("10.88.1.")


def test_an_address_that_another_has_is_not_taken(host: Plugged) -> None:
    """A plugin that forgets, or lies: who has the gateway's address might speak for it."""
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    assert host.attach("one", "leased").ip_address == "10.88.1.50"
    state = host.plugin.state()
    state["pools"]["here/10.88.1.0/24"]["used"] = {}
    (host.plugin.root / "state").write_text(json.dumps(state))
    with pytest.raises(Internal, match=r"gave the address 10\.88\.1\.50, which is taken"):
        host.attach("two", "leased")
    wished = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="10.88.1.1"))
    with pytest.raises(Internal, match=r"gave the address 10\.88\.1\.1, which is taken"):
        host.attach("three", "leased", settings=wished)
    assert host.attach("four", "leased").ip_address == "10.88.1.51"


def test_a_plugin_hears_of_other_nodes(host: Plugged) -> None:
    """What the cluster will tell; one that does not want to know is no error."""
    driver = RemoteDriver(
        "blue", host.engine_registry(), (), lambda network: NoAddresses(), Notes(host.root / "n")
    )
    driver.discover("192.0.2.7", is_new=True)
    driver.discover("192.0.2.7", is_new=False)
    for method in ("DiscoverNew", "DiscoverDelete"):
        (call,) = host.plugin.calls(f"NetworkDriver.{method}")
        assert call["DiscoveryType"] == 1
        assert call["DiscoveryData"] == {"Address": "192.0.2.7", "self": False}
