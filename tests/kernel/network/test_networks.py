"""Networks, sandboxes and endpoints on the kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host
from tests.kernel.network.probes import addresses, default_route, fixed, gateways, links, ping
from tests.support.daemon import wait_until

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    NotFound,
)
from estiba.network.record import IpamConfig, NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel


def test_containers_ping_each_other_the_host_and_the_outside(host: Host) -> None:
    one, two = host.attach("one"), host.attach("two")
    here = host.networks.sandbox_path("one")
    for address in (two.ip_address, one.gateway, HOST_ADDRESS, OUTSIDE_ADDRESS, "127.0.0.1"):
        assert ping(here, address), address


def test_a_container_leaves_with_the_hosts_address(host: Host) -> None:
    host.attach("one")
    host.serve(host.outside, 7000)
    assert host.ask(host.networks.sandbox_path("one"), OUTSIDE_ADDRESS, 7000) == HOST_ADDRESS


def test_the_interface_is_as_inspect_says(host: Host) -> None:
    settings = fixed("172.17.9.9", mac_address="02:00:00:AA:bb:01")
    endpoint = host.attach("one", settings=settings)
    eth0 = links(host.networks.sandbox_path("one"))["eth0"]
    assert endpoint.settings.mac_address == eth0.mac == "02:00:00:aa:bb:01"
    assert endpoint.settings.ip_address == "172.17.9.9"
    assert endpoint.settings.gateway == "172.17.0.1"
    assert endpoint.settings.ip_prefix_len == 16
    assert eth0.is_up
    assert eth0.mtu == 1500


def test_ipv6_is_off_but_for_loopback(host: Host) -> None:
    host.attach("one")

    def inside() -> dict[str, list[str]]:
        with NetlinkSocket() as handle:
            names = {link.index: link.name for link in rtnetlink.list_links(handle)}
            found: dict[str, list[str]] = {}
            for index, address in rtroutes.list_addresses(handle):
                found.setdefault(names[index], []).append(str(address))
            return found

    addresses = run_in_netns(host.networks.sandbox_path("one"), inside)
    assert addresses == {"lo": ["127.0.0.1/8", "::1/128"], "eth0": ["172.17.0.2/16"]}


def test_an_address_in_use_is_refused(host: Host) -> None:
    host.attach("one", settings=fixed("172.17.0.50"))
    with pytest.raises(Forbidden, match=r"Address already in use: 172\.17\.0\.50"):
        host.attach("two", settings=fixed("172.17.0.50"))
    with pytest.raises(InvalidArgument, match="It does not belong to any of this"):
        host.attach("two", settings=fixed("10.0.0.1"))
    with pytest.raises(InvalidArgument, match="invalid MAC address"):
        host.attach("two", settings=EndpointSettings(mac_address="01:00:00:00:00:01"))


def test_an_address_comes_back_with_another_mac_at_once(host: Host) -> None:
    """Host and neighbours hear of it before they have asked, which they would not for seconds."""
    config = [IpamConfig(subnet="10.9.0.0/24"), IpamConfig(subnet="fd09::/64")]
    host.networks.create(NetworkSpec(name="blue", enable_ipv6=True, pools=config))
    both = ("10.9.0.60", "fd09::60")
    settings = EndpointSettings(
        ipam_config=EndpointIpamConfig(ipv4_address=both[0], ipv6_address=both[1])
    )
    host.attach("other", "blue")
    askers = (None, host.networks.sandbox_path("other"))
    one = host.attach("one", "blue", settings=settings)
    for address in both:
        host.serve(host.networks.sandbox_path("one"), 80, address=address)
        for asker in askers:
            assert host.ask(asker, address, 80)
            assert one.mac_address in neighbours(host, asker, address)
    host.networks.disconnect("one", one)
    wait_until(
        lambda: not Path("/sys/class/net", one.host_interface).exists(), what="its link's end"
    )
    two = host.attach("two", "blue", settings=settings)
    for address in both:
        for asker in askers:
            wait_until(
                lambda a=asker, b=address: two.mac_address in neighbours(host, a, b),
                what=f"the new neighbour {address} of {asker or 'the host'}",
            )


def neighbours(host: Host, where: Path | None, address: str) -> str:
    return host.command(where, "ip", "neigh", "show", address)


def test_everything_twice_is_harmless(host: Host) -> None:
    first = host.attach("one")
    second = host.attach("one")
    assert second.id == first.id
    assert len(host.networks.endpoints(first.network_id)) == 1
    for _ in range(2):
        host.networks.disconnect("one", second)
        host.networks.close_sandbox("one")
    assert host.networks.endpoints(first.network_id) == []


def test_closing_a_sandbox_disconnects_what_is_left(host: Host) -> None:
    endpoint = host.attach("one", settings=fixed("172.17.0.70"))
    host.networks.close_sandbox("one")
    assert host.networks.endpoints(endpoint.network_id) == []
    assert host.attach("two", settings=fixed("172.17.0.70")).ip_address == "172.17.0.70"


def test_connecting_anew_at_once_does_not_meet_the_reaper(host: Host) -> None:
    for _ in range(10):
        endpoint = host.attach("one")
        assert "eth0" in links(host.networks.sandbox_path("one"))
        host.networks.disconnect("one", endpoint)
        host.networks.close_sandbox("one")


def test_connecting_needs_a_sandbox_and_leaves_nothing(host: Host) -> None:
    with pytest.raises(FileNotFoundError):
        host.networks.connect("none", container_name="n", network="bridge")
    assert host.attach("one").ip_address == "172.17.0.3"
    assert len(host.networks.endpoints(host.networks.network("bridge").id)) == 1


def test_counters_are_those_of_the_container(host: Host) -> None:
    endpoint = host.attach("one")
    before = host.networks.interface_statistics("one")["eth0"]
    assert ping(host.networks.sandbox_path("one"), endpoint.gateway)
    after = host.networks.interface_statistics("one")["eth0"]
    assert after.tx_bytes - before.tx_bytes >= 84
    assert after.rx_packets > before.rx_packets
    assert host.networks.interface_statistics("nobody") == {}


def test_host_and_none(host: Host) -> None:
    for name in ("host", "none"):
        endpoint = host.attach(name, network=name)
        assert (endpoint.network_name, endpoint.ip_address, endpoint.interface) == (name, "", "")
        host.networks.disconnect(name, endpoint)
    assert set(links(host.networks.sandbox_path("none"))) >= {"lo"}
    assert "eth0" not in links(host.networks.sandbox_path("none"))


def test_networks_are_found_by_name_id_and_prefix(host: Host) -> None:
    networks = host.networks
    bridge = networks.network("bridge")
    assert networks.network("default") == networks.network(bridge.id[:12]) == bridge
    with pytest.raises(NotFound, match="network nowhere not found"):
        networks.network("nowhere")
    again = host.again()
    assert [one.id for one in again.networks()] == [one.id for one in networks.networks()]


def test_what_a_container_had_it_gets_again_while_it_is_free(host: Host) -> None:
    first = host.attach("one")
    host.networks.close_sandbox("one")
    host.attach("two")
    again = host.attach("one", before=first)
    assert (again.ip_address, again.mac_address) == (first.ip_address, first.mac_address)
    host.networks.close_sandbox("one")
    host.attach("three", settings=fixed(first.ip_address))
    assert host.attach("one", before=first).ip_address not in ("", first.ip_address)


def test_interfaces_bear_the_names_that_are_asked_for(host: Host) -> None:
    host.networks.create(NetworkSpec(name="blue"))
    host.networks.create(NetworkSpec(name="green"))
    assert host.attach("one", interface="lan0").interface == "lan0"
    assert host.attach("one", network="blue").interface == "eth0"
    with pytest.raises(Conflict, match="interface name eth0 is taken in container name-one"):
        host.attach("one", network="green", interface="eth0")
    assert set(links(host.networks.sandbox_path("one"))) >= {"lo", "lan0", "eth0"}


def test_a_connection_that_fails_leaves_the_way_out(host: Host) -> None:
    host.networks.create(NetworkSpec(name="a-first"))
    host.attach("one")
    before = gateways(host.networks.sandbox_path("one"))
    host.attach("two", ports=[PortRequest(container_port=80, host_port="8088")])
    taken = [PortRequest(container_port=81, host_port="8088")]
    with pytest.raises(Conflict):
        host.attach("one", network="a-first", ports=taken)
    host.networks.drain()
    assert gateways(host.networks.sandbox_path("one")) == before


def test_a_network_of_ones_own(host: Host) -> None:
    spec = NetworkSpec(
        name="blue",
        pools=[IpamConfig(subnet="10.77.0.0/24", gateway="10.77.0.254", ip_range="10.77.0.128/25")],
        labels={"colour": "blue"},
        options={"com.docker.network.driver.mtu": "1400"},
    )
    blue = host.networks.create(spec)
    endpoint = host.attach(
        "one", network="blue", hostname="first", settings=EndpointSettings(aliases=["web"])
    )
    assert (endpoint.ip_address, endpoint.gateway) == ("10.77.0.128", "10.77.0.254")
    assert endpoint.dns_names == ["name-one", "web", "one", "first"]
    assert host.attach("two").dns_names == [], "on the default one nobody asks for names"
    assert links(host.networks.sandbox_path("one"))["eth0"].mtu == 1400
    assert ping(host.networks.sandbox_path("one"), OUTSIDE_ADDRESS)
    with pytest.raises(AlreadyExists, match="network with name blue already exists"):
        host.networks.create(replace_pools(spec))
    with pytest.raises(Forbidden, match="has active endpoints: disconnect name-one first"):
        host.networks.remove("blue")
    host.again().restore([endpoint])
    assert host.networks.network("blue") == blue
    host.networks.disconnect("one", endpoint)
    host.networks.remove(blue.id)
    assert [one.name for one in host.networks.networks()] == ["bridge", "host", "none"]


def replace_pools(spec: NetworkSpec) -> NetworkSpec:
    return NetworkSpec(name=spec.name)


def test_networks_do_not_reach_each_other(host: Host) -> None:
    host.networks.create(NetworkSpec(name="blue"))
    one, two = host.attach("one"), host.attach("two", network="blue")
    assert one.gateway != two.gateway
    assert not ping(host.networks.sandbox_path("one"), two.ip_address, 1)
    assert ping(host.networks.sandbox_path("one"), two.gateway)
    two_again = host.networks.connect("one", container_name="one", network="blue")
    assert two_again.interface == "eth1"
    assert ping(host.networks.sandbox_path("one"), two.ip_address)


def test_an_internal_network_stays_inside(host: Host) -> None:
    host.networks.create(NetworkSpec(name="inner", internal=True))
    one, two = host.attach("one", network="inner"), host.attach("two", network="inner")
    here = host.networks.sandbox_path("one")
    assert one.gateway == ""
    assert gateways(here) == ""
    assert ping(here, two.ip_address)
    subnet = host.networks.network("inner").pools[0]
    command = ["nsenter", f"--net={here}", "ip", "route", "add", "default", "via", subnet.gateway]
    subprocess.run(command, check=True)
    assert not ping(here, OUTSIDE_ADDRESS, 1)


def test_a_container_that_is_connected_is_heard_at_once(host: Host) -> None:
    """Its port, its interface and the bridge do not wait for the kernel to find their carriers."""
    host.networks.create(NetworkSpec(name="blue"))
    for number in range(20):
        endpoint = host.attach(f"c{number}", network="blue")
        command = ["bridge", "link", "show", "dev", endpoint.host_interface]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "state forwarding" in shown.stdout


def test_without_icc_neighbours_are_silent(host: Host) -> None:
    networks = host.again(icc=False)
    networks.restore([])
    one, two = host.attach("one"), host.attach("two")
    here = networks.sandbox_path("one")
    assert not ping(here, two.ip_address, 1)
    assert ping(here, one.gateway)
    assert ping(here, OUTSIDE_ADDRESS)
    detour = ["nsenter", f"--net={here}", "ip", "route", "add", two.ip_address, "via", one.gateway]
    subprocess.run(detour, check=True)
    assert not ping(here, two.ip_address, 1)


def test_the_default_route_goes_to_the_highest_priority(host: Host) -> None:
    host.networks.create(NetworkSpec(name="blue"))
    host.networks.create(NetworkSpec(name="red"))
    here = host.networks.sandbox_path("one")
    blue = host.attach("one", network="blue")
    red = host.attach("one", network="red", settings=EndpointSettings(gw_priority=1))
    bridge = host.attach("one")
    assert (blue.interface, red.interface, bridge.interface) == ("eth0", "eth1", "eth2")
    assert f"via {red.gateway} dev eth1" in gateways(here)
    host.networks.disconnect("one", red)
    host.networks.drain()
    assert f"via {blue.gateway} dev eth0" in gateways(here)


def test_requests_that_make_no_sense(host: Host) -> None:
    create = host.networks.create
    with pytest.raises(Forbidden, match="not permitted on predefined bridge network"):
        create(NetworkSpec(name="bridge"))
    with pytest.raises(NotFound, match='plugin "weave" not found'):
        create(NetworkSpec(name="x1", driver="weave"))
    with pytest.raises(InvalidArgument, match="IPv4 or IPv6 must be enabled"):
        create(NetworkSpec(name="x1", enable_ipv4=False))
    with pytest.raises(Forbidden, match="Pool overlaps"):
        create(NetworkSpec(name="x1", pools=[IpamConfig(subnet="198.51.100.0/25")]))
    with pytest.raises(InvalidArgument, match="invalid network name"):
        create(NetworkSpec(name="a/b"))
    with pytest.raises(InvalidArgument, match="invalid bridge name"):
        create(NetworkSpec(name="x1", options={"com.docker.network.bridge.name": "a;b"}))
    with pytest.raises(Conflict, match="already in use by network bridge"):
        create(NetworkSpec(name="x1", options={"com.docker.network.bridge.name": "estiba9"}))
    with pytest.raises(FailedPrecondition, match="is a veth interface and no bridge"):
        create(NetworkSpec(name="x1", options={"com.docker.network.bridge.name": "up1"}))
    with pytest.raises(Forbidden, match="pre-defined network"):
        host.networks.remove("host")
    assert len(host.networks.networks()) == 3


# -- IPv6 --------------------------------------------------------------------------------------


def test_two_families(host: Host) -> None:
    spec = NetworkSpec(name="six", enable_ipv6=True, pools=[IpamConfig(subnet="fd00:9::/64")])
    host.networks.create(spec)
    one, two = host.attach("one", network="six"), host.attach("two", network="six")
    here = host.networks.sandbox_path("one")
    assert (one.ipv6_address, one.ipv6_prefix_len) == ("fd00:9::2", 64)
    assert one.ipv6_gateway == "fd00:9::1"
    assert one.settings.global_ipv6_address == "fd00:9::2"
    for address in (two.ip_address, two.ipv6_address, one.ipv6_gateway, "::1"):
        assert ping(here, address), address
    assert "fd00:9::2/64" in addresses(here, "eth0")
    assert "via fd00:9::1 dev eth0" in default_route(here, 6)
    assert ping_from_host(two.ipv6_address)


def ping_from_host(address: str) -> bool:
    command = ["busybox", "ping", "-c1", "-W5", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_ipv6_alone_out_of_the_default_pools(host: Host) -> None:
    network = host.networks.create(NetworkSpec(name="six", enable_ipv4=False, enable_ipv6=True))
    one, two = host.attach("one", network="six"), host.attach("two", network="six")
    assert [pool.subnet[:2] for pool in network.pools] == ["fd"]
    assert network.pools[0].subnet.endswith("::/64")
    assert (one.ip_address, one.gateway) == ("", "")
    assert ping(host.networks.sandbox_path("one"), two.ipv6_address)
    assert [a for a in addresses(host.networks.sandbox_path("one"), "eth0") if "." in a] == []
    other = host.networks.create(NetworkSpec(name="seven", enable_ipv6=True))
    assert other.pools[1].subnet != network.pools[0].subnet
