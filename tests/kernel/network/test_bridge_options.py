"""What networks and endpoints may ask of the bridge driver, seen on the wire."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
)
from tests.kernel.network.probes import addresses, default_route, links, ping

from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import Forbidden, InvalidArgument, Unavailable
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel

_BRIDGE = "com.docker.network.bridge."
_ENDPOINT = "com.docker.network.endpoint."


def create(host: Host, **more: object) -> NetworkRecord:
    more.setdefault("enable_ipv6", True)
    return host.networks.create(NetworkSpec(name="blue", **more))  # type: ignore[arg-type]


def setting(sandbox: Path, name: str) -> str:
    return run_in_netns(sandbox, lambda: Path("/proc/sys", name).read_text().strip())


def add_address(address: str) -> None:
    subprocess.run(["ip", "addr", "add", address, "dev", "up0", "nodad"], check=True)


def test_containers_leave_with_the_hosts_addresses_of_both_families(host: Host) -> None:
    create(host)
    host.attach("one", network="blue")
    for address, seen in ((OUTSIDE_ADDRESS, HOST_ADDRESS), (OUTSIDE_ADDRESS6, HOST_ADDRESS6)):
        host.serve(host.outside, 7000, address=address)
        assert host.ask(host.networks.sandbox_path("one"), address, 7000) == seen


def test_containers_leave_with_chosen_addresses(host: Host) -> None:
    add_address("198.51.100.22/24")
    add_address("2001:db8:64::22/64")
    option = "com.docker.network.host_ipv"
    create(host, options={f"{option}4": "198.51.100.22", f"{option}6": "2001:db8:64::22"})
    host.attach("one", network="blue")
    for address, seen in (
        (OUTSIDE_ADDRESS, "198.51.100.22"),
        (OUTSIDE_ADDRESS6, "2001:db8:64::22"),
    ):
        host.serve(host.outside, 7000, address=address)
        assert host.ask(host.networks.sandbox_path("one"), address, 7000) == seen


def test_a_routed_network_is_reached_at_its_own_addresses(host: Host) -> None:
    create(
        host,
        pools=[IpamConfig(subnet="fd00:77::/64")],
        options={f"{_BRIDGE}gateway_mode_ipv6": "routed"},
    )
    one = host.attach("one", network="blue", ports=[PortRequest(container_port=80)])
    here = host.networks.sandbox_path("one")
    route = ["ip", "-6", "route", "add", "fd00:77::/64", "via", HOST_ADDRESS6]
    subprocess.run(["nsenter", f"--net={host.outside}", *route], check=True)
    host.serve(host.outside, 7000, address=OUTSIDE_ADDRESS6)
    assert host.ask(here, OUTSIDE_ADDRESS6, 7000) == one.ipv6_address, "nothing is translated"
    for port in (80, 81):
        host.serve(here, port, address="::")
    assert host.ask(host.outside, one.ipv6_address, 80) == OUTSIDE_ADDRESS6
    assert host.is_blocked(host.outside, one.ipv6_address, 81)


def test_an_isolated_network_has_no_address_on_the_host(host: Host) -> None:
    modes = {f"{_BRIDGE}gateway_mode_ipv{version}": "isolated" for version in (4, 6)}
    with pytest.raises(InvalidArgument, match="can only be used for an internal network"):
        create(host, options=modes)
    network = create(host, internal=True, options=modes)
    one, two = (host.attach(name, network="blue") for name in ("one", "two"))
    here = host.networks.sandbox_path("one")
    assert ping(here, two.ip_address) and ping(here, two.ipv6_address)
    assert (one.gateway, one.ipv6_gateway) == ("", "")
    own = subprocess.run(
        ["ip", "-o", "addr", "show", "dev", network.bridge], capture_output=True, text=True
    ).stdout
    assert network.pools[0].gateway not in own and network.pools[1].gateway not in own


def test_the_gateway_is_somebody_else(host: Host) -> None:
    """inhibit_ipv4: a container plays the router."""
    create(
        host,
        enable_ipv6=False,
        pools=[IpamConfig(subnet="10.66.0.0/24", gateway="10.66.0.1")],
        options={f"{_BRIDGE}inhibit_ipv4": "true"},
    )
    one = host.attach("one", network="blue")
    assert one.gateway == "10.66.0.1"
    assert not ping(host.networks.sandbox_path("one"), "10.66.0.1", 0.5)


def test_several_subnets_reach_one_another_by_their_gateways(host: Host) -> None:
    create(
        host,
        pools=[
            IpamConfig(subnet="10.66.0.0/30"),
            IpamConfig(subnet="10.67.0.0/29"),
            IpamConfig(subnet="fd00:66::/64"),
            IpamConfig(subnet="fd00:67::/64"),
        ],
    )
    one, two = (host.attach(name, network="blue") for name in ("one", "two"))
    assert (one.ip_address, two.ip_address) == ("10.66.0.2", "10.67.0.2")
    wanted = EndpointIpamConfig(ipv4_address="10.67.0.6", ipv6_address="fd00:67::6")
    three = host.attach("three", network="blue", settings=EndpointSettings(ipam_config=wanted))
    assert three.ipv6_gateway == "fd00:67::1"
    here = host.networks.sandbox_path("three")
    for address in (one.ip_address, one.ipv6_address, two.ip_address, OUTSIDE_ADDRESS):
        assert ping(here, address), address
    for name in ("four", "five", "six"):
        host.attach(name, network="blue")
    with pytest.raises(Unavailable, match="no available IPv4 addresses on this network's address"):
        host.attach("seven", network="blue")


def test_an_endpoints_interface_is_as_asked_for(host: Host) -> None:
    create(host, options={"com.docker.network.container_iface_prefix": "lan"})
    settings = EndpointSettings(
        ipam_config=EndpointIpamConfig(link_local_ips=["169.254.8.8", "fe80::8"]),
        driver_opts={
            f"{_ENDPOINT}sysctls": "net.ipv4.conf.IFNAME.log_martians=1,"
            "net.ipv6.conf.IFNAME.hop_limit=9"
        },
    )
    one = host.attach("one", network="blue", settings=settings)
    host.attach("one")
    here = host.networks.sandbox_path("one")
    assert set(links(here)) >= {"lan0", "eth0"}
    own = addresses(here, "lan0")
    assert {"169.254.8.8/16", "fe80::8/64", f"{one.ipv6_address}/64"} <= set(own)
    assert addresses(here, "eth0") == [a for a in addresses(here, "eth0") if "." in a]
    assert setting(here, "net/ipv4/conf/lan0/log_martians") == "1"
    assert setting(here, "net/ipv6/conf/lan0/hop_limit") == "9"
    two = host.attach("two", network="blue", settings=settings.__class__())
    assert ping(host.networks.sandbox_path("two"), "fe80::8%lan0")
    assert two.interface == "lan0"
    bad = EndpointSettings(driver_opts={f"{_ENDPOINT}sysctls": "net.ipv4.conf.IFNAME.nonsense=1"})
    with pytest.raises(InvalidArgument, match=r"cannot set net\.ipv4\.conf\.lan0\.nonsense=1"):
        host.attach("three", network="blue", settings=bad)
    assert len(host.networks.endpoints(one.network_id)) == 2


def test_advertisements_and_duplicate_detection_are_off(host: Host) -> None:
    network = create(host)
    host.attach("one", network="blue")
    here = host.networks.sandbox_path("one")
    for name in ("accept_ra", "autoconf", "accept_redirects", "accept_dad", "disable_ipv6"):
        assert setting(here, f"net/ipv6/conf/eth0/{name}") == "0", name
    own = Path("/proc/sys/net/ipv6/conf", network.bridge)
    assert (own / "accept_ra").read_text().strip() == "0"
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"
    default = Path("/proc/sys/net/ipv6/conf/estiba9/disable_ipv6").read_text().strip()
    assert default == "1", "a bridge without IPv6 answers none"


def test_a_host_that_listens_to_routers_goes_on_doing_so(host: Host) -> None:

    def listening(name: str) -> str:
        return Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").read_text().strip()

    before = listening("up0"), listening("default")
    create(host)
    assert (before, listening("up0"), listening("default")) == (("1", "1"), "2", "1")


def test_an_mtu_and_its_least_for_ipv6(host: Host) -> None:
    with pytest.raises(InvalidArgument, match="use 1280 to 65535"):
        create(host, options={"com.docker.network.driver.mtu": "1200"})
    create(host, options={"com.docker.network.driver.mtu": "9000"})
    host.attach("one", network="blue")
    assert links(host.networks.sandbox_path("one"))["eth0"].mtu == 9000


# -- the default bridge ------------------------------------------------------------------------


def test_the_default_bridge_with_ipv6(host: Host) -> None:
    networks = host.again(ipv6=True, engine_id="an engine")
    networks.restore([])
    (four, six) = networks.network("bridge").pools
    assert six.subnet.startswith("fd") and six.subnet.endswith("::/64")
    one, two = (host.attach(name) for name in ("one", "two"))
    assert ping(networks.sandbox_path("one"), two.ipv6_address)
    assert "via " + six.gateway in default_route(networks.sandbox_path("one"), 6)
    networks.sweep([])
    networks = host.again(ipv6=True, engine_id="an engine")
    networks.restore([])
    assert [pool.subnet for pool in networks.network("bridge").pools] == [four.subnet, six.subnet]
    networks = host.again(ipv6=True, fixed_cidr_v6="fd00:99::/80")
    networks.restore([])
    assert host.attach("one").ipv6_address == "fd00:99::2"
    networks.sweep([])
    networks = host.again(ipv6=True, bip6="fd00:99::9/64", fixed_cidr_v6="fd00:99:0:0:5::/80")
    networks.restore([])
    one = host.attach("one")
    assert (one.ipv6_address, one.ipv6_gateway) == ("fd00:99:0:0:5::", "fd00:99::9")
    networks.sweep([])
    networks = host.again()
    networks.restore([])
    assert not networks.network("bridge").ipv6
    assert host.attach("one").ipv6_address == ""


@pytest.mark.parametrize("flag", [{"bip6": "10.0.0.1/24"}, {"fixed_cidr_v6": "x"}, {"bip6": "x"}])
def test_flags_that_make_no_sense(host: Host, flag: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        host.again(ipv6=True, **flag)
    host.again()


def test_overlaps_say_with_what(host: Host) -> None:
    create(host, pools=[IpamConfig(subnet="10.9.0.0/24"), IpamConfig(subnet="fd00:9::/64")])
    add_address("192.0.2.1/24")
    subprocess.run(["ip", "route", "add", "10.20.0.0/16", "via", OUTSIDE_ADDRESS], check=True)
    for subnet, words in (
        ("10.9.0.128/25", r"10\.9\.0\.0/24 \(network blue\)"),
        ("fd00::/16", r"fd00:9::/64 \(network blue\)"),
        ("192.0.2.0/28", r"192\.0\.2\.0/24 \(address of up0\)"),
    ):
        spec = NetworkSpec(name="red", enable_ipv6=True, pools=[IpamConfig(subnet=subnet)])
        with pytest.raises(Forbidden, match=words):
            host.networks.create(spec)
    spec = NetworkSpec(name="red", pools=[IpamConfig(subnet="10.20.30.0/24")])
    assert host.networks.create(spec).pools[0].gateway == "10.20.30.1", "a piece of a far route"


def congestion_control(sandbox: Path, address: str, port: int) -> str:
    def ask() -> str:
        with socket.create_connection((address, port), timeout=5) as connection:
            name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            return name.rstrip(b"\0").decode()

    return run_in_netns(sandbox, ask)


def test_only_what_leaves_the_host_is_paced(host: Host) -> None:
    create(host)
    sandbox = host.networks.open_sandbox("one")
    name = "net/ipv4/tcp_congestion_control"
    try:
        run_in_netns(sandbox, lambda: Path("/proc/sys", name).write_text("bbr"))
    except OSError as error:
        pytest.skip(f"this kernel has no BBR for namespaces: {error}")
    host.attach("one", network="blue")
    there = host.attach("two", network="blue")
    for near, far in (
        (there.ip_address, OUTSIDE_ADDRESS),
        (there.ipv6_address, OUTSIDE_ADDRESS6),
    ):
        everywhere = "::" if ":" in near else "0.0.0.0"
        host.serve(host.networks.sandbox_path("two"), 7000, address=everywhere)
        host.serve(host.outside, 7000, address=far)
        assert congestion_control(sandbox, near, 7000) in ("cubic", "reno")
        assert congestion_control(sandbox, far, 7000) == "bbr"


def test_a_bridge_of_the_administrators_may_lead_anywhere(host: Host) -> None:
    subprocess.run(["ip", "link", "add", "br7", "type", "bridge"], check=True)
    host.stack.callback(subprocess.run, ["ip", "link", "del", "br7"], check=True)
    create(host, options={f"{_BRIDGE}name": "br7"})
    host.attach("one", network="blue")
    command = ["nsenter", f"--net={host.networks.sandbox_path('one')}", "ip", "route"]
    routes = subprocess.run(command, capture_output=True, check=True).stdout
    assert b"proto kernel" in routes and b"congctl" not in routes
