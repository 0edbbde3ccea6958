from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import msgspec
import pytest

from estiba.model.container import EndpointSettings
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.network.ipam import Taken, with_defaults
from estiba.network.mac import check_mac, random_mac
from estiba.network.plan import NetworkConfig, plan_bridge, plan_default_bridge
from estiba.network.record import (
    Endpoint,
    IpamConfig,
    NetworkRecord,
    NetworkSpec,
    decode,
    encode,
    endpoint_id,
    link_name,
)

ID = "ab" * 32
POOLS = with_defaults((), "an engine")
CONFIG = NetworkConfig(netns_root=Path("/run/x/netns"))
DEFAULT = NetworkRecord(id=ID, name="bridge", driver="bridge", created_ns=1, predefined=True)


def plan(spec: NetworkSpec, taken: tuple[str, ...] = ()) -> NetworkRecord:
    networks = [Taken(ip_network(one), "network red") for one in taken]
    return plan_bridge(ID, spec, created_ns=1, pools=POOLS, taken=networks)


def test_everything_by_default() -> None:
    record = plan(NetworkSpec(name="blue"), ("172.17.0.0/16",))
    assert record.pools == [IpamConfig(subnet="172.18.0.0/16", gateway="172.18.0.1")]
    assert (record.bridge, record.mtu, record.icc, record.masquerade) == (
        "br-abababababab",
        1500,
        True,
        True,
    )
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "pool",
    [
        IpamConfig(subnet="10.0.0.1/24"),
        IpamConfig(subnet="10.0.0.0/31"),
        IpamConfig(subnet="nonsense"),
        IpamConfig(subnet="224.0.0.0/24"),
        IpamConfig(subnet="10.0.0.0"),
        IpamConfig(subnet="10.0.0.0/255.255.255.0"),
        IpamConfig(subnet="10.0.0.0/24", gateway="10.0.0.255"),
        IpamConfig(subnet="10.0.0.0/24", gateway="fd00::1"),
        IpamConfig(subnet="10.0.0.0/24", ip_range="10.0.0.0/23"),
        IpamConfig(subnet="10.0.0.0/24", gateway="10.0.1.1"),
        IpamConfig(subnet="10.0.0.0/24", gateway="x"),
        IpamConfig(subnet="10.0.0.0/24", ip_range="10.0.1.0/25"),
        IpamConfig(subnet="10.0.0.0/24", auxiliary_addresses={"r": "10.1.0.1"}),
        IpamConfig(subnet="172.16.0.0/12"),
    ],
)
def test_pools_that_make_no_sense(pool: IpamConfig) -> None:
    with pytest.raises(EstibaError):
        plan(NetworkSpec(name="blue", pools=[pool]), ("172.17.0.0/16",))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("com.docker.network.driver.mtu", "x"),
        ("com.docker.network.driver.mtu", "12"),
        ("com.docker.network.driver.mtu", "0000150000000"),
        pytest.param("com.docker.network.driver.mtu", "00001500" + 5000 * "0", id="long-mtu"),
        ("com.docker.network.bridge.enable_icc", "maybe"),
        ("com.docker.network.bridge.name", 'x"; flush ruleset'),
        ("com.docker.network.bridge.name", "sixteen-letters-"),
        ("com.docker.network.bridge.host_binding_ipv4", "x"),
        ("com.docker.network.bridge.gateway_mode_ipv6", "x"),
        ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
        ("com.docker.network.host_ipv4", "fd00::1"),
        ("com.docker.network.container_iface_prefix", "a/b"),
    ],
)
def test_options_that_make_no_sense(option: str, value: str) -> None:
    with pytest.raises(InvalidArgument):
        plan(NetworkSpec(name="blue", options={option: value}))


