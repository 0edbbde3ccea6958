"""What the firewall is told: bridges, the containers' links on them, published ports. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from estiba.model.errors import InvalidArgument
from estiba.network.hostports import ANY_ADDRESS

_INTERFACE_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,15}")


@dataclass(frozen=True, slots=True)
class BridgeRule:
    """One bridge network as the firewall sees it."""

    bridge: str
    subnets: tuple[IPv4Network | IPv6Network, ...]
    icc: bool = True
    masquerade: bool = True
    internal: bool = False
    routed: tuple[int, ...] = ()
    """Families (4, 6) whose addresses are known outside: never masqueraded, and its published
    ports are reached at the containers' own addresses."""

    unprotected: tuple[int, ...] = ()
    """Families whose unpublished ports are open to who routes to them."""

    snat: tuple[IPv4Address | IPv6Address, ...] = ()
    """With which address of the host containers leave, at most one a family."""


@dataclass(frozen=True, slots=True)
class PortRule:
    """One published port."""

    protocol: str
    host_ip: str
    host_port: int
    address: IPv4Address | IPv6Address
    port: int

    @property
    def is_anywhere(self) -> bool:
        return self.host_ip in (ANY_ADDRESS, "::")

    @property
    def key(self) -> tuple[str, ...]:
        """What is looked up; one container has it at a time."""
        where = () if self.is_anywhere else (str(ip_address(self.host_ip)),)
        return (*where, self.protocol, str(self.host_port))


@dataclass(frozen=True, slots=True)
class LinkRule:
    """A port of one container that another one reaches, although their network keeps its
    containers apart.
    """

    source: IPv4Address
    target: IPv4Address
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """A container's link: whatever comes in by it bears these addresses and no others.

    `link` is the host's end of the pair; link-local IPv6 addresses that belong to the MAC count
    as well.
    """

    link: str
    bridge: str
    mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    icc: bool = True
    """Whether it may talk to its neighbours."""

    is_guarded: bool = True
    """Whether it is held to its addresses at all."""


def table_name(bridge: str) -> str:
    """The name of the table that belongs to the engine with that default bridge."""
    return "estiba_" + re.sub(r"[^a-zA-Z0-9_]", "_", bridge)


def check_interface_name(name: str) -> str:
    """Raises InvalidArgument for a name that no Linux interface can have."""
    if not _INTERFACE_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidArgument(
            f"invalid bridge name {name[:32]!r}: at most 15 of [a-zA-Z0-9_.-] are allowed"
        )
    return name
