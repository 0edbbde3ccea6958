"""context: which daemons the user knows by name."""

from __future__ import annotations

import os
import sys

from estiba.cli.output import pairs, print_rows
from estiba.cli.parse import Arguments
from estiba.client import contexts as stored
from estiba.client.errors import ClientError
from estiba.client.host import DEFAULT, parse, read_config
from estiba.client.http import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("NAME", "Mark"),
    ("DESCRIPTION", "Description"),
    ("DOCKER ENDPOINT", "DockerEndpoint"),
    ("ERROR", "Error"),
)
_ALLOWED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_ENDPOINT_KEYS = ("host", "ca", "cert", "key", "skip-tls-verify")


def _environment() -> str:
    return os.environ.get("ESTIBA_HOST") or os.environ.get("DOCKER_HOST") or ""


def current() -> str:
    """The environment's address is the default context."""
    if _environment():
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or str(read_config().get("currentContext") or "default")


def show(client: Client, given: Arguments) -> int:
    print(current())
    return 0


def ls(client: Client, given: Arguments) -> int:
    about = "Current DOCKER_HOST based configuration" if _environment() else "The default daemon"
    rows = [_row("default", about, _environment() or DEFAULT)]
    for name in stored.names():
        view = stored.load(name)
        endpoint = (view.get("Endpoints") or {}).get("docker") or {}
        description = (view.get("Metadata") or {}).get("Description", "")
        rows.append(_row(name, description, str(endpoint.get("Host", ""))))
    if given.quiet:
        for row in rows:
            print(row["Name"])
    else:
        if given.format not in ("", "table"):
            for row in rows:
                del row["Mark"]
        print_rows(rows, _COLUMNS, given.format, titles={"Name": "NAME"})
    _warn_overridden()
    return 0


def _warn_overridden() -> None:
    if _environment():
        sys.stdout.flush()
        print(_overridden(), file=sys.stderr)


def _overridden() -> str:
    variable = "ESTIBA_HOST" if os.environ.get("ESTIBA_HOST") else "DOCKER_HOST"
    return (
        f"Warning: {variable} environment variable overrides the active context. To use a "
        f"context, either set the global --context flag, or unset {variable} environment variable."
    )


def _row(name: str, description: str, endpoint: str) -> dict[str, Any]:
    is_current = name == current()
    return {
        "Name": name,
        "Mark": f"{name} *" if is_current else name,
        "Current": is_current,
        "Description": description,
        "DockerEndpoint": endpoint,
        "Error": "",
    }


def _check(name: str) -> None:
    """Raises ClientError for a name that cannot be one."""
    if name == "default":
        raise ClientError('"default" is a reserved context name')
    allowed = len(name) > 1 and name[0] in _ALLOWED and not set(name) - set(f"{_ALLOWED}_.+-")
    if not allowed:
        raise ClientError(
            f'context name "{name}" is invalid, names are validated against regexp '
            '"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def _endpoint_options(text: str) -> tuple[str, dict[str, str], bool]:
    """Host, PEM files and whether to skip verification, from `--docker`. Raises ClientError."""
    options = pairs(text.split(",") if text else [], "--docker")
    if unknown := sorted(set(options) - set(_ENDPOINT_KEYS)):
        raise ClientError(
            f"unable to create docker endpoint config: unrecognized config key: {unknown[0]}: "
            f"one of {', '.join(_ENDPOINT_KEYS)}"
        )
    host = options.get("host", "")
    if host and "://" not in host:
        raise ClientError(f"unable to parse docker host `{host}`: unix://PATH or tcp://HOST:PORT")
    if host:
        parse(host, None)
    files = {key: path for key, path in options.items() if key in ("ca", "cert", "key")}
    return host, files, options.get("skip-tls-verify", "").lower() in ("1", "t", "true")


def create(client: Client, given: Arguments) -> int:
    name = given.words[0]
    _check(name)
    if stored.exists(name):
        raise ClientError(f'context "{name}" already exists')
    if given.given("from"):
        source = given.get("from")
        host, tls = stored.endpoint(source) if source != "default" else (_environment(), None)
        files = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key} if tls else {}
        files = {key: path for key, path in files.items() if os.path.exists(path)}
        skip = bool(tls and not tls.verify)
    else:
        host, files, skip = _endpoint_options(given.docker)
    stored.save(name, given.description, host, skip_verify=skip, files=files)
    print(name)
    print(f'Successfully created context "{name}"', file=sys.stderr)
    return 0


