"""Which names and addresses outside may be reached: the language of `--egress`. Pure.

    open                                everything (where nothing is said)
    none                                nothing
    allow=HOST[:PORTS][/PROTOCOL],…     these alone

HOST is a name (`deb.debian.org`), all names below one (`*.debian.org`), an address, a subnet,
or `*` for every address; IPv6 stands in brackets where ports follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from estiba.model.errors import InvalidArgument
from estiba.network.policy.service import EVERYTHING, PROTOCOLS, Service, parse_service

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

OPTION = "estiba.egress"
"""The driver option of a network, and the annotation of a container."""

ANYWHERE = "*"
MAX_TEXT = 16384
MAX_ENTRIES = 256
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_BRACKETED = re.compile(r"\[([^\]]*)\](.*)")
_SUFFIX = re.compile(r"(?::(?P<ports>[^/:]+))?(?:/(?P<protocol>[a-zA-Z]+))?")


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry: a name or a pattern of names, or a subnet, and the service there."""

    host: str
    network: Network | None = None
    service: Service = EVERYTHING

    @property
    def is_name(self) -> bool:
        """Its addresses are learnt from answers."""
        return self.network is None and self.host != ANYWHERE

    def names(self, name: str) -> bool:
        """Whether the name of a question is among those that it allows; lower case, no dot."""
        if self.host == ANYWHERE or self.host == name:
            return True
        return self.host.startswith("*.") and name.endswith(self.host[1:])

    def holds(self, address: Address) -> bool:
        if self.host == ANYWHERE:
            return True
        found = self.network
        return found is not None and found.version == address.version and address in found

    def __str__(self) -> str:
        service = str(self.service)
        if not service:
            return f"allow={self.host}"
        if not self.service.low:
            return f"allow={self._bare}/{service}"
        return f"allow={self._bare}:{service}"

    @property
    def _bare(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Egress:
    """A closed list; one without entries is `none`."""

    allowed: tuple[Allowed, ...] = ()

    @property
    def has_names(self) -> bool:
        return any(entry.is_name for entry in self.allowed)

    def names(self, name: str) -> bool:
        return any(entry.names(name) for entry in self.allowed)

    def __str__(self) -> str:
        return ",".join(map(str, self.allowed)) or "none"


def parse_egress(text: str) -> Egress | None:
    """What the option says; None is `open`. Raises InvalidArgument naming the entry."""
    if len(text) > MAX_TEXT:
        raise InvalidArgument(f"{OPTION}: longer than {MAX_TEXT} characters")
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words in ([], ["open"]):
        return None
    if words == ["none"]:
        return Egress()
    if len(words) > MAX_ENTRIES:
        raise InvalidArgument(f"{OPTION}: more than {MAX_ENTRIES} entries")
    return Egress(tuple(dict.fromkeys(_parse_entry(word) for word in words)))


def _parse_entry(word: str) -> Allowed:
    key, _, value = word.partition("=")
    if key != "allow" or not value:
        raise InvalidArgument(
            f"invalid egress {word[:100]!r}: write none, open, or allow=HOST[:PORT][/PROTOCOL]; "
            "`none` and `open` stand alone"
        )
    host, suffix = _split(value)
    found = _SUFFIX.fullmatch(suffix)
    if found is None:
        raise InvalidArgument(
            f"invalid egress {word[:100]!r}: after the host comes :PORT[-PORT] and /PROTOCOL; "
            "an IPv6 address with a port stands in brackets"
        )
    return Allowed(host, _network(host, word), _service(found["ports"], found["protocol"]))


def _split(value: str) -> tuple[str, str]:
    """Host and what follows it."""
    bracketed = _BRACKETED.fullmatch(value)
    if bracketed:
        return _canonical(bracketed[1]), bracketed[2]
    if value.count(":") > 1:
        address, slash, rest = value.rpartition("/")
        if slash and rest.lower() in PROTOCOLS:
            return _canonical(address), f"/{rest}"
        return _canonical(value), ""
    end = re.search(r":|/(?![0-9])", value)
    at = end.start() if end else len(value)
    return _canonical(value[:at]), value[at:]


def _canonical(host: str) -> str:
    return host.lower().removesuffix(".")


def _network(host: str, word: str) -> Network | None:
    if host == ANYWHERE:
        return None
    if ":" in host or "/" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            return ip_network(host)
        except ValueError as error:
            raise InvalidArgument(f"invalid egress {word[:100]!r}: {error}") from error
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise InvalidArgument(
            f"invalid egress {word[:100]!r}: {host[:64]!r} is no name of a domain, *.NAME, "
            "address or subnet"
        )
    return None


def _service(ports: str | None, protocol: str | None) -> Service:
    if ports is None:
        return parse_service(protocol) if protocol else EVERYTHING
    return parse_service(f"{ports}/{protocol}" if protocol else ports)


def check_option(options: Mapping[str, str], driver: str) -> None:
    """Raises InvalidArgument for a network whose list cannot be read, or could not be kept."""
    if parse_egress(options.get(OPTION, "")) is not None and driver != "bridge":
        raise InvalidArgument(
            f"{OPTION}: a network of driver {driver} does not pass the engine's firewall: "
            "use the driver bridge"
        )
