"""Which networks a new container joins, and as what. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

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
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.network.endpointopts import (
    OPTION_IFNAME,
    OPTION_SYSCTLS,
    endpoint_sysctls,
    interface_name,
    link_local_addresses,
)
from estiba.network.mac import check_mac
from estiba.network.record import NetworkRecord

FindMaybe = Callable[[str], NetworkRecord | None]
"""A network by name or id; None when there is none (yet)."""

_PREDEFINED = ("bridge", "host", "none")
_KNOWN_OPTIONS = (OPTION_SYSCTLS, OPTION_IFNAME)
_OWN_DRIVERS = ("bridge", "host", "null")


def plan_networks(
    config: Config,
    host: HostConfig,
    networking: NetworkingConfig,
    find: FindMaybe = lambda _name: None,
) -> list[AttachedNetwork]:
    """The networks to join at start; a shared or absent network joins none.

    One that does not exist yet is looked for at the start. Raises InvalidArgument for settings
    that no network takes.
    """
    mode = host.network_mode
    if config.network_disabled:
        mode = "none"
    wanted = _by_name(networking, find)
    shares = mode == "host" or mode.startswith(OF_CONTAINER)
    if shares and any(settings.mac_address for settings in wanted.values()):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if mode.startswith(OF_CONTAINER):
        if wanted:
            raise InvalidArgument(
                "conflicting options: a container that shares another's network joins no networks"
            )
        return []
    main = _name_of(mode, find)
    first = wanted.pop(main, None)
    if wanted and main in ("host", "none"):
        raise InvalidArgument(
            f"conflicting options: network mode {main} and networks {', '.join(wanted)}"
        )
    chosen = wanted if wanted and first is None else {main: first or EndpointSettings(), **wanted}
    if config.mac_address:
        chosen[main] = _with_mac(chosen.get(main), config.mac_address)
    for name, settings in chosen.items():
        try:
            check_endpoint(name, settings, find(name))
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid config for network {name}: {error}") from error
    _check_interfaces(chosen)
    return [AttachedNetwork(network=name, requested=spec) for name, spec in chosen.items()]


def _by_name(networking: NetworkingConfig, find: FindMaybe) -> dict[str, EndpointSettings]:
    wanted: dict[str, EndpointSettings] = {}
    for reference, settings in networking.endpoints_config.items():
        name = _name_of(reference, find)
        if name in wanted:
            raise InvalidArgument(f'network "{name}" is specified multiple times')
        wanted[name] = settings
    return wanted


def _name_of(reference: str, find: FindMaybe) -> str:
    """The network's name, where there is one of that name or id."""
    if reference in ("", "default"):
        return "bridge"
    found = find(reference)
    return found.name if found is not None else reference


def _with_mac(settings: EndpointSettings | None, mac: str) -> EndpointSettings:
    """The container-wide address is the main network's."""
    if settings is None:
        raise InvalidArgument(
            "unable to migrate container-wide settings to endpoint: HostConfig.NetworkMode must "
            "match the identity of a network in NetworkSettings.Networks"
        )
    if settings.mac_address not in ("", mac):
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    return msgspec.structs.replace(settings, mac_address=mac)


def check_endpoint(name: str, settings: EndpointSettings, network: NetworkRecord | None) -> None:
    """Raises InvalidArgument with all that is wrong about an endpoint's settings."""
    wrong = list(_faults(name, settings, network))
    if wrong:
        lines = wrong if len(wrong) == 1 else [f"* {fault}" for fault in wrong]
        raise InvalidArgument("\n".join(["invalid endpoint settings:", *lines]))


def _faults(name: str, settings: EndpointSettings, network: NetworkRecord | None) -> Iterator[str]:
    if name in _PREDEFINED and settings.aliases:
        yield "network-scoped alias is supported only for containers in user defined networks"
    ipam = settings.ipam_config or EndpointIpamConfig()
    for version, text in ((4, ipam.ipv4_address), (6, ipam.ipv6_address)):
        if not text:
            continue
        if not _is_address(text, version):
            yield f"invalid IPv{version} address: {text[:64]}"
        elif network is not None and not network.predefined:
            yield from _out_of_place(text, network)
    for check in (
        lambda: check_mac(settings.mac_address),
        lambda: endpoint_sysctls(settings, "eth0"),
        lambda: interface_name(settings),
        lambda: link_local_addresses(ipam),
    ):
        try:
            check()
        except EstibaError as error:
            yield error.message


def _out_of_place(text: str, network: NetworkRecord) -> Iterator[str]:
    """Only subnets that a user chose are there again after the network was made anew."""
    address = ipaddress.ip_address(text)
    subnets = [
        ipaddress.ip_network(pool.subnet, strict=False)
        for pool in network.asked_pools
        if pool.subnet
    ]
    subnets = [subnet for subnet in subnets if subnet.version == address.version]
    if not subnets:
        yield (
            "user specified IP address is supported only when connecting to networks with user "
            "configured subnets"
        )
    elif not any(address in subnet for subnet in subnets):
        yield f"no configured subnet or ip-range contain the IP address {text}"


def _is_address(text: str, version: int) -> bool:
    """An IPv4 address in the clothes of an IPv6 one is neither."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == version and not getattr(address, "ipv4_mapped", None)


def _check_interfaces(chosen: dict[str, EndpointSettings]) -> None:
    users: dict[str, str] = {}
    for network, settings in chosen.items():
        name = interface_name(settings)
        if name and name in users:
            raise InvalidArgument(
                f"invalid config for network {network}: invalid endpoint settings:\n"
                f"interface name {name} is that of the network {users[name]}: choose another one"
            )
        users[name] = network


def given_settings(settings: EndpointSettings, network: NetworkRecord) -> EndpointSettings:
    """Without a fixed address of a family that the network does not have: Docker discards it."""
    ipam = settings.ipam_config
    if ipam is None or network.ipv6 or not ipam.ipv6_address:
        return settings
    return msgspec.structs.replace(
        settings, ipam_config=msgspec.structs.replace(ipam, ipv6_address="")
    )


def attachment_warnings(networks: list[AttachedNetwork], find: FindMaybe) -> Iterator[str]:
    """What of the endpoints' settings has no effect."""
    for net in networks:
        network = find(net.network)
        if network is None or network.driver not in _OWN_DRIVERS:
            continue
        ignored = [name for name in net.requested.driver_opts if name not in _KNOWN_OPTIONS]
        if given_settings(net.requested, network) != net.requested:
            ignored.append("IPv6Address (the network was made without IPv6)")
        if ignored:
            yield (
                f"Settings without effect on network {net.network} were discarded: "
                f"{', '.join(ignored)}."
            )
