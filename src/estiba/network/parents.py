"""Networks that hang on a link of the host, their parent: which it may be, and in what mode. Pure.

The words are those of dockerd's macvlan and ipvlan drivers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from estiba.model.errors import Forbidden, InvalidArgument
from estiba.model.ids import short
from estiba.network.firewall.rules import check_interface_name
from estiba.network.record import NetworkRecord, NetworkSpec

OPTION_PARENT = "parent"
_EXCLUSIVE = "passthru"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of link over a parent, with its modes and flags as the kernel numbers them."""

    name: str
    modes: dict[str, int]
    flags: dict[str, int]

    @property
    def option_mode(self) -> str:
        return f"{self.name}_mode"

    @property
    def option_flag(self) -> str:
        return f"{self.name}_flag"


MACVLAN = Kind("macvlan", {"bridge": 4, "private": 1, "vepa": 2, "passthru": 8}, {})
IPVLAN = Kind("ipvlan", {"l2": 0, "l3": 1, "l3s": 2}, {"bridge": 0, "private": 1, "vepa": 2})


def plan_mode(kind: Kind, options: dict[str, str]) -> str:
    """The mode, of ipvlan with its flag: `bridge`, `l3-private`. Raises InvalidArgument."""
    mode = _choice(kind, "mode", options.get(kind.option_mode, ""), kind.modes)
    if not kind.flags:
        return mode
    return f"{mode}-{_choice(kind, 'flag', options.get(kind.option_flag, ''), kind.flags)}"


def mode_numbers(kind: Kind, mode: str) -> tuple[int, int]:
    """Mode and flag as the kernel wants them."""
    name, _, flag = mode.partition("-")
    return kind.modes[name], kind.flags.get(flag, 0)


def plan_parent(kind: Kind, network_id: str, spec: NetworkSpec) -> str:
    """The parent's name; that of a link which leads nowhere if none is asked for.

    Raises InvalidArgument.
    """
    parent = spec.options.get(OPTION_PARENT, "")
    if not parent:
        return f"dm-{short(network_id)}"
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {kind.name} parent link")
    return check_interface_name(parent)


def parse_vlan(parent: str) -> tuple[str, int]:
    """The link and the tag of a VLAN sub-interface such as eth0.50. Raises InvalidArgument."""
    master, dot, tag = parent.rpartition(".")
    if not dot or not master or not tag.isdecimal():
        raise InvalidArgument(
            f"invalid subinterface vlan name {parent}, example formatting is eth0.10"
        )
    if not 1 <= int(tag) <= 4094:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {tag}")
    return master, int(tag)


def check_sharing(network: NetworkRecord, others: Iterable[NetworkRecord]) -> None:
    """A parent may be shared by networks of one kind, unless one wants it for itself.

    Raises Forbidden.
    """
    for other in others:
        if other.parent != network.parent:
            continue
        if other.driver != network.driver:
            raise Forbidden(
                f"parent interface {network.parent} is in use by the {other.driver} network "
                f"{other.name}: a link bears children of one kind only"
            )
        if _EXCLUSIVE in (network.parent_mode, other.parent_mode):
            raise Forbidden(
                f"{network.driver} network {other.name} is already using parent interface "
                f"{network.parent}: mode {_EXCLUSIVE} wants it alone"
            )


def _choice(kind: Kind, what: str, wanted: str, choices: dict[str, int]) -> str:
    default = next(iter(choices))
    if wanted and wanted not in choices:
        raise InvalidArgument(
            f"requested {kind.name} {what} '{wanted[:32]}' is not valid, '{default}' {what} is the "
            f"{kind.name} driver default: use one of {', '.join(choices)}"
        )
    return wanted or default
