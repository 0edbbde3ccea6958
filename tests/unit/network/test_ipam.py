from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.model.errors import Forbidden, InvalidArgument, Unavailable
from estiba.network.ipam import (
    DEFAULT_POOLS,
    AddressPool,
    Allocator,
    Network,
    choose_subnet,
    with_defaults,
)

SUBNET = IPv4Network("10.0.0.0/29")
GATEWAY = IPv4Address("10.0.0.1")


def allocator(subnet: Network = SUBNET, **more: object) -> Allocator:
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


def test_ipv6_subnets_are_never_walked() -> None:
    """The first free one among 2^56, behind a thousand that are taken."""
    pool = AddressPool(IPv6Network("fd00::/8"), 64)
    taken: list[Network] = [IPv6Network((0xFD << 120 | n << 64, 64)) for n in range(1000)]
    taken += [IPv4Network("0.0.0.0/0"), IPv6Network("2001:db8::/32")]
    assert str(choose_subnet([pool], taken, 6)) == "fd00:0:0:3e8::/64"
    huge = IPv6Network("fd00::/16")
    assert str(choose_subnet([pool], [*taken, huge], 6)) == "fd01::/64"


def test_ipv6_addresses_come_in_order_without_broadcast() -> None:
    pool = allocator(IPv6Network("fd00::/126"))
    assert [str(pool.allocate(owner)) for owner in "ab"] == ["fd00::2", "fd00::3"]
    with pytest.raises(Unavailable, match="no available IPv6 addresses"):
        pool.allocate("c")
    wide = allocator(IPv6Network("fd00::/64"))
    for number in range(500):
        wide.allocate(str(number))
    assert str(wide.allocate("next")) == "fd00::1f6"


def test_each_engine_has_a_unique_local_prefix_of_its_own() -> None:
    def prefix(engine_id: str) -> str:
        (pool,) = (one for one in with_defaults((), engine_id) if one.base.version == 6)
        assert (pool.size, pool.base.prefixlen) == (64, 48)
        return str(pool.base)

    assert prefix("one") == prefix("one") != prefix("two")
    assert prefix("one").startswith("fd")


def test_pools_that_are_given_take_the_place_of_those_of_their_family() -> None:
    six = AddressPool(IPv6Network("fd12::/48"), 64)
    assert with_defaults([six], "x") == (six, *DEFAULT_POOLS)
    four = AddressPool(IPv4Network("10.0.0.0/8"), 24)
    assert [pool.base.version for pool in with_defaults([four], "x")] == [4, 6]


@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 8)), max_size=20),
)
def test_what_is_chosen_is_the_first_that_is_free(size: int, blocks: list[tuple[int, int]]) -> None:
    base = IPv4Network("10.0.0.0/24")
    taken: list[Network] = [
        IPv4Network((0x0A000000 | number & -(1 << (8 - bits)), 24 + bits))
        for number, bits in blocks
    ]
    free = [
        subnet
        for subnet in base.subnets(new_prefix=24 + size)
        if not any(subnet.overlaps(other) for other in taken)
    ]
    try:
        chosen: Network | None = choose_subnet([AddressPool(base, 24 + size)], taken)
    except InvalidArgument:
        chosen = None
    assert chosen == (free[0] if free else None)
