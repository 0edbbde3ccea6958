"""From flags and requests to a bridge network's record: options, subnets, gateways. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path

import msgspec

from estiba.model.errors import Forbidden, InvalidArgument
from estiba.model.ids import short
from estiba.network.firewall.rules import check_interface_name
from estiba.network.ipam import DEFAULT_POOLS, AddressPool, Network, Taken, parse_address
from estiba.network.pools import parse_range, parse_subnet, plan_pools
from estiba.network.record import IpamConfig, NetworkRecord, NetworkSpec

Interface = IPv4Interface | IPv6Interface

_BRIDGE = "com.docker.network.bridge."
OPTION_BRIDGE = _BRIDGE + "name"
OPTION_ICC = _BRIDGE + "enable_icc"
OPTION_MASQUERADE = _BRIDGE + "enable_ip_masquerade"
OPTION_HOST_IP = _BRIDGE + "host_binding_ipv4"
OPTION_INHIBIT_IPV4 = _BRIDGE + "inhibit_ipv4"
OPTION_GATEWAY_MODE = _BRIDGE + "gateway_mode_ipv"
OPTION_SNAT = "com.docker.network.host_ipv"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_ANTI_SPOOFING = "estiba.anti-spoofing"
OPTION_PREFIX = "com.docker.network.container_iface_prefix"
NO_BRIDGE = "none"
"""As the name of the default bridge: there is none."""

_GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_MIN_MTU, _MIN_MTU_IPV6, _MAX_MTU = 68, 1280, 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What the daemon's flags say; `bridge` is the link of the default network."""

    netns_root: Path
    bridge: str = "estiba0"
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    """The part of the default network's subnet that containers get; empty is all of it."""

    ipv6: bool = False
    """The default network has IPv6."""

    pools: tuple[AddressPool, ...] = DEFAULT_POOLS
    engine_id: str = ""
    """From which the default pool of IPv6 addresses derives, if `pools` has none."""

    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    ip_forward: bool = True
    host_ip: str = "0.0.0.0"
    publish_policy: str = "host"
    """`host`: the host's own firewall decides whether other machines reach a published port;
    `open`: they do."""


def plan_bridge(
    network_id: str,
    spec: NetworkSpec,
    *,
    created_ns: int,
    pools: Iterable[AddressPool],
    taken: Iterable[Taken],
) -> NetworkRecord:
    """The record of a new bridge network.

    `taken` are the subnets of the host's addresses and routes and of other networks.
    Raises InvalidArgument or Forbidden.
    """
    options = spec.options
    parse_truth(options, OPTION_ANTI_SPOOFING, default=True)
    modes = {version: _gateway_mode(options, version, spec.internal) for version in (4, 6)}
    record = plan_addresses(network_id, spec, created_ns=created_ns, pools=pools, taken=taken)
    return msgspec.structs.replace(
        record,
        bridge=check_interface_name(options.get(OPTION_BRIDGE) or f"br-{short(network_id)}"),
        icc=parse_truth(options, OPTION_ICC, default=True),
        masquerade=parse_truth(options, OPTION_MASQUERADE, default=True),
        host_ip=_host_ip(options.get(OPTION_HOST_IP)),
        inhibit_ipv4=parse_truth(options, OPTION_INHIBIT_IPV4, default=False),
        gateway_mode_ipv4=modes[4],
        gateway_mode_ipv6=modes[6],
        snat_ipv4=_snat(options, 4),
        snat_ipv6=_snat(options, 6),
    )


def plan_addresses(
    network_id: str,
    spec: NetworkSpec,
    *,
    created_ns: int,
    pools: Iterable[AddressPool],
    taken: Iterable[Taken],
) -> NetworkRecord:
    """What the records of all drivers have in common. Raises as `plan_bridge` does."""
    versions = (4,) * spec.enable_ipv4 + (6,) * spec.enable_ipv6
    prefix = spec.options.get(OPTION_PREFIX, "")
    return NetworkRecord(
        id=network_id,
        name=spec.name,
        driver=spec.driver,
        created_ns=created_ns,
        internal=spec.internal,
        attachable=spec.attachable,
        ipv4=spec.enable_ipv4,
        ipv6=spec.enable_ipv6,
        ipam_driver=spec.ipam_driver,
        ipam_options=spec.ipam_options,
        pools=plan_pools(spec.pools, versions=versions, pools=pools, taken=taken),
        options=spec.options,
        labels=spec.labels,
        mtu=_mtu(spec.options.get(OPTION_MTU), ipv6=spec.enable_ipv6),
        # A number follows, of up to three digits.
        interface_prefix=check_interface_name(f"{prefix}999")[:-3] if prefix else "",
    )


def plan_default_bridge(
    record: NetworkRecord,
    config: NetworkConfig,
    *,
    is_foreign: bool,
    existing: Sequence[Interface],
    pools: Sequence[AddressPool],
    taken: Iterable[Taken],
) -> NetworkRecord:
    """The default network's record as the flags want it.

    `is_foreign` says whether the bridge is there and not of the engine's making, `existing` which
    addresses it has.
    Its subnet is that of `--bip`, else of the address that the bridge has, else that of last
    time, else one that is free; the same for IPv6. Raises InvalidArgument.
    """
    used = list(taken)
    planned = []
    for version in (4, 6) if config.ipv6 else (4,):
        present = _fitting(config, version, existing, keeps_all=is_foreign and version == 4)
        pool = _default_pool(record, config, version, present, pools, used)
        planned.append(msgspec.structs.replace(pool, ip_range=_fixed_range(config, version, pool)))
    return msgspec.structs.replace(
        record,
        pools=planned,
        ipv6=config.ipv6,
        bridge=config.bridge,
        owns_bridge=not is_foreign or (record.owns_bridge and record.bridge == config.bridge),
        mtu=_mtu(str(config.mtu), ipv6=config.ipv6),
        icc=config.icc,
        masquerade=config.masquerade,
        host_ip=_host_ip(config.host_ip),
        options={
            _BRIDGE + "default_bridge": "true",
            OPTION_BRIDGE: config.bridge,
            OPTION_ICC: str(config.icc).lower(),
            OPTION_MASQUERADE: str(config.masquerade).lower(),
            OPTION_HOST_IP: config.host_ip,
            OPTION_MTU: str(config.mtu),
        },
    )


