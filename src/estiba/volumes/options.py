"""The options `type`, `device` and `o` of the local driver, as mount(8) takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel.mounts import MountFlag, mount, unmount
from estiba.model.errors import InvalidArgument
from estiba.volumes.backing import DATA, BackingKind

_FLAGS = {
    "ro": MountFlag.RDONLY,
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noexec": MountFlag.NOEXEC,
    "bind": MountFlag.BIND,
    "rbind": MountFlag.BIND | MountFlag.REC,
}
_NO_EFFECT = ("rw", "suid", "dev", "exec", "defaults")


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """`volumes.backing.Backing`: a file system that lies over `_data` while it is in use."""

    kind: str
    device: str
    flags: MountFlag
    data: str

    def make(self, directory: Path) -> None:
        """Nothing: what is mounted exists elsewhere."""

    def mount(self, directory: Path) -> None:
        if not os.path.ismount(directory / DATA):
            mount(self.device, directory / DATA, self.kind, self.flags, self.data)

    def unmount(self, directory: Path) -> None:
        unmount(directory / DATA)


def parse_options(options: Mapping[str, str]) -> VolumeMount | None:
    """The mount that the options ask for, if any. Raises InvalidArgument."""
    kind, device = options.get("type", ""), options.get("device", "")
    if bool(kind) != bool(device):
        missing = "device" if kind else "type"
        raise InvalidArgument(f'create: missing required option: "{missing}"')
    if not kind:
        return None
    flags = MountFlag(0)
    data: list[str] = []
    for word in filter(None, options.get("o", "").split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word not in _NO_EFFECT:
            data.append(word)
    return VolumeMount(kind, device, flags, ",".join(data))


MOUNTED = BackingKind(frozenset({"type", "device", "o"}), parse_options)
