from __future__ import annotations

from ipaddress import ip_network

import pytest

from estiba.model.errors import EstibaError, Forbidden, InvalidArgument
from estiba.network.ipam import Taken, with_defaults
from estiba.network.pools import plan_pools
from estiba.network.record import IpamConfig

POOLS = with_defaults((), "an engine")
TAKEN = [
    Taken(ip_network("172.17.0.0/16"), "network red"),
    Taken(ip_network("10.0.0.0/8"), "route by vpn0", avoided=True),
    Taken(ip_network("192.0.2.0/24"), "address of eth0"),
    Taken(ip_network("fd00:5::/48"), "network six"),
]


def plan(*wanted: IpamConfig, versions: tuple[int, ...] = (4,)) -> list[str]:
    planned = plan_pools(wanted, versions=versions, pools=POOLS, taken=TAKEN)
    return [f"{pool.subnet} via {pool.gateway}" for pool in planned]


def test_several_of_both_families_in_order() -> None:
    wanted = [
        IpamConfig(subnet="fd00:1::/64"),
        IpamConfig(subnet="10.1.0.0/24", gateway="10.1.0.9"),
        IpamConfig(subnet="10.2.0.0/24"),
    ]
    assert plan(*wanted, versions=(4, 6)) == [
        "10.1.0.0/24 via 10.1.0.9",
        "10.2.0.0/24 via 10.2.0.1",
        "fd00:1::/64 via fd00:1::1",
    ]
    assert plan(*wanted[:2]) == ["10.1.0.0/24 via 10.1.0.9"], "without --ipv6 it is left out"
    assert len(plan(wanted[0], versions=(6,))) == 1
    assert plan(wanted[0], versions=(4, 6))[0] == "172.18.0.0/16 via 172.18.0.1"


def test_a_gateway_is_no_auxiliary_address() -> None:
    config = IpamConfig(subnet="10.1.0.0/24", auxiliary_addresses={"router": "10.1.0.1"})
    assert plan(config) == ["10.1.0.0/24 via 10.1.0.2"]
    config = IpamConfig(subnet="10.1.0.0/24", ip_range="10.1.0.64/26")
    assert plan(config) == ["10.1.0.0/24 via 10.1.0.64"], "as dockerd"
    config = IpamConfig(subnet="10.1.0.0/24", ip_range="10.1.0.0/26")
    assert plan(config) == ["10.1.0.0/24 via 10.1.0.1"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            IpamConfig(subnet="10.1.0.0/24", ip_range="10.1.0.0/32"),
            "ip-range 10.1.0.0/32 has no room for a gateway",
        ),
        (IpamConfig(subnet="x"), "invalid subnet x: invalid CIDR block notation"),
        (IpamConfig(subnet="10.1.0.5/24"), "subnet 10.1.0.5/24: it should be 10.1.0.0/24"),
        (IpamConfig(subnet="10.1.0.0/31"), "it has no room for containers"),
        (
            IpamConfig(subnet="10.1.0.0/24", gateway="10.2.0.1"),
            "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
        ),
        (
            IpamConfig(subnet="10.1.0.0/24", gateway="fd00::1"),
            "invalid gateway fd00::1: parent subnet is an IPv4 block",
        ),
        (
            IpamConfig(subnet="10.1.0.0/24", ip_range="10.0.0.0/16"),
            "ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24",
        ),
        (
            IpamConfig(subnet="10.1.0.0/24", ip_range="10.2.0.0/25"),
            "ip-range 10.2.0.0/25: parent subnet 10.1.0.0/24 doesn't contain ip-range",
        ),
        (
            IpamConfig(subnet="10.1.0.0/24", auxiliary_addresses={"nas": "10.9.0.1"}),
            "invalid auxiliary address nas: parent subnet",
        ),
    ],
)
def test_the_words_of_dockerd(config: IpamConfig, words: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid network config: ") as caught:
        plan(config)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("subnet", "by"),
    [
        ("172.17.5.0/24", "172.17.0.0/16 (network red)"),
        ("192.0.2.0/25", "192.0.2.0/24 (address of eth0)"),
        ("fd00:5:0:7::/64", "fd00:5::/48 (network six)"),
    ],
)
def test_an_overlap_says_with_what(subnet: str, by: str) -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address") as caught:
        plan(IpamConfig(subnet=subnet), versions=(4, 6))
    assert by in str(caught.value)


def test_a_piece_of_a_far_route_may_be_asked_for_and_is_not_chosen() -> None:
    assert plan(IpamConfig(subnet="10.7.0.0/24")) == ["10.7.0.0/24 via 10.7.0.1"]
    pools = with_defaults(POOLS, "x")
    chosen = plan_pools([], versions=(4,), pools=pools, taken=TAKEN)
    assert chosen[0].subnet == "172.18.0.0/16"


def test_input_has_bounds() -> None:
    many = [IpamConfig(subnet=f"10.{n}.0.0/24") for n in range(65)]
    with pytest.raises(InvalidArgument, match="at most 64 subnets"):
        plan(*many)
    twice = [IpamConfig(subnet="10.1.0.0/24"), IpamConfig(subnet="10.1.0.0/25")]
    with pytest.raises(EstibaError, match="the same network"):
        plan(*twice)
    auxiliary = {str(n): f"10.1.{n // 250}.{n % 250}" for n in range(1025)}
    with pytest.raises(InvalidArgument, match="at most 1024"):
        plan(IpamConfig(subnet="10.1.0.0/16", auxiliary_addresses=auxiliary))