def without_bridge(record: NetworkRecord) -> NetworkRecord:
    """The default network's record when it is to have no bridge: loopback alone."""
    return NetworkRecord(
        id=record.id,
        name=record.name,
        driver="null",
        created_ns=record.created_ns,
        predefined=True,
    )


def _fitting(
    config: NetworkConfig, version: int, existing: Sequence[Interface], *, keeps_all: bool
) -> list[Interface]:
    """Which addresses of the bridge may say what its subnet is.

    What `--fixed-cidr` names is a subnet of its own, unless it is a part of one that the bridge
    has. A bridge that is not ours gets no other address in IPv4.
    """
    fixed = _fixed(config, version)
    return [
        one
        for one in existing
        if one.version == version and not one.ip.is_link_local
        if fixed is None or keeps_all or fixed.overlaps(one.network)
    ]


def _fixed(config: NetworkConfig, version: int) -> Network | None:
    text = config.fixed_cidr if version == 4 else config.fixed_cidr_v6
    if not text:
        return None
    area = parse_range(text)
    if area.version != version:
        raise InvalidArgument(f"--fixed-cidr and --fixed-cidr-v6: {area} is of the other family")
    return area


def _fixed_range(config: NetworkConfig, version: int, pool: IpamConfig) -> str:
    area, subnet = _fixed(config, version), parse_subnet(pool.subnet)
    if area is None:
        return ""
    flag, bip = ("--fixed-cidr", "--bip") if version == 4 else ("--fixed-cidr-v6", "--bip6")
    if not area.overlaps(subnet) or area.prefixlen < subnet.prefixlen:
        raise InvalidArgument(
            f"{flag} {area} does not lie in the subnet {subnet} of the bridge "
            f"{config.bridge}: choose that with {bip}"
        )
    return "" if area == subnet else str(area)


def _default_pool(
    record: NetworkRecord,
    config: NetworkConfig,
    version: int,
    present: Sequence[Interface],
    pools: Sequence[AddressPool],
    taken: list[Taken],
) -> IpamConfig:
    bip = _bip(config, version)
    for address in [bip] if bip else present:
        return IpamConfig(subnet=str(address.network), gateway=str(address.ip))
    fixed = _fixed(config, version)
    if fixed is not None:
        subnet = parse_subnet(str(fixed))
        return IpamConfig(subnet=str(subnet), gateway=str(subnet[1]))
    before = [one for one in record.pools if parse_subnet(one.subnet).version == version]
    if before and record.bridge == config.bridge:
        with contextlib.suppress(InvalidArgument, Forbidden):
            return plan_pools(before, versions=(version,), pools=pools, taken=taken)[0]
    return plan_pools([], versions=(version,), pools=pools, taken=taken)[0]


def _bip(config: NetworkConfig, version: int) -> Interface | None:
    flag, text = ("--bip", config.bip) if version == 4 else ("--bip6", config.bip6)
    if not text:
        return None
    try:
        bip = ip_interface(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {flag} {text[:64]!r}: {error}") from error
    if bip.version != version or bip.network.prefixlen > bip.max_prefixlen - 2:
        raise InvalidArgument(f"invalid {flag} {text[:64]!r}: use an IPv{version} address/prefix")
    return bip


def parse_truth(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Raises InvalidArgument."""
    value = options.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0", "t", "f"):
        raise InvalidArgument(f"invalid value {value[:32]!r} for {name}: use true or false")
    return value in ("true", "1", "t")


def _gateway_mode(options: Mapping[str, str], version: int, internal: bool) -> str:
    name = f"{OPTION_GATEWAY_MODE}{version}"
    mode = options.get(name) or "nat"
    if mode not in _GATEWAY_MODES:
        raise InvalidArgument(
            f"invalid value {mode[:32]!r} for {name}: use one of {', '.join(_GATEWAY_MODES)}"
        )
    if mode == "isolated" and not internal:
        raise InvalidArgument(
            f"gateway mode 'isolated' can only be used for an internal network: create it with "
            f"--internal, or leave out {name}"
        )
    return mode


def _snat(options: Mapping[str, str], version: int) -> str:
    text = options.get(f"{OPTION_SNAT}{version}", "")
    return str(parse_address(text, version)) if text else ""


def _mtu(text: str | None, *, ipv6: bool) -> int:
    least = _MIN_MTU_IPV6 if ipv6 else _MIN_MTU
    if not text or text == "0":
        return 1500
    if not text.isdecimal() or len(text) > 8 or not least <= int(text) <= _MAX_MTU:
        raise InvalidArgument(f"invalid MTU {text[:16]!r}: use {least} to {_MAX_MTU}")
    return int(text)


def _host_ip(text: str | None) -> str:
    """An address of either family in its shortest form; 0.0.0.0 is everywhere."""
    try:
        return str(ip_address(text or "0.0.0.0"))
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {OPTION_HOST_IP}: {text!r}") from error
