"""Networks of a plugin in a process of its own, with real packets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.network.plugged_host import HASTY, Plugged, inside, plugged, spec
from tests.support.daemon import wait_until

from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import (
    EstibaError,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from estiba.network.record import IpamConfig, NetworkSpec, PortRequest
from estiba.plugins.client import PluginError

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Plugged]:
    yield from plugged(tmp_path)


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
    host.patience = HASTY
    host.restarted()
    host.networks.create(spec("before"))
    known = host.plugin.methods().count("NetworkDriver.GetCapabilities")
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
            and host.plugin.methods().count("NetworkDriver.GetCapabilities") == known + 1
        ),
        what="both to hang",
    )
    host.networks.create(NetworkSpec(name="other"))
    host.attach("free", "other")
    host.networks.close_sandbox("free")
    host.networks.remove("other")
    assert threads[1].is_alive(), "it hangs still"
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
    assert time.monotonic() - begin < 10
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
