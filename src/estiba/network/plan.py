"""From flags and requests to a bridge network's record: options, subnet, gateway. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network
from pathlib import Path

import msgspec

from estiba.model import errors
from estiba.model.errors import FailedPrecondition, Forbidden, InvalidArgument
from estiba.model.ids import short
from estiba.network.firewall.rules import check_interface_name
from estiba.network.ipam import DEFAULT_POOLS, AddressPool, choose_subnet
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec

OPTION_BRIDGE = "com.docker.network.bridge.name"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_IP = "com.docker.network.bridge.host_binding_ipv4"
OPTION_MTU = "com.docker.network.driver.mtu"
_MIN_MTU, _MAX_MTU = 68, 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What the daemon's flags say; `bridge` is the link of the default network."""

    netns_root: Path
    bridge: str = "estiba0"
    bip: str = ""
    fixed_cidr: str = ""
    """The part of the default network's subnet that containers get; empty is all of it."""

    pools: tuple[AddressPool, ...] = DEFAULT_POOLS
    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    ip_forward: bool = True
    host_ip: str = "0.0.0.0"


def plan_bridge(
    network_id: str,
    spec: NetworkSpec,
    *,
    created_ns: int,
    pools: Iterable[AddressPool],
    taken: Iterable[IPv4Network],
) -> NetworkRecord:
    """The record of a new bridge network.

    `taken` are the subnets of the host's addresses and routes and of other networks.
    Raises InvalidArgument, NotImplemented, Forbidden or FailedPrecondition.
    """
    if spec.enable_ipv6:
        raise errors.NotImplemented("IPv6 networks are not built yet: leave out --ipv6")
    options = spec.options
    return NetworkRecord(
        id=network_id,
        name=spec.name,
        driver=spec.driver,
        created_ns=created_ns,
        internal=spec.internal,
        attachable=spec.attachable,
        pools=[plan_pool(spec.pools, pools=pools, taken=taken)],
        options=options,
        labels=spec.labels,
        bridge=check_interface_name(options.get(OPTION_BRIDGE) or f"br-{short(network_id)}"),
        mtu=_mtu(options.get(OPTION_MTU)),
        icc=_truth(options, OPTION_ICC),
        masquerade=_truth(options, OPTION_MASQUERADE),
        host_ip=_host_ip(options.get(OPTION_HOST_IP)),
    )


def plan_default_bridge(
    record: NetworkRecord,
    config: NetworkConfig,
    *,
    exists: bool,
    existing: IPv4Interface | None,
    taken: Iterable[IPv4Network],
) -> NetworkRecord:
    """The default network's record as the flags want it.

    `exists` says whether the bridge is there, `existing` which address it has.
    Its subnet is that of `--bip`, else of the address that the bridge has, else that of last
    time, else one that is free. Raises InvalidArgument or FailedPrecondition.
    """
    pool = _default_pool(record, config, existing, list(taken))
    return msgspec.structs.replace(
        record,
        pools=[msgspec.structs.replace(pool, ip_range=_fixed_range(config, pool))],
        bridge=config.bridge,
        owns_bridge=not exists or (record.owns_bridge and record.bridge == config.bridge),
        mtu=config.mtu,
        icc=config.icc,
        masquerade=config.masquerade,
        host_ip=config.host_ip,
        options={
            "com.docker.network.bridge.default_bridge": "true",
            OPTION_BRIDGE: config.bridge,
            OPTION_ICC: str(config.icc).lower(),
            OPTION_MASQUERADE: str(config.masquerade).lower(),
            OPTION_HOST_IP: config.host_ip,
            OPTION_MTU: str(config.mtu),
        },
    )


def _fixed_range(config: NetworkConfig, pool: IpamConfig) -> str:
    if not config.fixed_cidr:
        return ""
    area, subnet = parse_subnet(config.fixed_cidr), parse_subnet(pool.subnet)
    if not area.subnet_of(subnet):
        raise InvalidArgument(
            f"--fixed-cidr {area} does not lie in the subnet {subnet} of the bridge "
            f"{config.bridge}: choose that with --bip"
        )
    return str(area)