def update(client: Client, given: Arguments) -> int:
    """What is not given stays; `--docker` replaces the whole endpoint, as docker does."""
    name = given.words[0]
    view = stored.load(name)
    old = (view.get("Endpoints") or {}).get("docker") or {}
    description = str((view.get("Metadata") or {}).get("Description", ""))
    host, skip = str(old.get("Host", "")), bool(old.get("SkipTLSVerify"))
    files = None
    if given.docker:
        host, files, skip = _endpoint_options(given.docker)
    if given.given("description"):
        description = given.description
    stored.save(name, description, host, skip_verify=skip, files=files)
    print(name)
    print(f'Successfully updated context "{name}"', file=sys.stderr)
    return 0


def export(client: Client, given: Arguments) -> int:
    from estiba.client.contextfiles import pack

    name = given.words[0]
    target = given.words[1] if len(given.words) > 1 else f"{name}.dockercontext"
    data = pack(name)
    if target == "-":
        if os.isatty(1):
            raise ClientError("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(data)
        return 0
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise ClientError(f"cannot write {target}: {str(error.strerror).lower()}") from error
    print(f'Written file "{target}"', file=sys.stderr)
    return 0


def import_(client: Client, given: Arguments) -> int:
    from estiba.client.contextfiles import unpack

    name, source = given.words
    _check(name)
    if stored.exists(name):
        raise ClientError(f'context "{name}" already exists')
    try:
        with open(0 if source == "-" else source, "rb") as file:
            unpack(name, file)
    except OSError as error:
        raise ClientError(f"open {source}: {str(error.strerror).lower()}") from error
    print(name)
    print(f'Successfully imported context "{name}"', file=sys.stderr)
    return 0


def use(client: Client, given: Arguments) -> int:
    name = given.words[0]
    if name != "default":
        stored.load(name)
    stored.choose(name)
    print(name)
    print(f'Current context is now "{name}"', file=sys.stderr)
    _warn_overridden()
    return 0


def rm(client: Client, given: Arguments) -> int:
    from estiba.cli.output import each

    def remove(name: str) -> None:
        if name == "default":
            raise ClientError('default: context "default" cannot be removed')
        if not stored.exists(name):
            raise ClientError(f'context "{name}" does not exist')
        if name == read_config().get("currentContext"):
            if not given.force:
                raise ClientError(f'context "{name}" is in use, set -f flag to force remove')
            stored.choose("default")
        stored.remove(name)

    return each(given.words, remove)


def inspect(client: Client, given: Arguments) -> int:
    from estiba.cli.inspect import show as show_all

    given.words = given.words or [current()]
    return show_all(given, _view, html=True)


def _view(name: str) -> dict[str, Any]:
    if name == "default":
        host = _environment() or DEFAULT
        endpoint: dict[str, Any] = {"Host": host, "SkipTLSVerify": False}
        paths = {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
        return {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint},
                "TLSMaterial": {}, "Storage": paths}  # fmt: skip
    view = stored.load(name)
    folder = stored.tls_directory(name)
    files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {
        "Name": name,
        "Metadata": view.get("Metadata") or {},
        "Endpoints": view.get("Endpoints") or {},
        "TLSMaterial": {"docker": files} if files else {},
        "Storage": {
            "MetadataPath": os.path.dirname(stored.meta_path(name)),
            "TLSPath": os.path.dirname(folder),
        },
    }
