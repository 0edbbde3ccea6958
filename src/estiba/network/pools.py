"""The address pools of a network: what is asked for, checked, with its gaps filled. Pure.

The checks and their words are those of dockerd 28.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

from estiba.model.errors import Forbidden, InvalidArgument
from estiba.network.ipam import AddressPool, Network, Taken, choose_subnet
from estiba.network.record import IpamConfig, NetworkRecord

_MAX_POOLS = 64
_MAX_AUXILIARY = 1024


def plan_pools(
    wanted: Sequence[IpamConfig],
    *,
    versions: Sequence[int],
    pools: Iterable[AddressPool],
    taken: Iterable[Taken],
) -> list[IpamConfig]:
    """All pools of a network, IPv4 first; a family of `versions` that has none is given one.

    A pool of another family is left out, as dockerd does.
    Raises InvalidArgument, Forbidden (overlap) when there is none to be had.
    """
    if not versions:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if len(wanted) > _MAX_POOLS:
        raise InvalidArgument(f"invalid network config: at most {_MAX_POOLS} subnets")
    used, choices = list(taken), tuple(pools)
    planned: list[IpamConfig] = []
    configs = [config for config in wanted if config.subnet]
    for version in sorted(versions):
        mine = [config for config in configs if parse_subnet(config.subnet).version == version]
        rest = [c for c in wanted if not c.subnet and _family(c) == version]
        for config in mine + rest or [IpamConfig()]:
            pool = plan_pool(config, version=version, pools=choices, taken=used)
            used.append(Taken(parse_subnet(pool.subnet), "the same network"))
            planned.append(pool)
    return planned


def plan_pool(
    config: IpamConfig, *, version: int, pools: Iterable[AddressPool], taken: Iterable[Taken]
) -> IpamConfig:
    """One pool with its gaps filled. Raises as `plan_pools` does."""
    if config.subnet:
        subnet = parse_subnet(config.subnet)
        _check_overlap(subnet, taken)
    else:
        subnet = choose_subnet(pools, [other.network for other in taken], version)
    area = _ip_range(config.ip_range, subnet) if config.ip_range else None
    if len(config.auxiliary_addresses) > _MAX_AUXILIARY:
        raise InvalidArgument(
            f"invalid network config: at most {_MAX_AUXILIARY} auxiliary addresses"
        )
    auxiliary = {
        name: _member(address, subnet, f"auxiliary address {name[:64]}")
        for name, address in config.auxiliary_addresses.items()
    }
    if config.gateway:
        gateway = _member(config.gateway, subnet, f"gateway {config.gateway[:64]}")
    else:
        gateway = _first_free(area or subnet, {str(subnet[0]), *auxiliary.values()})
    return IpamConfig(
        subnet=str(subnet),
        gateway=gateway,
        ip_range=str(area) if area else "",
        auxiliary_addresses=auxiliary,
    )


def parse_subnet(text: str) -> Network:
    """Raises InvalidArgument for what is no subnet, or one without room for containers."""
    subnet = _parse_block(text, "subnet")
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        raise InvalidArgument(
            f"invalid network config: invalid subnet {subnet}: it has no room for containers"
        )
    if subnet.is_multicast or subnet.is_loopback or (subnet.version == 6 and subnet.is_link_local):
        raise InvalidArgument(
            f"invalid network config: invalid subnet {subnet}: such addresses are not routed"
        )
    return subnet


def parse_range(text: str) -> Network:
    """Raises InvalidArgument for what is no CIDR block."""
    return _parse_block(text, "ip-range")


def taken_by(networks: Iterable[NetworkRecord]) -> list[Taken]:
    """The pools of networks that exist."""
    return [
        Taken(parse_subnet(pool.subnet), f"network {network.name}")
        for network in networks
        for pool in network.pools
    ]


def _check_overlap(subnet: Network, taken: Iterable[Taken]) -> None:
    for other in taken:
        if other.network.version == subnet.version and subnet.overlaps(other.network):
            if other.avoided:
                continue
            raise Forbidden(
                f"invalid pool request: Pool overlaps with other one on this address space: "
                f"{subnet} and {other.network} ({other.by}): choose another subnet"
            )


def _parse_block(text: str, what: str) -> Network:
    try:
        block = ip_network(text, strict=False)
        is_block = "/" in text and text.rpartition("/")[2].isdecimal()
    except ValueError:
        is_block = False
    if not is_block or "%" in text:
        raise InvalidArgument(
            f"invalid network config: invalid {what} {text[:64]}: invalid CIDR block notation"
        )
    if ip_address(text.partition("/")[0]) != block.network_address:
        raise InvalidArgument(
            f"invalid network config: invalid {what} {text[:64]}: it should be {block}"
        )
    return block


def _first_free(area: Network, used: set[str]) -> str:
    """The gateway is the first address that containers might get, as dockerd has it."""
    candidates = (str(area[n]) for n in range(min(len(used) + 1, area.num_addresses)))
    found = next((address for address in candidates if address not in used), None)
    if found is None:
        raise InvalidArgument(f"invalid network config: ip-range {area} has no room for a gateway")
    return found


def _ip_range(text: str, subnet: Network) -> Network:
    area = parse_range(text)
    problem = ""
    if area.version != subnet.version:
        problem = f"parent subnet is an IPv{subnet.version} block"
    elif area.prefixlen < subnet.prefixlen:
        problem = f"CIDR block is bigger than its parent subnet {subnet}"
    elif not area.overlaps(subnet):
        problem = f"parent subnet {subnet} doesn't contain ip-range"
    if problem:
        raise InvalidArgument(f"invalid network config: invalid ip-range {area}: {problem}")
    return area


def _member(text: str, subnet: Network, what: str) -> str:
    """The address in its shortest form."""
    problem = ""
    try:
        address = ip_address(text)
    except ValueError:
        problem = "invalid address"
    else:
        if address.version != subnet.version:
            problem = f"parent subnet is an IPv{subnet.version} block"
        elif address not in subnet:
            problem = f"parent subnet {subnet} doesn't contain this address"
        elif subnet.version == 4 and address == subnet.broadcast_address:
            problem = f"it is the broadcast address of {subnet}"
        elif address == subnet.network_address:
            problem = f"it is the address of {subnet} itself"
    if problem:
        raise InvalidArgument(f"invalid network config: invalid {what}: {problem}")
    return str(address)


def _family(config: IpamConfig) -> int:
    """Of a pool without a subnet: that of what else it names."""
    named = (config.gateway, config.ip_range, *config.auxiliary_addresses.values())
    return 6 if any(":" in text for text in named) else 4
