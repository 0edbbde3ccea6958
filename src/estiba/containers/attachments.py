"""Which networks a new container joins, and as what. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import msgspec

from estiba.containers.record import AttachedNetwork
from estiba.model.container import (
    OF_CONTAINER,
    Config,
    EndpointIpamConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
)
from estiba.model.errors import InvalidArgument
from estiba.network.mac import check_mac

_PREDEFINED = ("bridge", "host", "none")
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_SYSCTL = re.compile(r"(net\.(?:ipv4|ipv6|mpls)\.[\w.]+\.)IFNAME(\.[\w.]+)=([^,\s]+)")


def plan_networks(
    config: Config, host: HostConfig, networking: NetworkingConfig
) -> list[AttachedNetwork]:
    """The networks to join at start; a shared or absent network joins none.

    Raises InvalidArgument for settings that no network takes.
    """
    mode = host.network_mode
    wanted = dict(networking.endpoints_config)
    if "default" in wanted:
        wanted.setdefault("bridge", wanted.pop("default"))
    if config.network_disabled:
        mode = "none"
    if mode.startswith(OF_CONTAINER):
        if wanted:
            raise InvalidArgument(
                "conflicting options: a container that shares another's network joins no networks"
            )
        return []
    first = wanted.pop(mode, EndpointSettings())
    if config.mac_address and not first.mac_address:
        first = msgspec.structs.replace(first, mac_address=config.mac_address)
    if wanted and mode in ("host", "none"):
        raise InvalidArgument(
            f"conflicting options: network mode {mode} and networks {', '.join(wanted)}"
        )
    chosen = {mode: first, **wanted}
    for name, settings in chosen.items():
        _check(name, settings)
    return [AttachedNetwork(network=name, requested=spec) for name, spec in chosen.items()]


def _check(name: str, settings: EndpointSettings) -> None:
    check_mac(settings.mac_address)
    if name in _PREDEFINED and settings.aliases:
        raise InvalidArgument(
            f"invalid config for network {name}: invalid endpoint settings: network-scoped "
            "alias is supported only for containers in user defined networks"
        )
    endpoint_sysctls(settings, "eth0")
    ipam = settings.ipam_config or EndpointIpamConfig()
    for version, text in ((4, ipam.ipv4_address), (6, ipam.ipv6_address)):
        if text and not _is_address(text, version):
            raise InvalidArgument(
                f"invalid config for network {name}: invalid endpoint settings: "
                f"invalid IPv{version} address: {text[:64]}"
            )


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def endpoint_sysctls(settings: EndpointSettings, interface: str) -> dict[str, str]:
    """The kernel's settings for an interface, from the endpoint's driver options.

    Raises InvalidArgument for one that does not name the interface as IFNAME.
    """
    found = {}
    for text in filter(None, settings.driver_opts.get(_SYSCTLS, "").split(",")):
        match = _SYSCTL.fullmatch(text)
        if match is None:
            raise InvalidArgument(
                f"invalid {_SYSCTLS}: {text[:64]!r}: use for example "
                "net.ipv4.conf.IFNAME.log_martians=1"
            )
        found[f"{match[1]}{interface}{match[2]}"] = match[3]
    return found


def attachment_warnings(networks: list[AttachedNetwork]) -> Iterator[str]:
    """What of the endpoints' settings has no effect."""
    for net in networks:
        settings = net.requested
        ipam = settings.ipam_config
        ignored = [name for name in settings.driver_opts if name != _SYSCTLS]
        if settings.links:
            ignored.append("Links")
        if ipam is not None and ipam.link_local_ips:
            ignored.append("LinkLocalIPs")
        if ipam is not None and ipam.ipv6_address:
            ignored.append("IPv6Address")
        if ignored:
            yield (
                f"Settings without effect on network {net.network} were discarded: "
                f"{', '.join(ignored)}."
            )
