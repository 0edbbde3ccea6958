"""macvlan between namespaces, and ipvlan and VLANs as far as the kernel has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_interface
from pathlib import Path

import pytest
from tests.kernel.network.private_host import Host
from tests.kernel.network.probes import addresses, default_route, links, ping

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import ensure_netns, remove_netns, run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import FailedPrecondition, Forbidden, InvalidArgument
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec

pytestmark = pytest.mark.kernel

LAN = [
    IpamConfig(subnet="10.50.0.0/24", gateway="10.50.0.1"),
    IpamConfig(subnet="fd00:50::/64", gateway="fd00:50::1"),
]


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Path]:
    """A neighbour at the other end of the host's link `lan0`: 10.50.0.1, fd00:50::1."""
    neighbour = tmp_path / "neighbour"

    def inside() -> None:
        with NetlinkSocket() as handle:
            index = rtnetlink.get_link(handle, "lan1").index
            handle.execute(
                rtnetlink.set_link("lan1", up=True),
                rtroutes.add_address(index, ip_interface("10.50.0.1/24")),
                rtroutes.add_address(index, ip_interface("fd00:50::1/64")),
            )
            rtnetlink.settle_carrier(handle, "lan1")

    with NetlinkSocket() as handle, ExitStack() as stack:
        ensure_netns(neighbour)
        stack.callback(remove_netns, neighbour)
        there = os.open(neighbour, os.O_RDONLY)
        stack.callback(os.close, there)
        handle.execute(rtnetlink.add_local_pair("lan0", "lan1"))
        stack.callback(handle.execute, rtnetlink.delete_link("lan0"))
        handle.execute(
            rtnetlink.set_link("lan1", netns_fd=there), rtnetlink.set_link("lan0", up=True)
        )
        run_in_netns(neighbour, inside)
        rtnetlink.settle_carrier(handle, "lan0")
        stack.callback(lambda: host.networks.sweep([]))
        yield neighbour


def create(host: Host, mode: str = "", **more: object) -> NetworkRecord:
    options = {"parent": "lan0"} | ({"macvlan_mode": mode} if mode else {})
    spec = NetworkSpec(
        name=f"lan{mode}",
        driver="macvlan",
        enable_ipv6=True,
        pools=LAN,
        options=options,
        **more,  # type: ignore[arg-type]
    )
    return host.networks.create(spec)


def test_neighbours_on_the_hosts_network(host: Host, lan: Path) -> None:
    create(host)
    settings = EndpointSettings(
        ipam_config=EndpointIpamConfig(ipv4_address="10.50.0.9", ipv6_address="fd00:50::9"),
        mac_address="02:00:00:00:50:09",
    )
    one = host.attach("one", network="lan", settings=settings)
    two = host.attach("two", network="lan")
    here = host.networks.sandbox_path("one")
    for address in ("10.50.0.1", "fd00:50::1", two.ip_address, two.ipv6_address):
        assert ping(here, address), address
    assert ping(lan, "10.50.0.9") and ping(lan, "fd00:50::9")
    eth0 = links(here)["eth0"]
    assert (eth0.kind, eth0.mac, one.mac_address) == ("macvlan", "02:00:00:00:50:09", eth0.mac)
    assert "via 10.50.0.1 dev eth0" in default_route(here, 4)
    assert "via fd00:50::1 dev eth0" in default_route(here, 6)
    assert host.networks.interface_statistics("one")["eth0"].rx_packets > 0
    assert not ping(here, "10.50.0.77", 0.3)


def test_private_ones_reach_the_network_and_not_each_other(host: Host, lan: Path) -> None:
    create(host, "private")
    host.attach("one", network="lanprivate")
    two = host.attach("two", network="lanprivate")
    here = host.networks.sandbox_path("one")
    assert ping(here, "10.50.0.1")
    assert not ping(here, two.ip_address, 0.5)


def test_vepa_leaves_it_to_the_switch(host: Host, lan: Path) -> None:
    """The neighbour does not send frames back by the port that they came from."""
    create(host, "vepa")
    host.attach("one", network="lanvepa")
    two = host.attach("two", network="lanvepa")
    assert ping(host.networks.sandbox_path("one"), "10.50.0.1")
    assert not ping(host.networks.sandbox_path("one"), two.ip_address, 0.5)


def test_passthru_has_room_for_one(host: Host, lan: Path) -> None:
    create(host, "passthru")
    one = host.attach("one", network="lanpassthru")
    assert ping(host.networks.sandbox_path("one"), "10.50.0.1")
    with pytest.raises(FailedPrecondition, match="room for one container"):
        host.attach("two", network="lanpassthru")
    spec = NetworkSpec(name="second", driver="macvlan", options={"parent": "lan0"})
    with pytest.raises(Forbidden, match="already using parent interface lan0"):
        host.networks.create(spec)
    host.networks.disconnect("one", one)
    assert host.attach("two", network="lanpassthru").ip_address


@pytest.mark.parametrize("mode", ["bridge", "passthru"])
def test_it_starts_again_while_the_kernel_still_clears_away_the_last_run(
    host: Host, lan: Path, mode: str
) -> None:
    network = create(host, mode).name
    before = host.attach("one", network=network)
    for _ in range(20):
        host.networks.close_sandbox("one")
        assert host.attach("one", network=network, before=before).mac_address == before.mac_address


