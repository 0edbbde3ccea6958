"""Tokens that the registry issues itself: JSON Web Tokens (RFC 7519) under HMAC-SHA-256.

Only this server and its siblings check them, so one secret key does. Both kinds have a fixed
header, compared byte by byte: nobody else chooses the algorithm.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.model.errors import InvalidArgument
from estiba.registry.auth.identity import Grants, Identity

ACCESS_S = 300
REFRESH_S = 90 * 24 * 3600
KEY_BYTES = 32
MAX_TOKEN_LENGTH = 16 << 10
_LEEWAY_S = 60


class TokenInvalid(Exception):
    """Not a token of ours, or it has expired."""


@dataclass(frozen=True, slots=True)
class Issued:
    token: str
    issued_at: int
    expires_in: int


class TokenMaker:
    """Issues and checks tokens for one service."""

    def __init__(self, key: bytes, service: str, clock: Callable[[], float] = time.time) -> None:
        # One key a kind: a refresh token can never pass for an access token.
        self._keys = {
            kind: hmac.digest(key, f"estiba registry {kind}".encode(), hashlib.sha256)
            for kind in ("access", "refresh")
        }
        self.service = service
        self._clock = clock

    def access(self, user: str, grants: Grants) -> Issued:
        """A short-lived token that allows what `grants` says."""
        access = [
            {"type": kind, "name": name, "actions": sorted(actions)}
            for (kind, name), actions in (
                (_split_resource(resource), actions) for resource, actions in grants.items()
            )
        ]
        return self._issue("access", user, ACCESS_S, {"access": access})

    def refresh(self, user: str, fingerprint: bytes) -> str:
        """A long-lived one, good for as long as the user's entry stays what it is."""
        return self._issue("refresh", user, REFRESH_S, {"entry": fingerprint.hex()}).token

    def read_access(self, token: str) -> Identity:
        """Raises TokenInvalid."""
        claims = self._read("access", token)
        grants: dict[str, frozenset[str]] = {}
        for entry in claims["access"]:
            resource = _join_resource(entry["type"], entry["name"])
            grants[resource] = frozenset(entry["actions"])
        return Identity(claims["sub"], grants)

    def read_refresh(self, token: str) -> tuple[str, bytes]:
        """The user and the entry's fingerprint. Raises TokenInvalid."""
        claims = self._read("refresh", token)
        return claims["sub"], bytes.fromhex(claims["entry"])

    def _issue(self, kind: str, user: str, seconds: int, more: dict[str, Any]) -> Issued:
        now = int(self._clock())
        claims = {
            "iss": self.service,
            "aud": self.service,
            "sub": user,
            "iat": now,
            "nbf": now - _LEEWAY_S,
            "exp": now + seconds,
            "jti": uuid.uuid4().hex,
            **more,
        }
        signed = _HEADER + "." + _encode(json.dumps(claims, separators=(",", ":")).encode())
        return Issued(f"{signed}.{self._sign(kind, signed)}", now, seconds)

    def _read(self, kind: str, token: str) -> dict[str, Any]:
        """The claims, signed by us: their form is known."""
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        if len(token) > MAX_TOKEN_LENGTH or header != _HEADER or not token.isascii():
            raise TokenInvalid("not a token of this registry")
        if not hmac.compare_digest(self._sign(kind, signed), signature):
            raise TokenInvalid("the token's signature does not fit")
        claims: dict[str, Any] = json.loads(_decode(payload))
        now = self._clock()
        if claims["aud"] != self.service or not claims["nbf"] <= now < claims["exp"]:
            raise TokenInvalid("the token has expired or is for another registry")
        return claims

    def _sign(self, kind: str, signed: str) -> str:
        return _encode(hmac.digest(self._keys[kind], signed.encode(), hashlib.sha256))


def read_key(path: Path) -> bytes:
    """The secret key in `path`, made if it is not there. Raises InvalidArgument."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot use the token key {path}: {error.strerror}") from error
    if len(key) < KEY_BYTES:
        raise InvalidArgument(f"the token key {path} is shorter than {KEY_BYTES} bytes")
    return key


def _make_key(path: Path) -> None:
    """Whole from the moment it is there; of two that make one, the first wins."""
    fd, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _split_resource(resource: str) -> tuple[str, str]:
    """A repository, or `registry:catalog`."""
    kind, colon, name = resource.partition(":")
    return (kind, name) if colon else ("repository", resource)


def _join_resource(kind: str, name: str) -> str:
    return name if kind == "repository" else f"{kind}:{name}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise TokenInvalid("not a token of this registry") from error


_HEADER = _encode(b'{"alg":"HS256","typ":"JWT"}')
