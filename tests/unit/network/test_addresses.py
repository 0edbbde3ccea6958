"""All addresses of a network: several pools, both families."""

from __future__ import annotations

import pytest

from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import Forbidden, InvalidArgument, Unavailable
from estiba.network.addresses import LocalAddresses, with_addresses
from estiba.network.record import Endpoint, IpamConfig, NetworkRecord

POOLS = [
    IpamConfig(subnet="10.1.0.0/30", gateway="10.1.0.1"),
    IpamConfig(subnet="10.2.0.0/29", gateway="10.2.0.1", auxiliary_addresses={"x": "10.2.0.2"}),
    IpamConfig(subnet="fd00:1::/64", gateway="fd00:1::1"),
]
NETWORK = NetworkRecord(id="n", name="blue", driver="bridge", created_ns=1, pools=POOLS, ipv6=True)


def endpoint(name: str) -> Endpoint:
    return Endpoint(
        id=f"id-{name}",
        network_id="n",
        network_name="blue",
        driver="bridge",
        container_id=name,
        container_name=name,
        requested=EndpointSettings(),
    )


def take(
    addresses: LocalAddresses, name: str, *wanted: str, before: Endpoint | None = None
) -> Endpoint:
    four = next((text for text in wanted if ":" not in text), "")
    six = next((text for text in wanted if ":" in text), "")
    ipam = EndpointIpamConfig(ipv4_address=four, ipv6_address=six)
    bare = endpoint(name)
    return with_addresses(bare, NETWORK, addresses.allocate(bare, ipam, before))


def both(one: Endpoint) -> str:
    return f"{one.ip_address}/{one.ip_prefix_len} {one.ipv6_address}/{one.ipv6_prefix_len}"


def test_the_first_pool_with_room_and_its_gateway() -> None:
    addresses = LocalAddresses(NETWORK)
    one, two = take(addresses, "one"), take(addresses, "two")
    assert both(one) == "10.1.0.2/30 fd00:1::2/64"
    assert both(two) == "10.2.0.3/29 fd00:1::3/64"
    assert (one.gateway, two.gateway, two.ipv6_gateway) == ("10.1.0.1", "10.2.0.1", "fd00:1::1")
    for name in ("three", "four", "five"):
        take(addresses, name)
    with pytest.raises(Unavailable, match=r"IPv4 addresses .*: blue \(10.1.0.0/30, 10.2.0.0/29\)"):
        take(addresses, "six")
    addresses.release("id-one")
    assert both(take(addresses, "six")) == "10.1.0.2/30 fd00:1::7/64", "and six had left none"


def test_fixed_addresses_are_of_the_pool_that_holds_them() -> None:
    addresses = LocalAddresses(NETWORK)
    assert both(take(addresses, "one", "10.2.0.6", "fd00:1::abcd")) == (
        "10.2.0.6/29 fd00:1::abcd/64"
    )
    with pytest.raises(Forbidden, match=r"Address already in use: 10.2.0.6: container one has it"):
        take(addresses, "two", "10.2.0.6")
    addresses.rename("id-one", "first")
    with pytest.raises(Forbidden, match="fd00:1::abcd: container first has it"):
        take(addresses, "two", "fd00:1:0::ABCD")
    with pytest.raises(Forbidden, match="it is that of the gateway"):
        take(addresses, "two", "10.2.0.1")
    with pytest.raises(Forbidden, match="an auxiliary address"):
        take(addresses, "two", "10.2.0.2")
    for wrong in ("10.3.0.1", "fd00:2::1"):
        with pytest.raises(InvalidArgument, match="It does not belong to any of this network's su"):
            take(addresses, "two", wrong)
    assert both(take(addresses, "two")).startswith("10.1.0.2/30"), "nothing was kept"


def test_what_a_container_had_it_gets_again_in_either_pool() -> None:
    addresses = LocalAddresses(NETWORK)
    before = take(addresses, "one", "10.2.0.5", "fd00:1::5")
    addresses.release("id-one")
    assert both(take(addresses, "one", before=before)) == both(before)
    addresses.release("id-one")
    take(addresses, "two", "10.2.0.5")
    assert both(take(addresses, "one", before=before)) == "10.1.0.2/30 fd00:1::5/64"


def test_a_restart_notes_what_live_ones_have() -> None:
    addresses = LocalAddresses(NETWORK)
    live = take(LocalAddresses(NETWORK), "one", "10.1.0.2")
    addresses.adopt(live)
    addresses.adopt(live)
    assert both(take(addresses, "two")) == "10.2.0.3/29 fd00:1::3/64"
