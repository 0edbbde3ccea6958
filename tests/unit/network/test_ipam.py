from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.model.errors import Forbidden, InvalidArgument, Unavailable
from estiba.network.ipam import DEFAULT_POOLS, AddressPool, Allocator, choose_subnet

SUBNET = IPv4Network("10.0.0.0/29")
GATEWAY = IPv4Address("10.0.0.1")


def allocator(subnet: IPv4Network = SUBNET, **more: object) -> Allocator:
    return Allocator(subnet, gateway=subnet[1], **more)  # type: ignore[arg-type]


def test_addresses_come_in_order_and_are_reused_last() -> None:
    pool = allocator()
    assert [str(pool.allocate(owner)) for owner in "abc"] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    pool.release("a")
    assert [str(pool.allocate(owner)) for owner in "def"] == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    with pytest.raises(Unavailable, match="no available IPv4 addresses"):
        pool.allocate("g")


def test_an_owner_keeps_its_address() -> None:
    pool = allocator()
    assert pool.allocate("a") == pool.allocate("a")
    moved = pool.allocate("a", IPv4Address("10.0.0.6"))
    assert str(moved) == "10.0.0.6"
    assert str(pool.allocate("b", IPv4Address("10.0.0.2"))) == "10.0.0.2"


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ("10.0.0.0", Forbidden),
        ("10.0.0.1", Forbidden),
        ("10.0.0.7", Forbidden),
        ("10.0.0.3", Forbidden),
        ("10.0.1.2", InvalidArgument),
    ],
)
def test_addresses_that_are_not_to_be_had(wanted: str, error: type[Exception]) -> None:
    pool = allocator()
    pool.allocate("other", IPv4Address("10.0.0.3"))
    with pytest.raises(error):
        pool.allocate("me", IPv4Address(wanted))
    assert str(pool.allocate("me")) == "10.0.0.2"


def test_a_range_limits_the_search_and_not_the_wishes() -> None:
    pool = allocator(
        IPv4Network("10.0.0.0/24"),
        ip_range=IPv4Network("10.0.0.64/30"),
        reserved=[IPv4Address("10.0.0.65")],
    )
    assert [str(pool.allocate(owner)) for owner in "abc"] == [
        "10.0.0.64",
        "10.0.0.66",
        "10.0.0.67",
    ]
    assert str(pool.allocate("d", IPv4Address("10.0.0.9"))) == "10.0.0.9"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_nobody_shares_an_address(moves: list[tuple[bool, int]]) -> None:
    pool = allocator()
    held: dict[str, IPv4Address] = {}
    for take, number in moves:
        owner = str(number)
        if not take:
            pool.release(owner)
            held.pop(owner, None)
        elif owner in held or len(held) < 5:
            held[owner] = pool.allocate(owner)
        assert len(set(held.values())) == len(held)
        assert all(address in SUBNET and address != GATEWAY for address in held.values())


def test_the_first_subnet_that_overlaps_nothing() -> None:
    taken = [IPv4Network("172.17.0.0/16"), IPv4Network("172.16.0.0/15"), IPv4Network("10.0.0.0/8")]
    assert str(choose_subnet(DEFAULT_POOLS, taken)) == "172.18.0.0/16"
    pools = [AddressPool(IPv4Network("10.9.0.0/16"), 24)]
    assert str(choose_subnet(pools, [IPv4Network("10.9.0.0/23")])) == "10.9.2.0/24"
    with pytest.raises(InvalidArgument, match="widen --default-address-pool"):
        choose_subnet(pools, [IPv4Network("10.0.0.0/8")])
