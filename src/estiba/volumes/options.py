"""Options of the local driver: `type`, `device` and `o`, as mount(8) takes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from estiba.kernel.mounts import MountFlag
from estiba.model import errors
from estiba.model.errors import InvalidArgument

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
    """What lies over a volume's directory while containers use it."""

    kind: str
    device: str
    flags: MountFlag
    data: str


def parse_options(options: Mapping[str, str]) -> VolumeMount | None:
    """The mount that the options ask for, if any. Raises InvalidArgument or NotImplemented."""
    for name in options:
        if name == "size":
            raise errors.NotImplemented("volume quotas (option size) are not built yet")
        if name not in ("type", "device", "o"):
            raise InvalidArgument(f'create: invalid option: "{name}": use type, device, o')
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
