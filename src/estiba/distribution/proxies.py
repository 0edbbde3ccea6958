"""Which proxy a request takes: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go programs read them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from estiba.model.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Proxy:
    """`authorization` is the value of a Proxy-Authorization header, or empty."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Proxies:
    """URLs may carry a password, so none of this is shown."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    bypass: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        def value(name: str) -> str:
            return environment.get(name) or environment.get(name.lower()) or ""

        return cls(value("HTTP_PROXY"), value("HTTPS_PROXY"), value("NO_PROXY"))

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """None where the way is direct; always to loopback.

        Raises InvalidArgument for a proxy that is not spoken to over plain HTTP.
        """
        url = self.https if scheme == "https" else self.http
        if not url or _is_bypassed(self.bypass, host.lower(), port):
            return None
        return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Raises InvalidArgument; its message does not show the URL, which may hold a password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise InvalidArgument("invalid proxy: its address is no URL") from None
    if parts.scheme != "http" or not host:
        raise InvalidArgument(
            f"invalid proxy: {parts.scheme[:16]!r} is not spoken to proxies; use http://HOST:PORT"
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(host, port, authorization)


def _is_bypassed(bypass: str, host: str, port: int) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in bypass.split(","))
    return any(_matches(entry, host, port, address) for entry in entries if entry)


def _matches(entry: str, host: str, port: int, address: _Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return _address(entry) == address
    # `.example.org` means what lies below it; `example.org` itself as well.
    suffix = entry.removeprefix("*")
    if suffix.startswith("."):
        return host.endswith(suffix)
    return host == suffix or host.endswith(f".{suffix}")


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
