"""What a caller proves itself with to a registry; kept in memory only, never shown."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from estiba.model.errors import InvalidArgument
from estiba.model.reference import DEFAULT_DOMAIN, Reference

_MAX_HEADER_CHARS = 64 << 10


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and password, a login's refresh token (`identity_token`), or a ready bearer token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header; empty without a name and password."""
        if not self.username and not self.password:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


ANONYMOUS = Credentials()


def credentials_from(config: Mapping[str, object]) -> Credentials:
    """From an AuthConfig of the Engine API.

    Raises InvalidArgument for members of wrong types.
    """
    names = ("username", "password", "auth", "identitytoken", "registrytoken")
    values = {name: config.get(name) or "" for name in names}
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidArgument("invalid registry credentials: their members must be strings")
    username, password, auth, identity, registry = (str(values[name]) for name in names)
    if auth and not username:
        username, _, password = _decode(auth).partition(":")
    return Credentials(username, password, identity, registry)


def decode_auth_header(text: str) -> Credentials:
    """The X-Registry-Auth header: an AuthConfig as JSON in base64url; empty is nobody.

    Raises InvalidArgument for what is none.
    """
    if len(text) > _MAX_HEADER_CHARS:
        raise InvalidArgument("invalid X-Registry-Auth header: longer than 64 KiB")
    if not text:
        return ANONYMOUS
    try:
        config = json.loads(_decode(text))
    except (ValueError, RecursionError):
        raise InvalidArgument("invalid X-Registry-Auth header: not JSON in base64url") from None
    if not isinstance(config, dict):
        raise InvalidArgument("invalid X-Registry-Auth header: not a JSON object")
    return credentials_from(config)


def decode_config_header(text: str) -> Callable[[Reference], Credentials]:
    """The X-Registry-Config header: AuthConfigs by registry, for a build that asks several.

    Raises InvalidArgument for what is none.
    """
    if len(text) > _MAX_HEADER_CHARS:
        raise InvalidArgument("invalid X-Registry-Config header: longer than 64 KiB")
    try:
        configs = json.loads(_decode(text)) if text else {}
    except (ValueError, RecursionError):
        raise InvalidArgument("invalid X-Registry-Config header: not JSON in base64url") from None
    if not isinstance(configs, dict):
        raise InvalidArgument("invalid X-Registry-Config header: not a JSON object")
    known = {
        _registry(name): credentials_from(config)
        for name, config in configs.items()
        if isinstance(config, dict)
    }
    return lambda reference: known.get(reference.domain, ANONYMOUS)


def _registry(name: str) -> str:
    """Clients keep them by host or by a URL, Docker Hub's by one of its own."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in ("index.docker.io", "registry-1.docker.io") else host


def _decode(text: str) -> str:
    """Both alphabets, with or without padding, as clients write them."""
    plain = text.strip().rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidArgument("invalid registry credentials: not base64") from None
