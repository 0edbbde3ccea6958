"""Devices of the host that a container is given. Reads device nodes, changes nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from estiba.model.container import DeviceMapping, HostConfig
from estiba.model.errors import InvalidArgument
from estiba.security.profiles.devices import DEFAULT_RULES, EVERYTHING, Rule, parse_device_rule

_DEV = Path("/dev")
# Each container has its own of these.
_NOT_OF_THE_HOST = frozenset("pts shm fd mqueue console ptmx .lxc .lxd-mounts .udev".split())


@dataclass(frozen=True, slots=True)
class Device:
    """A device node inside the container; `access` is of r, w and m."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"

    def to_spec(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "type": self.type,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }

    def rule(self) -> Rule:
        return {
            "allow": True,
            "type": self.type,
            "major": self.major,
            "minor": self.minor,
            "access": self.access,
        }


@dataclass(frozen=True, slots=True)
class Devices:
    """The nodes to make, and the device cgroup's rules in order."""

    nodes: tuple[Device, ...] = ()
    rules: tuple[Rule, ...] = DEFAULT_RULES


def resolve_devices(host: HostConfig) -> Devices:
    """What `--device`, `--device-cgroup-rule` and `--privileged` mean on this host.

    Raises InvalidArgument for a device that does not exist and a rule that is none.
    """
    mapped = [device for mapping in host.devices for device in _mapped(mapping)]
    if host.privileged:
        known = {device.path for device in mapped}
        others = [device for device in _below(_DEV, _DEV) if device.path not in known]
        return Devices((*others, *mapped), EVERYTHING)
    own = [device.rule() for device in mapped]
    given = [parse_device_rule(text) for text in host.device_cgroup_rules]
    return Devices(tuple(mapped), (*DEFAULT_RULES, *own, *given))


def device_number(path: str) -> tuple[int, int]:
    """Major and minor number of a block device, for blkio limits. Raises InvalidArgument."""
    try:
        info = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"cannot limit device {path}: {error.strerror}") from error
    if not stat.S_ISBLK(info.st_mode):
        raise InvalidArgument(f"cannot limit device {path}: not a block device")
    return os.major(info.st_rdev), os.minor(info.st_rdev)


def _mapped(mapping: DeviceMapping) -> Iterator[Device]:
    access = mapping.cgroup_permissions or "rwm"
    if not set(access) <= set("rwm"):
        raise InvalidArgument(f"invalid device mode: {access[:32]}")
    source = Path(mapping.path_on_host)
    target = Path(mapping.path_in_container or mapping.path_on_host)
    adding = f'error gathering device information while adding custom device "{source}": '
    try:
        resolved = source.resolve(strict=True)
        found = list(_below(resolved, target) if resolved.is_dir() else _node(resolved, target))
    except OSError as error:
        raise InvalidArgument(f"{adding}{(error.strerror or str(error)).lower()}") from error
    if not found:
        raise InvalidArgument(f"{adding}not a device node")
    for device in found:
        yield replace(device, access=access)


def _below(directory: Path, target: Path) -> Iterator[Device]:
    """All device nodes of a tree, those that containers have of their own left out, and those
    that are taken away meanwhile.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda each: each.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name in _NOT_OF_THE_HOST:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(directory / entry.name, target / entry.name)
        elif not entry.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                yield from _node(directory / entry.name, target / entry.name)


def _node(path: Path, target: Path) -> Iterator[Device]:
    info = os.stat(path)
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        return
    yield Device(
        path=str(target),
        type=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
    )
