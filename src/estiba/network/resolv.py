"""The three files of a container that say who it is and whom it asks for names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from estiba.model.errors import InvalidArgument

HOST_GATEWAY = "host-gateway"
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""Docker's choice too, for hosts whose only resolver listens on loopback."""

INTERNAL_SERVER = "127.0.0.11"
"""Where containers find the engine's own name server."""

_PRINTABLE = re.compile(r"[!-~]+")
_LOCAL_NAMES = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """resolv.conf(5), without what containers have no use for."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"nameserver {server}" for server in self.nameservers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "\n".join(lines) + "\n"


def parse_resolv_conf(text: str) -> ResolvConf:
    """The last `search` or `domain` counts, as in the C library."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return ResolvConf(tuple(nameservers), search, tuple(options))


def render_resolv_conf(
    host_text: str,
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    shares_host: bool = False,
    internal: bool = False,
    ipv6: bool = False,
) -> str:
    """The host's resolv.conf with the container's wishes in place of what they replace.

    The host's resolvers on loopback are out of reach, unless the container shares the host's
    network, and so are those with IPv6 addresses without `ipv6`. The search list `.` means none.
    With `internal` the engine's name server is the only one, and asks the others itself.
    """
    host = parse_resolv_conf(host_text)
    nameservers = tuple(dns) or host.nameservers
    chosen = tuple(options) or host.options
    if internal:
        nameservers = (INTERNAL_SERVER,)
        if not any(option.startswith("ndots:") for option in chosen):
            chosen = (*chosen, "ndots:0")
    elif not dns and not shares_host:
        in_reach = [server for server in nameservers if _is_in_reach(server, ipv6=ipv6)]
        nameservers = tuple(in_reach) or FALLBACK_NAMESERVERS
    domains = tuple(search) or host.search
    if "." in search:
        domains = ()
    return str(ResolvConf(nameservers, domains, chosen))


def is_ndots_set(options: Iterable[str]) -> bool:
    """Whether names of one label are meant to be tried with a search domain first."""
    values = [option.removeprefix("ndots:") for option in options if option.startswith("ndots:")]
    return bool(values) and values[-1].isascii() and values[-1].isdecimal() and int(values[-1]) > 0


def render_hostname(hostname: str) -> str:
    return f"{hostname}\n"


def render_hosts(
    hostname: str,
    *,
    domainname: str = "",
    addresses: Iterable[str] = (),
    extra_hosts: Iterable[str] = (),
    host_gateway: str = "",
    base: str = _LOCAL_NAMES,
) -> str:
    """/etc/hosts: `base`, the extra hosts, then the container itself at each of its addresses.

    `base` is the host's own file for a container that shares the host's network.
    Raises InvalidArgument for an extra host that is none.
    """
    lines = [base if not base or base.endswith("\n") else f"{base}\n"]
    for entry in extra_hosts:
        name, address = parse_extra_host(entry)
        if address == HOST_GATEWAY:
            if not host_gateway:
                raise InvalidArgument(
                    f"unable to derive the IP value for {HOST_GATEWAY} of {name!r}: "
                    "the container is on no bridge network; give an address"
                )
            address = host_gateway
        lines.append(f"{address}\t{name}\n")
    names = own_names(hostname, domainname)
    lines += [f"{address}\t{names}\n" for address in addresses if address]
    return "".join(lines)


def own_names(hostname: str, domainname: str = "") -> str:
    """What a container calls itself in its /etc/hosts."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    short = full.partition(".")[0]
    return full if short == full else f"{full} {short}"


def with_hosts(text: str, wanted: Mapping[str, Sequence[str]], *, kept: Sequence[str] = ()) -> str:
    """/etc/hosts with exactly the addresses that are `wanted` by names; all other lines stay.

    `kept` are lines that stay although they bear such names at another address.
    """
    lines = []
    for line in text.removesuffix("\n").split("\n") if text else []:
        address, _, names = line.partition("\t")
        if names not in wanted or address in wanted[names] or line in kept:
            lines.append(line)
    for names, addresses in wanted.items():
        new = (f"{address}\t{names}" for address in addresses)
        lines += [line for line in new if line not in lines]
    return "".join(f"{line}\n" for line in lines)


def parse_extra_host(entry: str) -> tuple[str, str]:
    """Name and address of `name:address`; the address may be HOST_GATEWAY, or in brackets.

    Raises InvalidArgument.
    """
    name, _, address = entry.partition(":")
    if not name or not address or not _PRINTABLE.fullmatch(entry):
        raise InvalidArgument(f"bad format for add-host: {entry[:128]!r}: use name:address")
    if address == HOST_GATEWAY:
        return name, address
    try:
        return name, str(ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise InvalidArgument(
            f"invalid IP address in add-host: {address[:64]!r} is not an IP address"
        ) from None


def _is_in_reach(server: str, *, ipv6: bool) -> bool:
    try:
        address = ip_address(server)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local) and (ipv6 or address.version == 4)