def default_subnet(
    config: NetworkConfig, existing: str = "", taken: tuple[str, ...] = (), **earlier: object
) -> IpamConfig:
    record = msgspec.structs.replace(DEFAULT, **earlier)
    return plan_default_bridge(
        record,
        config,
        is_foreign=bool(existing),
        existing=[ip_interface(existing)] if existing else [],
        pools=POOLS,
        taken=[Taken(ip_network(one), "network red") for one in taken],
    ).pools[0]


def test_where_the_default_subnet_comes_from() -> None:
    before = {"bridge": "estiba0", "pools": [IpamConfig(subnet="172.20.0.0/16")]}
    bip = NetworkConfig(netns_root=Path("/"), bip="10.1.2.3/24")
    assert default_subnet(bip, "10.9.0.1/24", **before).gateway == "10.1.2.3"
    assert default_subnet(CONFIG, "10.9.0.1/24", **before).subnet == "10.9.0.0/24"
    assert default_subnet(CONFIG, **before).subnet == "172.20.0.0/16"
    assert default_subnet(CONFIG, taken=("172.20.1.0/24",), **before).subnet == "172.17.0.0/16"
    assert default_subnet(CONFIG).subnet == "172.17.0.0/16"
    with pytest.raises(InvalidArgument):
        default_subnet(CONFIG, taken=("172.16.0.0/12", "192.168.0.0/16"))


def test_a_fixed_range_is_a_subnet_of_its_own() -> None:
    fixed = NetworkConfig(netns_root=Path("/"), fixed_cidr="192.168.50.0/24")
    own = {"bridge": "estiba0", "pools": [IpamConfig(subnet="172.20.0.0/16")]}
    assert default_subnet(fixed, **own).gateway == "192.168.50.1"
    within = default_subnet(fixed, "192.168.0.1/16")
    assert (within.subnet, within.ip_range) == ("192.168.0.0/16", "192.168.50.0/24")
    with pytest.raises(InvalidArgument, match=r"does not lie in the subnet 10\.9\.0\.0/24"):
        default_subnet(fixed, "10.9.0.1/24")
    with pytest.raises(InvalidArgument, match="is of the other family"):
        default_subnet(replace(fixed, fixed_cidr="fd00::/64"))


def test_names_of_links_fit_and_derive() -> None:
    identity = endpoint_id("c" * 64, ID)
    assert identity == endpoint_id("c" * 64, ID) != endpoint_id("d" * 64, ID)
    assert len(link_name(identity)) <= 15


def test_macs() -> None:
    assert random_mac(lambda count: b"\xff" * count) == "fe:ff:ff:ff:ff:ff"
    assert check_mac("02-00-00-AA-00-01") == "02:00:00:aa:00:01"
    for text in ("x", "02:00", "01:00:00:00:00:01", "00:00:00:00:00:00"):
        with pytest.raises(InvalidArgument):
            check_mac(text)


def test_the_way_out_is_by_priority_then_by_name() -> None:
    def endpoint(name: str, priority: int) -> Endpoint:
        return Endpoint(
            id=name,
            network_id=name,
            network_name=name,
            driver="bridge",
            container_id="c",
            container_name="c",
            requested=EndpointSettings(gw_priority=priority),
        )

    ranked = sorted(
        [endpoint("a", 0), endpoint("b", 5), endpoint("c", 5)], key=lambda one: one.gateway_rank
    )
    assert [one.network_name for one in ranked] == ["b", "c", "a"]


def test_containers_get_the_part_of_the_default_subnet_that_is_fixed() -> None:
    config = NetworkConfig(netns_root=Path("/"), bip="10.1.2.3/24", fixed_cidr="10.1.2.128/25")
    assert default_subnet(config).ip_range == "10.1.2.128/25"
    before = {"bridge": "estiba0", "pools": [default_subnet(config)]}
    assert default_subnet(CONFIG, **before).ip_range == "", "the flag was taken away"
    outside = replace(config, fixed_cidr="10.1.3.0/25")
    with pytest.raises(InvalidArgument, match="does not lie in the subnet"):
        default_subnet(outside)
