"""URLs that may be sent: checked, split into where and what. No network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from estiba.model.errors import Unavailable

MAX_URL_CHARS = 16 << 10
_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """What Authorization is bound to. `host` is without brackets, in lower case."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As in a Host header; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Url:
    """`target` is path and query."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        """Without the query, which may hold a signature."""
        return f"{self.origin}{self.target.partition('?')[0]}"


def parse_url(text: str) -> Url:
    """Raises Unavailable for what a registry should not have named."""
    if len(text) > MAX_URL_CHARS or not _VISIBLE.fullmatch(text):
        raise Unavailable("the server names a URL that is too long or has illegal characters")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        usual = _PORTS[parts.scheme]  # what is not there is no scheme to follow
        port = usual if parts.port is None else parts.port
        if not _HOST.fullmatch(host) or "@" in parts.netloc or not port:
            raise ValueError("no host, or a password in it")
    except (ValueError, KeyError):
        raise Unavailable(
            f"the server names an invalid URL: {text[:128]!r}: only http://HOST/PATH and "
            "https://HOST/PATH are followed"
        ) from None
    query = f"?{parts.query}" if parts.query else ""
    return Url(Origin(parts.scheme, host, port), f"{parts.path or '/'}{query}")


def follow(base: Url, location: str) -> Url:
    """`location`, of a header, seen from `base`. Raises Unavailable as `parse_url`.

    RFC 9110, 10.2.2: it may be relative.
    """
    if not _VISIBLE.fullmatch(location):
        raise Unavailable(f"{base} answers without a usable Location")
    try:
        return parse_url(urljoin(f"{base.origin}{base.target}", location))
    except ValueError:
        raise Unavailable(f"{base} answers without a usable Location") from None
