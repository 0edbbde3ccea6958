"""Whether a registry takes a user's name and password (distribution-spec, token protocol).

Owns the conversation only: credentials are neither kept nor logged, and images are not pulled.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from estiba.model.errors import Internal, InvalidArgument, Unauthorized

DEFAULT_REGISTRY = "registry-1.docker.io"
_DEFAULT_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")
_TIMEOUT_S = 15.0
_MAX_ANSWER_BYTES = 1 << 20
_HOST = re.compile(r"[A-Za-z0-9.\-_\[\]:]{1,255}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Credentials:
    """`server` is a host, or a URL as docker's client sends it for Docker Hub."""

    username: str
    password: str
    server: str = ""

    @property
    def host(self) -> str:
        """Raises InvalidArgument for what is no host."""
        text = self.server.partition("://")[2] or self.server
        host = text.partition("/")[0]
        if host in _DEFAULT_NAMES:
            return DEFAULT_REGISTRY
        if not _HOST.fullmatch(host):
            raise InvalidArgument(f"invalid registry address: {host[:64]!r}")
        return host

    @property
    def basic(self) -> str:
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    challenge: str
    body: bytes


def check_credentials(credentials: Credentials, *, insecure: Sequence[str] = ()) -> None:
    """Blocks. Raises Unauthorized when the registry refuses them, Internal without an answer.

    Registries on loopback and those of `insecure` may speak plain HTTP, or TLS that nobody
    vouches for.
    """
    host = credentials.host
    if not _is_insecure(host, insecure):
        return _check(f"https://{host}", credentials, ssl.create_default_context())
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _get(f"https://{host}/v2/", {}, context)
    except Internal:
        return _check(f"http://{host}", credentials, None)
    return _check(f"https://{host}", credentials, context)


def _check(base: str, credentials: Credentials, context: ssl.SSLContext | None) -> None:
    url = f"{base}/v2/"
    answer = _get(url, {"Authorization": credentials.basic}, context)
    kind, _, rest = answer.challenge.partition(" ")
    if answer.status == 401 and kind.lower() == "bearer":
        token = _token(dict(_PARAMETER.findall(rest)), credentials, context)
        answer = _get(url, {"Authorization": f"Bearer {token}"}, context)
    if answer.status in (401, 403):
        raise Unauthorized(f"Get {json.dumps(url)}: unauthorized: incorrect username or password")
    if answer.status != 200:
        raise Internal(f"login attempt to {url} failed with status: {answer.status}")


def _token(
    challenge: dict[str, str], credentials: Credentials, context: ssl.SSLContext | None
) -> str:
    realm = challenge.get("realm", "")
    if not realm.startswith("https://") and not (context is None and realm.startswith("http://")):
        raise Internal(f"the registry names no usable token service: {realm[:128]!r}")
    query = {"account": credentials.username, "client_id": "docker", "offline_token": "true"}
    if "service" in challenge:
        query["service"] = challenge["service"]
    url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
    answer = _get(url, {"Authorization": credentials.basic}, context)
    if answer.status in (401, 403):
        raise Unauthorized(f"Get {json.dumps(realm)}: unauthorized: incorrect username or password")
    try:
        body = json.loads(answer.body)
        return str(body.get("token") or body["access_token"])
    except (ValueError, KeyError, AttributeError) as error:
        raise Internal(f"{realm} gave no token (status {answer.status})") from error


def _get(url: str, headers: dict[str, str], context: ssl.SSLContext | None) -> _Answer:
    """One request; redirects are not followed, since they would carry credentials away."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("GET", target, headers={"User-Agent": "estiba", **headers})
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER_BYTES)
        return _Answer(response.status, response.headers.get("WWW-Authenticate", ""), body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        raise Internal(f"Get {json.dumps(where)}: {error}") from error
    finally:
        connection.close()


def _is_insecure(host: str, insecure: Sequence[str]) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or host in insecure or name in insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(_holds(network, address) for network in insecure)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