def test_a_mac_that_another_container_has(host: Host, lan: Path) -> None:
    network = create(host)
    settings = EndpointSettings(mac_address="02:00:00:00:50:09")
    one = host.attach("one", network="lan", settings=settings)
    with pytest.raises(FailedPrecondition, match="02:00:00:00:50:09 is in use on lan0"):
        host.attach("two", network="lan", settings=settings)
    assert host.networks.endpoints(network.id) == [one]
    host.networks.close_sandbox("one")
    assert host.attach("two", network="lan", settings=settings).mac_address == "02:00:00:00:50:09"


def test_without_a_parent_it_is_internal(host: Host) -> None:
    network = host.networks.create(NetworkSpec(name="alone", driver="macvlan"))
    assert network.internal and network.owns_parent
    one, two = (host.attach(name, network="alone") for name in ("one", "two"))
    assert ping(host.networks.sandbox_path("one"), two.ip_address)
    assert (one.gateway, default_route(host.networks.sandbox_path("one"), 4)) == ("", "")
    host.networks.sweep([])
    host.networks.remove("alone")
    host.networks.drain()
    with NetlinkSocket() as handle:
        assert not [k for k in rtnetlink.list_links(handle) if k.name.startswith(("dm-", "dp-"))]


def test_it_comes_and_goes_beside_other_networks(host: Host, lan: Path) -> None:
    create(host)
    host.attach("one")
    here = host.networks.sandbox_path("one")
    host.networks.create(NetworkSpec(name="blue"))
    for network in ("lan", "blue", "lan", "lan", "blue"):
        joined = host.attach("one", network=network)
        assert joined.interface == "eth1"
        own = f"{joined.ip_address}/{joined.ip_prefix_len}"
        assert own in addresses(here, "eth1"), "although the one before is still on its way out"
        host.networks.disconnect("one", joined)
    host.networks.drain()
    assert set(links(here)) & {"eth0", "eth1"} == {"eth0"}
    assert "dev eth0" in default_route(here, 4)


def test_a_restarted_engine_knows_who_has_which_address(host: Host, lan: Path) -> None:
    create(host)
    one = host.attach("one", network="lan")
    networks = host.again()
    networks.restore([one])
    assert host.attach("two", network="lan").ip_address != one.ip_address
    wanted = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address=one.ip_address))
    with pytest.raises(Forbidden, match="container name-one has it"):
        host.attach("three", network="lan", settings=wanted)
    networks.disconnect("one", one)
    assert host.attach("three", network="lan", settings=wanted).ip_address == one.ip_address


def test_a_parent_that_went_away(host: Host, lan: Path, caplog: pytest.LogCaptureFixture) -> None:
    create(host)
    subprocess.run(["ip", "link", "set", "lan0", "name", "lan9"], check=True)
    with pytest.raises(FailedPrecondition, match="parent interface lan0 of network lan is not"):
        host.attach("one", network="lan")
    host.again().restore([])
    subprocess.run(["ip", "link", "set", "lan9", "name", "lan0"], check=True)
    subprocess.run(["ip", "link", "set", "lan0", "up"], check=True)
    host.attach("one", network="lan")
    assert ping(host.networks.sandbox_path("one"), "10.50.0.1")


def has_kind(kind: str) -> bool:
    with NetlinkSocket() as handle:
        return rtnetlink.has_kind(handle, kind)


def test_a_vlan_of_the_parent(host: Host, lan: Path) -> None:
    spec = NetworkSpec(name="tagged", driver="macvlan", options={"parent": "lan0.50"})
    if not has_kind("vlan"):
        with pytest.raises(FailedPrecondition, match=r"sub-interface lan0\.50: .*CONFIG_VLAN"):
            host.networks.create(spec)
        return
    assert host.networks.create(spec).owns_parent
    assert "lan0.50" in os.listdir("/sys/class/net")
    host.networks.remove("tagged")
    assert "lan0.50" not in os.listdir("/sys/class/net")


def test_ipvlan(host: Host, lan: Path) -> None:
    spec = NetworkSpec(name="ip", driver="ipvlan", pools=LAN[:1], options={"parent": "lan0"})
    if not has_kind("ipvlan"):
        with pytest.raises(FailedPrecondition, match=r"kernel has no ipvlan links.*CONFIG_IPV"):
            host.networks.create(spec)
        return
    host.networks.create(spec)
    host.attach("one", network="ip")
    assert ping(host.networks.sandbox_path("one"), "10.50.0.1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parent": "nowhere"}, "parent interface was not found on the host: nowhere"),
        ({"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
        ({"parent": "nowhere.5"}, "failed to find master interface nowhere"),
        ({"parent": "lan0.4095"}, "vlan id must be between 1-4094, received: 4095"),
        ({"parent": "lan0.x"}, "invalid subinterface vlan name lan0.x"),
        ({"parent": "lan0", "macvlan_mode": "x"}, "requested macvlan mode 'x' is not valid"),
    ],
)
def test_requests_that_make_no_sense(
    host: Host, lan: Path, options: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        host.networks.create(NetworkSpec(name="bad", driver="macvlan", options=options))
    assert len(host.networks.networks()) == 3
