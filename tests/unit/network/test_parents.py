from __future__ import annotations

import msgspec
import pytest

from estiba.model.errors import Forbidden, InvalidArgument
from estiba.network.parents import (
    IPVLAN,
    MACVLAN,
    check_sharing,
    mode_numbers,
    parse_vlan,
    plan_mode,
    plan_parent,
)
from estiba.network.record import NetworkRecord, NetworkSpec

ID = "ab" * 32


def test_modes_and_flags_as_the_kernel_numbers_them() -> None:
    for option, number in {"": 4, "bridge": 4, "private": 1, "vepa": 2, "passthru": 8}.items():
        mode = plan_mode(MACVLAN, {"macvlan_mode": option})
        assert mode_numbers(MACVLAN, mode) == (number, 0)
    assert plan_mode(IPVLAN, {}) == "l2-bridge"
    for mode_number, mode in enumerate(("l2", "l3", "l3s")):
        for flag_number, flag in enumerate(("bridge", "private", "vepa")):
            chosen = plan_mode(IPVLAN, {"ipvlan_mode": mode, "ipvlan_flag": flag})
            assert mode_numbers(IPVLAN, chosen) == (mode_number, flag_number)
    for kind, options in (
        (MACVLAN, {"macvlan_mode": "l2"}),
        (IPVLAN, {"ipvlan_mode": "bridge"}),
        (IPVLAN, {"ipvlan_flag": "passthru"}),
    ):
        with pytest.raises(InvalidArgument, match="is not valid, "):
            plan_mode(kind, options)


def test_parents() -> None:
    def parent(name: str) -> str:
        return plan_parent(MACVLAN, ID, NetworkSpec(name="x", options={"parent": name}))

    assert parent("eth0.50") == "eth0.50"
    assert parent("") == "dm-abababababab"
    for bad in ("lo", "a/b", "sixteen-letters-"):
        with pytest.raises(InvalidArgument):
            parent(bad)


def test_sub_interfaces() -> None:
    assert parse_vlan("eth0.50") == ("eth0", 50)
    assert parse_vlan("bond0.1.7") == ("bond0.1", 7)
    for bad in ("eth0", "eth0.", ".5", "eth0.0", "eth0.4095", "eth0.-1", "eth0.5x"):
        with pytest.raises(InvalidArgument):
            parse_vlan(bad)


def test_who_may_share_a_parent() -> None:
    def network(name: str, mode: str = "bridge", driver: str = "macvlan") -> NetworkRecord:
        return NetworkRecord(
            id=name, name=name, driver=driver, created_ns=1, parent="eth0", parent_mode=mode
        )

    one = network("one")
    check_sharing(one, [network("two"), msgspec.structs.replace(one, parent="eth1")])
    for mine, other in (
        (one, network("two", "passthru")),
        (network("two", "passthru"), one),
        (one, network("two", "l2-bridge", "ipvlan")),
    ):
        with pytest.raises(Forbidden, match="parent interface eth0"):
            check_sharing(mine, [other])