def _default_pool(
    record: NetworkRecord,
    config: NetworkConfig,
    existing: IPv4Interface | None,
    taken: list[IPv4Network],
) -> IpamConfig:
    if config.bip:
        try:
            bip = IPv4Interface(config.bip)
        except ValueError as error:
            raise InvalidArgument(f"invalid --bip {config.bip[:64]!r}: {error}") from error
        return IpamConfig(subnet=str(bip.network), gateway=str(bip.ip))
    if existing is not None:
        return IpamConfig(subnet=str(existing.network), gateway=str(existing.ip))
    if record.pools and record.bridge == config.bridge:
        with contextlib.suppress(FailedPrecondition, Forbidden):
            return plan_pool(record.pools, pools=config.pools, taken=taken)
    return plan_pool([], pools=config.pools, taken=taken)


def plan_pool(
    wanted: list[IpamConfig], *, pools: Iterable[AddressPool], taken: Iterable[IPv4Network]
) -> IpamConfig:
    """The pool of a network with its gaps filled. Raises as `plan_bridge` does."""
    if len(wanted) > 1:
        raise errors.NotImplemented("more than one address pool in a network is not built yet")
    config = wanted[0] if wanted else IpamConfig()
    if config.subnet:
        subnet = parse_subnet(config.subnet)
        if subnet.prefixlen > 30:
            raise InvalidArgument(f"invalid subnet {subnet}: it has no room for containers")
        for other in taken:
            if subnet.overlaps(other) and other.prefixlen:
                raise Forbidden(
                    f"invalid pool request: Pool overlaps with other one on this address space: "
                    f"{subnet} and {other}"
                )
    else:
        subnet = choose_subnet(pools, [other for other in taken if other.prefixlen])
    area = parse_subnet(config.ip_range) if config.ip_range else None
    if area is not None and not area.subnet_of(subnet):
        raise InvalidArgument(f"invalid ip-range {area}: it does not lie in the subnet {subnet}")
    gateway = IPv4Address(_in_subnet(config.gateway, subnet)) if config.gateway else subnet[1]
    for address in config.auxiliary_addresses.values():
        _in_subnet(address, subnet)
    return IpamConfig(
        subnet=str(subnet),
        gateway=str(gateway),
        ip_range=str(area) if area else "",
        auxiliary_addresses=config.auxiliary_addresses,
    )


def parse_subnet(text: str) -> IPv4Network:
    """Raises InvalidArgument for what is no IPv4 subnet, NotImplemented for IPv6."""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text[:64]}: {error}") from error
    if not isinstance(subnet, IPv4Network):
        raise errors.NotImplemented(
            f"IPv6 networks are not built yet: leave out the subnet {subnet}"
        )
    return subnet


def _in_subnet(text: str, subnet: IPv4Network) -> str:
    try:
        inside = IPv4Address(text) in subnet
    except ValueError as error:
        raise InvalidArgument(f"invalid IPv4 address {text[:64]!r}") from error
    if not inside:
        raise InvalidArgument(f"no matching subnet for gateway or address {text} in {subnet}")
    return text


def _truth(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "true").lower()
    if value not in ("true", "false", "1", "0", "t", "f"):
        raise InvalidArgument(f"invalid value {value!r} for {name}: use true or false")
    return value in ("true", "1", "t")


def _mtu(text: str | None) -> int:
    if not text:
        return 1500
    if not text.isdecimal() or not _MIN_MTU <= int(text) <= _MAX_MTU:
        raise InvalidArgument(f"invalid MTU {text[:16]!r}: use {_MIN_MTU} to {_MAX_MTU}")
    return int(text)


def _host_ip(text: str | None) -> str:
    try:
        return str(IPv4Address(text or "0.0.0.0"))
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {OPTION_HOST_IP}: {text!r}") from error
