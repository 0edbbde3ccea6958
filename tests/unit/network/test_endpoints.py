"""The roster of endpoints, and what their options ask for."""

from __future__ import annotations

import msgspec
import pytest

from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import Conflict, InvalidArgument
from estiba.network.endpointopts import endpoint_sysctls, interface_name, link_local_addresses
from estiba.network.portusers import socket_inodes
from estiba.network.record import Endpoint, NetworkRecord
from estiba.network.roster import Roster, default_routes


def network(name: str) -> NetworkRecord:
    return NetworkRecord(id=name, name=name, driver="bridge", created_ns=1)


def endpoint(net: str, priority: int = 0, gateways: str = "46", name: str = "") -> Endpoint:
    return Endpoint(
        id=net,
        network_id=net,
        network_name=net,
        driver="bridge",
        container_id="c",
        container_name="c",
        requested=EndpointSettings(gw_priority=priority),
        interface=name,
        gateway="10.0.0.1" if "4" in gateways else "",
        ipv6_gateway="fd00::1" if "6" in gateways else "",
    )


def test_interfaces_are_numbered_and_the_way_out_is_by_rank_and_family() -> None:
    roster = Roster()
    first, routes = roster.enrol(network("b"), endpoint("b", gateways="4"), "eth")
    assert (first.interface, routes) == ("eth0", (4, 6))
    second, routes = roster.enrol(network("c"), endpoint("c"), "eth")
    assert (second.interface, routes) == ("eth1", (6,)), "b comes first but has no IPv6"
    third, routes = roster.enrol(network("d"), endpoint("d", 9), "lan")
    assert (third.interface, routes) == ("lan0", (4, 6))
    with pytest.raises(Conflict, match="interface name eth1 is taken in container c"):
        roster.enrol(network("e"), endpoint("e", name="eth1"), "eth")
    assert [one.network_id for one in roster.all()] == ["b", "c", "d"]
    roster.strike("c", "b")
    assert roster.enrol(network("f"), endpoint("f"), "eth")[0].interface == "eth0"
    assert roster.enrol(network("g"), endpoint("g"), "")[0].interface == ""
    for net in "cdfg":
        roster.strike("c", net)
    assert roster.all() == []


def test_default_routes_of_each_family() -> None:
    four, six, both = endpoint("x", 9, "4"), endpoint("y", 5, "6"), endpoint("a")
    assert default_routes([both, six, four]) == [(four, 4), (six, 6)]
    assert default_routes([both]) == [(both, 4), (both, 6)]
    assert default_routes([endpoint("n", gateways="")]) == []


def test_options_of_an_endpoint() -> None:
    def options(name: str, value: str) -> EndpointSettings:
        return EndpointSettings(driver_opts={f"com.docker.network.endpoint.{name}": value})

    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=9"
    assert endpoint_sysctls(options("sysctls", text), "lan0") == {
        "net.ipv4.conf.lan0.log_martians": "1",
        "net.ipv6.conf.lan0.hop_limit": "9",
    }
    for bad in ("kernel.hostname=x", "net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.a/b=1"):
        with pytest.raises(InvalidArgument):
            endpoint_sysctls(options("sysctls", bad), "eth0")
    assert interface_name(options("ifname", "lan.5")) == "lan.5"
    for bad in ("lo", "..", "a b", "a/b", "a:b", "sixteen-letters-"):
        with pytest.raises(InvalidArgument, match=r"invalid com\.docker"):
            interface_name(options("ifname", bad))


def test_link_local_addresses() -> None:
    ipam = EndpointIpamConfig(link_local_ips=["169.254.8.8", "fe80::8"])
    assert [str(one) for one in link_local_addresses(ipam)] == ["169.254.8.8/16", "fe80::8/64"]
    for bad in ("10.0.0.1", "fd00::1", "x", "fe80::1%eth0"):
        with pytest.raises(InvalidArgument):
            link_local_addresses(msgspec.structs.replace(ipam, link_local_ips=[bad]))


def test_who_has_a_port() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
        " inode\n"
        "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n"
        "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 4243 1\n"
        "broken\n"
    )
    assert socket_inodes(table, 8080, "0A") == {"4242"}
    assert socket_inodes(table, 8081, "0A") == set()
