"""Which daemon to talk to: flag, ESTIBA_HOST, DOCKER_HOST, the current context, the default."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from estiba.client.errors import ClientError

DEFAULT = "unix:///run/estiba/estiba.sock"


class Tls(NamedTuple):
    """Paths of PEM files; empty ones are not used."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class Host(NamedTuple):
    """Where a daemon listens. `is_default` when nobody chose it."""

    kind: str
    address: str
    port: int = 0
    tls: Tls | None = None
    is_default: bool = False


def resolve(flag: str = "", context: str = "", tls: Tls | None = None) -> Host:
    """Raises ClientError for an address that cannot be understood."""
    chosen = flag or os.environ.get("ESTIBA_HOST") or os.environ.get("DOCKER_HOST") or ""
    if not chosen or context:
        named = context or os.environ.get("DOCKER_CONTEXT", "") or _current_context()
        if named and named != "default":
            chosen, stored = _context(named)
            tls = tls or stored
    if not chosen:
        return parse(DEFAULT, None)._replace(is_default=True)
    return parse(chosen, tls or _tls_of_environment())


def parse(url: str, tls: Tls | None) -> Host:
    """Raises ClientError for an unknown scheme or port."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ClientError(
            f"unable to parse docker host `{url}`: use unix://PATH or tcp://HOST:PORT"
        )
    if scheme == "unix":
        return Host("unix", rest)
    if scheme not in ("tcp", "http", "https"):
        raise ClientError(f"unsupported host {url!r}: use unix://PATH or tcp://HOST:PORT")
    if scheme == "https" and tls is None:
        tls = Tls()
    name, _, port = rest.rstrip("/").rpartition(":")
    if not name or not port.isdecimal():
        name, port = rest.rstrip("/"), "2376" if tls else "2375"
    return Host("tcp", name.strip("[]"), int(port), tls)


def _tls_of_environment() -> Tls | None:
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    return tls_of(os.environ.get("DOCKER_CERT_PATH") or config_directory())


def tls_of(directory: str) -> Tls:
    """The usual file names in a directory of certificates."""
    ca, certificate, key = (
        os.path.join(directory, f"{name}.pem") for name in ("ca", "cert", "key")
    )
    return Tls(ca, certificate, key)


def config_directory() -> str:
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def read_config() -> dict[str, object]:
    """The user's config.json; empty when there is none or it is damaged."""
    try:
        with open(os.path.join(config_directory(), "config.json")) as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _current_context() -> str:
    return str(read_config().get("currentContext", ""))


def context_path(name: str) -> str:
    """Where Docker keeps a context: a directory named by the digest of its name."""
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()
    return os.path.join(config_directory(), "contexts", "meta", digest, "meta.json")


def _context(name: str) -> tuple[str, Tls | None]:
    try:
        with open(context_path(name)) as file:
            endpoint = json.load(file)["Endpoints"]["docker"]
    except (OSError, ValueError, KeyError):
        raise ClientError(f'context "{name}" does not exist: see `estiba context ls`') from None
    folder = os.path.dirname(context_path(name)).replace("/meta/", "/tls/") + "/docker"
    tls = tls_of(folder) if os.path.isdir(folder) else None
    return str(endpoint["Host"]), tls
