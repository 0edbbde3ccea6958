"""Addresses that a plugin in a process of its own manages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.kernel.network.plugged_host import HASTY, Plugged, plugged

from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import (
    Forbidden,
    Internal,
    Unavailable,
)
from estiba.network.notes import Notes
from estiba.network.record import IpamConfig, NetworkSpec
from estiba.network.remote import RemoteDriver
from estiba.network.remoteipam import NoAddresses
from estiba.plugins.client import PluginError

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Plugged]:
    yield from plugged(tmp_path)


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


def die_before_the_link(host: Plugged, container: str) -> None:
    """As an engine does that is killed."""
    from estiba.network import bridge

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "network.veth-made":
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bridge.failpoint, "hit", die)
        patched.setattr(bridge.BridgeDriver, "disconnect", lambda *arguments: None)
        with pytest.raises(Killed):
            host.attach(container, "leased")


def used(host: Plugged) -> set[str]:
    return set(host.plugin.state()["pools"]["here/10.88.1.0/24"]["used"])


def test_addresses_of_an_engine_that_died_are_given_back(host: Plugged) -> None:
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    die_before_the_link(host, "one")
    assert "10.88.1.50" in used(host)
    host.restarted()
    assert used(host) == {"10.88.1.1"}


def test_addresses_are_given_back_once_their_plugin_is_there_again(host: Plugged) -> None:
    """It may be a container itself, and begin later than the engine."""
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    die_before_the_link(host, "one")
    host.plugin.kill()
    host.restarted()
    host.plugin.start()
    assert "10.88.1.50" in used(host)
    host.restarted()
    assert used(host) == {"10.88.1.1"}


def test_a_container_that_comes_back_gives_back_what_its_plugin_did_not_hear_of(
    host: Plugged,
) -> None:
    host.networks.create(NetworkSpec(name="leased", ipam_driver="blue"))
    one = host.attach("one", "leased")
    host.plugin.kill()
    host.networks.close_sandbox("one")
    host.plugin.start()
    assert host.attach("one", "leased", before=one).ip_address == one.ip_address
    host.networks.close_sandbox("one")
    assert used(host) == {"10.88.1.1"}


@pytest.mark.parametrize("how", ["hang", "die", "garbage"])
def test_a_plugin_of_addresses_that_misbehaves(host: Plugged, how: str) -> None:
    host.patience = HASTY
    host.restarted()
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
