"""What the driver options of an endpoint ask for: interface name, settings of the kernel. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface

from estiba.model.container import EndpointIpamConfig, EndpointSettings
from estiba.model.errors import InvalidArgument
from estiba.network.addresses import Interface, interfaces_of
from estiba.network.ipam import parse_address
from estiba.network.record import Endpoint
from estiba.network.sandbox import Setup

OPTION_SYSCTLS = "com.docker.network.endpoint.sysctls"
OPTION_IFNAME = "com.docker.network.endpoint.ifname"
_SYSCTL = re.compile(r"(net\.(?:ipv4|ipv6|mpls)\.[\w.]+\.)(?:IFNAME|ifname)(\.[\w.]+)=([^,\s]+)")
_IFNAME = re.compile(r"[^\s/:]{1,15}")
_MAX_LINK_LOCAL = 64


def endpoint_sysctls(settings: EndpointSettings, interface: str) -> dict[str, str]:
    """The kernel's settings for an interface, from the endpoint's driver options.

    Raises InvalidArgument for one that does not name the interface as IFNAME.
    """
    found = {}
    for text in filter(None, settings.driver_opts.get(OPTION_SYSCTLS, "").split(",")):
        match = _SYSCTL.fullmatch(text)
        if match is None:
            raise InvalidArgument(
                f"invalid {OPTION_SYSCTLS}: {text[:64]!r}: use for example "
                "net.ipv4.conf.IFNAME.log_martians=1"
            )
        found[f"{match[1]}{interface}{match[2]}"] = match[3]
    return found


def interface_name(settings: EndpointSettings) -> str:
    """The name that is asked for inside the container; empty if none is. Raises InvalidArgument."""
    name = settings.driver_opts.get(OPTION_IFNAME, "")
    if name and (not _IFNAME.fullmatch(name) or name in (".", "..", "lo", "all", "default")):
        raise InvalidArgument(
            f"invalid {OPTION_IFNAME} {name[:32]!r}: use up to 15 characters without slash, colon "
            "and space, and not the name of loopback"
        )
    return name


def link_local_addresses(ipam: EndpointIpamConfig | None) -> list[Interface]:
    """The link-local addresses to add to those of the pools. Raises InvalidArgument."""
    texts = ipam.link_local_ips if ipam else []
    if len(texts) > _MAX_LINK_LOCAL:
        raise InvalidArgument(f"at most {_MAX_LINK_LOCAL} link-local addresses an endpoint")
    found: list[Interface] = []
    for text in texts:
        address = parse_address(text, 6 if ":" in text else 4)
        if not address.is_link_local:
            raise InvalidArgument(f"invalid link local IP address: {address}")
        found.append(ip_interface((address, 16 if address.version == 4 else 64)))
    return found


def setup_of(
    endpoint: Endpoint, default_route: Iterable[int], *, is_in_host: bool = False
) -> Setup:
    """What the endpoint's interface is to have inside; `default_route` is a set of families.

    `is_in_host`: all neighbours on its link are in this host.
    """
    gateways = (endpoint.gateway_of(version) for version in default_route)
    return Setup(
        interface=endpoint.interface,
        addresses=tuple(interfaces_of(endpoint)),
        gateways=tuple(ip_address(gateway) for gateway in gateways if gateway),
        is_in_host=is_in_host,
        sysctls=endpoint_sysctls(endpoint.requested, endpoint.interface),
    )
