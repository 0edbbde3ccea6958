"""Which networks a container asks for, and with what that none of them gives."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.containers.attachments import attachment_warnings, plan_networks
from estiba.model.container import (
    Config,
    EndpointIpamConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
)
from estiba.model.errors import InvalidArgument
from estiba.network.endpointopts import endpoint_sysctls
from estiba.network.record import IpamConfig, NetworkRecord

OWN = NetworkRecord(
    id="ab" * 32,
    name="own",
    driver="bridge",
    created_ns=0,
    pools=[IpamConfig(subnet="10.1.0.0/16"), IpamConfig(subnet="fd00:1::/64")],
    asked_pools=[IpamConfig(subnet="10.1.0.0/16")],
)
IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"


def planned(
    mode: str = "bridge", config: Config | None = None, **endpoints: EndpointSettings
) -> dict[str, EndpointSettings]:
    networking = NetworkingConfig(endpoints_config=endpoints)
    joined = plan_networks(config or Config(), HostConfig(network_mode=mode), networking)
    return {net.network: net.requested for net in joined}


def test_the_mode_names_the_first_network() -> None:
    assert list(planned("own", other=EndpointSettings(), own=EndpointSettings())) == [
        "own",
        "other",
    ]
    assert list(planned("own", other=EndpointSettings())) == ["other"], "as in Docker"
    assert list(planned("container:x")) == []
    assert list(planned("bridge", Config(network_disabled=True))) == ["none"]
    assert list(planned("bridge", default=EndpointSettings())) == ["bridge"]
    address = "02:42:ac:11:00:02"
    assert planned("own", Config(mac_address=address))["own"].mac_address == address


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("own", {"mac_address": "zz"}, "invalid MAC address"),
        ("own", {"ipam_config": EndpointIpamConfig(ipv4_address="foo")}, "invalid IPv4 address"),
        ("own", {"ipam_config": EndpointIpamConfig(ipv4_address="::1")}, "invalid IPv4 address"),
        ("own", {"ipam_config": EndpointIpamConfig(ipv6_address="1.1.1.1")}, "invalid IPv6"),
        ("own", {"ipam_config": EndpointIpamConfig(ipv6_address="::ffff:1.1.1.1")}, "invalid IPv6"),
        ("host", {"mac_address": "02:00:00:00:00:01"}, "mac-address and the network mode"),
        ("container:x", {"mac_address": "02:00:00:00:00:01"}, "mac-address and the network mode"),
        ("own", {"driver_opts": {SYSCTLS: "net.ipv4.conf.eth0.x=1"}}, "IFNAME"),
        ("bridge", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
        ("none", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
        ("host", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
    ],
)
def test_settings_refused(name: str, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        planned(name, **{name: EndpointSettings(**settings)})


def find(reference: str) -> NetworkRecord | None:
    return OWN if reference in (OWN.name, OWN.id) else None


def joins(**endpoints: EndpointSettings) -> list[str]:
    networking = NetworkingConfig(endpoints_config=endpoints)
    config, host = Config(), HostConfig(network_mode=next(iter(endpoints)))
    return [net.network for net in plan_networks(config, host, networking, find)]


def test_a_network_is_noted_by_its_name() -> None:
    assert joins(**{OWN.id: EndpointSettings()}) == ["own"]
    assert joins(unknown=EndpointSettings()) == ["unknown"]
    with pytest.raises(InvalidArgument, match='network "own" is specified multiple times'):
        joins(own=EndpointSettings(), **{OWN.id: EndpointSettings()})


@pytest.mark.parametrize(
    ("ipam", "why"),
    [
        ({"ipv4_address": "10.1.2.3"}, ""),
        ({"ipv4_address": "10.2.2.3"}, "no configured subnet or ip-range contain"),
        ({"ipv6_address": "fd00:1::5"}, "only when connecting to networks with user configured"),
        ({"link_local_ips": ["169.254.3.4", "x"]}, "invalid IPv4 address: .x."),
    ],
)
def test_fixed_addresses_need_a_subnet_that_a_user_chose(ipam: dict[str, Any], why: str) -> None:
    settings = EndpointSettings(ipam_config=EndpointIpamConfig(**ipam))
    if not why:
        assert joins(own=settings) == ["own"]
        return
    with pytest.raises(InvalidArgument, match=why):
        joins(own=settings)


def test_all_that_is_wrong_is_said_at_once() -> None:
    settings = EndpointSettings(
        ipam_config=EndpointIpamConfig(ipv4_address="10.2.2.3"),
        mac_address="zz",
        driver_opts={IFNAME: "lo"},
    )
    with pytest.raises(InvalidArgument, match="network own: invalid endpoint settings:\n") as told:
        joins(own=settings)
    assert len(str(told.value).splitlines()) == 4


def test_no_interface_name_is_given_twice() -> None:
    settings = EndpointSettings(driver_opts={IFNAME: "lan0"})
    with pytest.raises(InvalidArgument, match="interface name lan0 is that of the network own"):
        joins(own=settings, other=settings)


def test_the_old_mac_address_is_the_main_networks() -> None:
    address = "02:42:ac:11:00:02"
    config = Config(mac_address=address)
    with pytest.raises(InvalidArgument, match="must match the endpoint-specific MAC address"):
        planned("own", config, own=EndpointSettings(mac_address="02:42:ac:11:00:03"))
    with pytest.raises(InvalidArgument, match="must match the identity of a network"):
        planned("own", config, other=EndpointSettings())


@pytest.mark.parametrize("mode", ["host", "none", "container:x"])
def test_networks_that_go_with_no_other(mode: str) -> None:
    with pytest.raises(InvalidArgument, match="conflicting options"):
        planned(mode, other=EndpointSettings())


def test_settings_without_effect_are_said() -> None:
    settings = EndpointSettings(
        driver_opts={"odd": "1", SYSCTLS: ""},
        links=["a"],
        ipam_config=EndpointIpamConfig(ipv6_address="::1", link_local_ips=["169.254.1.1"]),
    )
    joined = plan_networks(
        Config(),
        HostConfig(network_mode="own"),
        NetworkingConfig(endpoints_config={"own": settings}),
    )
    (warning,) = attachment_warnings(joined, lambda _name: OWN)
    assert warning.endswith("were discarded: odd, IPv6Address (the network was made without IPv6).")
    assert list(attachment_warnings(joined, lambda _name: None)) == []


def test_sysctls_of_an_interface() -> None:
    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.IFNAME.delay_first_probe_time=3"
    assert endpoint_sysctls(EndpointSettings(driver_opts={SYSCTLS: text}), "eth1") == {
        "net.ipv4.conf.eth1.log_martians": "1",
        "net.ipv6.neigh.eth1.delay_first_probe_time": "3",
    }
