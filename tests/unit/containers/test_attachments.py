"""Which networks a container asks for, and with what that none of them gives."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.containers.attachments import attachment_warnings, endpoint_sysctls, plan_networks
from estiba.model.container import (
    Config,
    EndpointIpamConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
)
from estiba.model.errors import InvalidArgument

SYSCTLS = "com.docker.network.endpoint.sysctls"


def planned(
    mode: str = "bridge", config: Config | None = None, **endpoints: EndpointSettings
) -> dict[str, EndpointSettings]:
    networking = NetworkingConfig(endpoints_config=endpoints)
    joined = plan_networks(config or Config(), HostConfig(network_mode=mode), networking)
    return {net.network: net.requested for net in joined}


def test_the_mode_names_the_first_network() -> None:
    assert list(planned("own", other=EndpointSettings())) == ["own", "other"]
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
        ("own", {"driver_opts": {SYSCTLS: "net.ipv4.conf.eth0.x=1"}}, "IFNAME"),
        ("bridge", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
        ("none", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
        ("host", {"aliases": ["a"]}, "supported only for containers in user defined networks"),
    ],
)
def test_settings_refused(name: str, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        planned(name, **{name: EndpointSettings(**settings)})


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
    (warning,) = attachment_warnings(joined)
    assert warning.endswith("were discarded: odd, Links, LinkLocalIPs, IPv6Address.")
    assert list(attachment_warnings([])) == []


def test_sysctls_of_an_interface() -> None:
    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.IFNAME.delay_first_probe_time=3"
    assert endpoint_sysctls(EndpointSettings(driver_opts={SYSCTLS: text}), "eth1") == {
        "net.ipv4.conf.eth1.log_martians": "1",
        "net.ipv6.neigh.eth1.delay_first_probe_time": "3",
    }
