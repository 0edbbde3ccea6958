"""Which daemon to talk to: flag, ESTIBA_HOST, DOCKER_HOST, the current context, the default."""

from __future__ import annotations

import os

from estiba.client.errors import ClientError

DEFAULT = "unix:///run/estiba/estiba.sock"
_MOST_PORT = 65535


class Tls:
    """Paths of PEM files; a file that is not there is not used."""

    __slots__ = ("ca", "certificate", "key", "verify")

    def __init__(self, ca: str = "", certificate: str = "", key: str = "", *, verify: bool = True):
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.verify = verify


class Host:
    """Where a daemon listens; `is_default` at the place where estibad listens by default."""

    __slots__ = ("address", "is_default", "kind", "port", "tls", "url")

    def __init__(self, url: str, kind: str, address: str, port: int = 0, tls: Tls | None = None):
        self.url = url
        self.kind = kind
        self.address = address
        self.port = port
        self.tls = tls
        self.is_default = False


def resolve(flag: str = "", context: str = "", tls: Tls | None = None) -> Host:
    """Raises ClientError for an address that cannot be understood."""
    if flag and context:
        raise ClientError("conflicting options: cannot specify both --host and --context")
    chosen = flag
    if not chosen and not context:
        chosen = os.environ.get("ESTIBA_HOST") or os.environ.get("DOCKER_HOST") or ""
    if not chosen:
        named = context or os.environ.get("DOCKER_CONTEXT") or _current_context()
        if named and named != "default":
            from estiba.client.contexts import endpoint

            chosen, stored = endpoint(named)
            return parse(chosen, tls or stored)
        if not context or named == "default":
            chosen = os.environ.get("ESTIBA_HOST") or os.environ.get("DOCKER_HOST") or ""
    host = parse(chosen, tls or _tls_of_environment()) if chosen else parse(DEFAULT, None)
    host.is_default = host.url == DEFAULT
    return host


def parse(url: str, tls: Tls | None) -> Host:
    """Raises ClientError for an unknown scheme or port."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "tcp", url
    if scheme == "unix":
        return Host(url, "unix", rest) if rest else Host(DEFAULT, "unix", DEFAULT[7:])
    if scheme == "ssh" and rest:
        return Host(url, "ssh", rest)
    if scheme not in ("tcp", "http", "https"):
        raise ClientError(
            f"unable to parse the daemon's address {url!r}: use unix://PATH, tcp://HOST:PORT or "
            "ssh://[USER@]HOST[:PORT]"
        )
    if scheme == "https" and tls is None:
        tls = Tls()
    rest = rest.split("/")[0] or "localhost"
    name, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        name, port = rest, "2376" if tls else "2375"
    name = name or "localhost"
    if not port.isdecimal() or int(port) > _MOST_PORT:
        raise ClientError(f"unable to parse the daemon's address {url!r}: no port: {port!r}")
    return Host(f"tcp://{name}:{port}", "tcp", name.strip("[]"), int(port), tls)


def _tls_of_environment() -> Tls | None:
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    return tls_of(os.environ.get("DOCKER_CERT_PATH") or config_directory())


def tls_of(directory: str) -> Tls:
    """The usual file names in a directory of certificates."""
    return Tls(*(os.path.join(directory, f"{name}.pem") for name in ("ca", "cert", "key")))


def config_directory() -> str:
    chosen = os.environ.get("ESTIBA_CONFIG") or os.environ.get("DOCKER_CONFIG")
    return chosen or os.path.expanduser("~/.docker")


def config_path() -> str:
    return os.path.join(config_directory(), "config.json")


_config: dict[str, dict[str, object]] = {}


def read_config() -> dict[str, object]:
    """The user's config.json; empty when there is none or it is damaged."""
    path = config_path()
    if path not in _config:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            data = b"{}"
        from estiba.client.jsonlite import loads

        try:
            content = loads(data)
        except ValueError:
            content = None
        _config[path] = content if isinstance(content, dict) else {}
    return _config[path]


def forget_config() -> None:
    """The file has changed: it is read again."""
    _config.clear()


def _current_context() -> str:
    return str(read_config().get("currentContext", ""))
