"""Contexts: named daemons, in the files where Docker keeps them.

~/.docker/contexts/meta/<sha256 of the name>/meta.json
~/.docker/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem
"""

from __future__ import annotations

import hashlib
import os
import shutil

from estiba.client.configfile import update_config
from estiba.client.errors import ClientError
from estiba.client.host import Tls, config_directory
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TLS_FILES = (("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def meta_path(name: str) -> str:
    return os.path.join(config_directory(), "contexts", "meta", _digest(name), "meta.json")


def tls_directory(name: str) -> str:
    return os.path.join(config_directory(), "contexts", "tls", _digest(name), "docker")


def exists(name: str) -> bool:
    return os.path.exists(meta_path(name))


def load(name: str) -> dict[str, Any]:
    """Raises ClientError when there is none of that name."""
    path = meta_path(name)
    try:
        with open(path, "rb") as file:
            return dict(loads(file.read()))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClientError(
            f'context "{name}": context not found: open {path}: {str(reason).lower()}'
        ) from None


def endpoint(name: str) -> tuple[str, Tls | None]:
    """The daemon's address and how to speak TLS with it."""
    stored = (load(name).get("Endpoints") or {}).get("docker") or {}
    folder = tls_directory(name)
    tls = None
    if os.path.isdir(folder):
        paths = [os.path.join(folder, file) for _, file in _TLS_FILES]
        tls = Tls(
            *(path if os.path.exists(path) else "" for path in paths),
            verify=not stored.get("SkipTLSVerify"),
        )
    return str(stored.get("Host", "")), tls


def names() -> list[str]:
    folder = os.path.join(config_directory(), "contexts", "meta")
    found = []
    for entry in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, entry, "meta.json"), "rb") as file:
                found.append(str(loads(file.read())["Name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def save(
    name: str, description: str, host: str, *, skip_verify: bool, files: dict[str, str] | None
) -> None:
    """`files` are the user's PEM files by ca, cert and key; they are copied, and replace what
    there was. None leaves that as it is.
    """
    metadata = {"Description": description} if description else {}
    stored = {
        "Name": name,
        "Metadata": metadata,
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip_verify}},
    }
    if files is not None:
        content = {file: _read(files[key]) for key, file in _TLS_FILES if files.get(key)}
        shutil.rmtree(os.path.dirname(tls_directory(name)), ignore_errors=True)
        for file, data in content.items():
            _write(os.path.join(tls_directory(name), file), data)
    _write(meta_path(name), dumps(stored).encode())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error


def restore(name: str, meta: dict[str, Any], files: dict[tuple[str, str], bytes]) -> None:
    """A context as another machine had it: its metadata, and TLS files by endpoint and name."""
    for (place, file), data in files.items():
        _write(os.path.join(os.path.dirname(tls_directory(name)), place, file), data)
    _write(meta_path(name), dumps({**meta, "Name": name}).encode())


def remove(name: str) -> None:
    shutil.rmtree(os.path.dirname(meta_path(name)))
    shutil.rmtree(os.path.dirname(tls_directory(name)), ignore_errors=True)


def choose(name: str) -> None:
    """Makes it the current context; `default` is none."""

    def change(config: dict[str, Any]) -> None:
        config.pop("currentContext", None)
        if name != "default":
            config["currentContext"] = name

    update_config(change)


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
    os.rename(temporary, path)
