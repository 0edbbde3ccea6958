"""How registries are reached: their endpoints, mirrors, trust, proxies, patience. No network."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from estiba.distribution.proxies import Proxies
from estiba.distribution.urls import Origin
from estiba.model.errors import InvalidArgument
from estiba.model.reference import DEFAULT_DOMAIN, parse_reference

DEFAULT_CERTS_DIRS = (Path("/etc/estiba/certs.d"), Path("/etc/docker/certs.d"))
DEFAULT_HOST = "registry-1.docker.io"
"""Where the registry `docker.io` answers."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place that serves a registry's repositories: `host[:port]`, names behind a prefix.

    `scheme` is empty where the first connection shall find out (insecure registries).
    """

    host: str
    scheme: str
    prefix: str = ""
    is_mirror: bool = False


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Times in seconds.

    `insecure` holds hosts, `host:port` and CIDR networks that may speak plain HTTP, or TLS that
    nobody vouches for; those on loopback always may. `mirrors` maps a registry's host, or `*`,
    to URLs that are asked before it in pulls.
    """

    certs_dirs: tuple[Path, ...] = DEFAULT_CERTS_DIRS
    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    proxies: Proxies = field(default_factory=Proxies)
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0
    commit_timeout_s: float = 600.0
    """How long a registry may take to store what was sent."""
    attempts: int = 5
    backoff_s: float = 0.5
    """Before the second attempt; it doubles."""

    def is_insecure(self, host: str) -> bool:
        """`host` may carry a port."""
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or host in self.insecure or name in self.insecure:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or any(_holds(network, address) for network in self.insecure)

    def names_of(self, origin: Origin) -> tuple[str, ...]:
        """Under which names the settings may speak of it."""
        bare = f"[{origin.host}]" if ":" in origin.host else origin.host
        names = (origin.authority, f"{bare}:{origin.port}")
        return (*names, DEFAULT_DOMAIN) if bare == DEFAULT_HOST else names

    def site(self, domain: str) -> Site:
        """The registry itself."""
        host = DEFAULT_HOST if domain == DEFAULT_DOMAIN else domain
        return Site(host, "" if self.is_insecure(host) else "https")

    def sites(self, domain: str) -> list[Site]:
        """In the order in which a pull asks: mirrors, then the registry itself."""
        urls = (*self.mirrors.get(domain, ()), *self.mirrors.get("*", ()))
        return [*(self.mirror(url) for url in dict.fromkeys(urls)), self.site(domain)]

    def mirror(self, url: str) -> Site:
        """A mirror's path stands before the names of repositories.

        Raises InvalidArgument for what is no URL of a mirror.
        """
        parts = urlsplit(url)
        host = parts.netloc.lower()
        prefix = parts.path.strip("/")
        try:
            if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
                raise ValueError("not http:// or https://, or a query in it")
            parse_reference(f"{host}/{prefix or 'x'}")
            if not parts.hostname or urlsplit(f"//{host}").port == 0:
                raise ValueError("no host")
        except (ValueError, InvalidArgument) as error:
            raise InvalidArgument(f"invalid mirror {url[:128]!r}: {error}") from error
        return Site(host, parts.scheme, prefix, is_mirror=True)


def is_network(text: str) -> bool:
    """Whether an insecure registry is given as a CIDR network or an address."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
