"""Where plugins are found: sockets, and files that say where a plugin listens.

<sockets>/NAME.sock, <sockets>/NAME/NAME.sock
<specs>/NAME.spec, <specs>/NAME/NAME.spec     one line: unix://, tcp://, http:// or https://
<specs>/NAME.json, <specs>/NAME/NAME.json     {"Addr": URL, "TLSConfig": {…}}
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from estiba.model.decoding import from_json
from estiba.model.errors import InvalidArgument, NotFound

_SUFFIXES = (".spec", ".json")
_MAX_SPEC_BYTES = 64 << 10
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files; without `ca` the plugin's certificate is not verified, as in Docker."""

    ca: str = msgspec.field(default="", name="CAFile")
    certificate: str = msgspec.field(default="", name="CertFile")
    key: str = msgspec.field(default="", name="KeyFile")
    insecure: bool = msgspec.field(default=False, name="InsecureSkipVerify")

    @property
    def verifies(self) -> bool:
        return bool(self.ca) and not self.insecure


@dataclass(frozen=True, slots=True)
class Address:
    """A UNIX socket at `path`, or `host` and `port`; `tls` is None for plain HTTP."""

    path: str = ""
    is_confined: bool = False
    """The plugin itself can put anything at `path`: a link there is not followed."""

    host: str = ""
    port: int = 0
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that are looked into, each in this order."""

    sockets: tuple[Path, ...] = (Path("/run/docker/plugins"), Path("/run/estiba/plugins"))
    specs: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))

    def find(self, name: str) -> Address:
        """Raises NotFound, or InvalidArgument for a file that does not say what it should."""
        if _NAME.fullmatch(name):
            for path in _candidates(self.sockets, name, ".sock"):
                if _is_socket(path):
                    return Address(path=str(path))
            for suffix in _SUFFIXES:
                for path in _candidates(self.specs, name, suffix):
                    if path.is_file():
                        return _read_spec(path)
        raise NotFound(f'plugin "{name[:128]}" not found')

    def scan(self) -> list[str]:
        """The names of all plugins that could be asked for."""
        found = {path.stem for path in _walk(self.sockets) if _is_socket(path)}
        found |= {path.stem for path in _walk(self.specs) if path.suffix in _SUFFIXES}
        return sorted(name for name in found if _NAME.fullmatch(name))


def parse_address(text: str, tls: TlsFiles | None = None) -> Address:
    """Raises InvalidArgument."""
    try:
        parts = urlsplit(text.strip())
        return _address(parts, parts.port or 0, tls)
    except ValueError as error:
        raise InvalidArgument(f"invalid plugin address {text[:128]!r}: {error}") from error


def _address(parts: SplitResult, port: int, tls: TlsFiles | None) -> Address:
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.netloc:
            raise ValueError("a socket needs an absolute path: unix:///PATH")
        return Address(path=parts.path)
    if parts.scheme not in ("tcp", "http", "https"):
        raise ValueError("use unix://, tcp://, http:// or https://")
    if not parts.hostname:
        raise ValueError("the host is missing")
    if parts.scheme == "https":
        return Address(host=parts.hostname, port=port or 443, tls=tls or TlsFiles())
    return Address(host=parts.hostname, port=port or 80, tls=tls if parts.scheme == "tcp" else None)


class _Spec(msgspec.Struct, frozen=True):
    addr: str = msgspec.field(name="Addr")
    tls: TlsFiles | None = msgspec.field(default=None, name="TLSConfig")


def _read_spec(path: Path) -> Address:
    with path.open("rb") as file:
        content = file.read(_MAX_SPEC_BYTES)
    try:
        if path.suffix == ".spec":
            return parse_address(content.decode())
        spec = from_json(content, _Spec)
        return parse_address(spec.addr, spec.tls)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid plugin file {path}: {error}") from error
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error


def _candidates(folders: tuple[Path, ...], name: str, suffix: str) -> Iterator[Path]:
    for folder in folders:
        yield folder / f"{name}{suffix}"
        yield folder / name / f"{name}{suffix}"


def _walk(folders: tuple[Path, ...]) -> Iterator[Path]:
    """The files of folders and of the folders in them: those that `find` looks for."""
    for folder in folders:
        for path in _entries(folder):
            if path.is_dir():
                yield from (each for each in _entries(path) if each.stem == path.name)
            else:
                yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
