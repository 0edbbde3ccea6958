"""Mounts in their short form, HostConfig.Binds: `[source:]destination[:options]`. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from estiba.containers.idmaps import parse_idmap
from estiba.containers.record import MountPlan
from estiba.model.errors import InvalidArgument

_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps",
        "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid", "uptime",
    )
)  # fmt: skip
"""What may be mounted over, for programs that show a container its share (runc's list)."""

MAX_PATH = 4095
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_BIND_MODES = {
    "ro": "access",
    "rw": "access",
    "z": "label",
    "Z": "label",
    "nocopy": "copy",
    "consistent": "consistency",
    "cached": "consistency",
    "delegated": "consistency",
    "default": "consistency",
    "idmap": "idmap",
    **dict.fromkeys(PROPAGATIONS, "propagation"),
}
"""Option of a bind → its kind; a bind may have one of each kind."""

NewName = Callable[[], str]


def parse_bind(text: str, new_name: NewName, *, driver: str = "") -> MountPlan:
    """One entry of HostConfig.Binds: `[source:]destination[:options]`.

    Raises InvalidArgument in Docker's words.
    """
    parts = text.split(":")
    is_mode = len(parts) == 2 and _is_mode(parts[1])
    if len(parts) > 3 or not all(parts[:2]) or is_mode:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return anonymous(destination_of(parts[0], text, "volume"), new_name)
    source, kind = parts[0], "bind" if parts[0].startswith("/") else "volume"
    destination = destination_of(parts[1], text, kind)
    options = _bind_options(parts[2] if len(parts) == 3 else "", text)
    mode = ",".join(options.values())
    rw = options.get("access") != "ro"
    idmap = options["idmap"].partition("=")[2] if "idmap" in options else None
    if kind == "bind":
        _refuse("copy" in options, text, "bind", "VolumeOptions")
        return MountPlan(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=mode,
            rw=rw,
            propagation=options.get("propagation", ""),
            create_source=True,
            idmap=idmap,
        )
    _refuse("propagation" in options, text, "volume", "BindOptions")
    check_volume_name(source)
    return MountPlan(
        type="volume",
        name=source,
        destination=destination,
        driver=driver,
        mode=mode or "z",
        rw=rw,
        no_copy="copy" in options,
        idmap=idmap,
    )


def _is_mode(words: str) -> bool:
    return all(word in _BIND_MODES for word in words.split(","))


def _bind_options(words: str, text: str) -> dict[str, str]:
    """By kind, in the order given."""
    options: dict[str, str] = {}
    for word in filter(None, words.split(",")):
        kind = _BIND_MODES.get(word.partition("=")[0] if word.startswith("idmap=") else word)
        if kind == "idmap":
            parse_idmap(word.partition("=")[2])
        if kind is None or kind in options:
            raise InvalidArgument(f"invalid mode: {words} in '{text}'")
        options[kind] = word
    return options


def _refuse(given: bool, text: str, kind: str, field: str) -> None:
    if given:
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type "
            f'"{kind}": field {field} must not be specified'
        )


def anonymous(destination: str, new_name: NewName) -> MountPlan:
    return MountPlan(
        type="volume", name=new_name(), destination=destination, driver="local", anonymous=True
    )


def destination_of(path: str, spec: str = "", kind: str = "") -> str:
    """The normal form of a place to mount at; `spec` and `kind` are for the error.

    Raises InvalidArgument.
    """
    where = f"invalid volume specification: '{spec}': " if spec else ""
    where += f'invalid mount config for type "{kind}": ' if kind else ""
    if not path.startswith("/"):
        raise InvalidArgument(f"{where}invalid mount path: '{path}' mount path must be absolute")
    # POSIX lets two leading slashes stand; here they are one place with one.
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        raise InvalidArgument(f"{where}invalid specification: destination can't be '/'")
    if normal.startswith("/proc/") and normal not in _PROC_FILES:
        raise InvalidArgument(f"{where}{normal} cannot be mounted because it is inside /proc")
    if "\0" in normal or len(normal) > MAX_PATH:
        raise InvalidArgument(f"{where}bad characters or over {MAX_PATH} in the path")
    return normal


def check_volume_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two "
            "alphanumeric characters"
        )
    if not _VOLUME_NAME.fullmatch(name) or len(name) > 255:
        raise InvalidArgument(
            f'create {name[:64]}: "{name[:64]}" includes invalid characters for a local volume '
            'name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )
