"""The mounts of a container in the runtime-spec's form. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.model.container import HostConfig, TmpfsOptions
from estiba.model.errors import InvalidArgument

INIT_PATH = "/sbin/docker-init"
DEFAULT_SHM_BYTES = 64 << 20

_TMPFS_FLAGS = frozenset(
    "ro rw nosuid suid nodev dev noexec exec sync async dirsync mand nomand atime noatime "
    "diratime nodiratime relatime norelatime strictatime nostrictatime private rprivate shared "
    "rshared slave rslave unbindable runbindable".split()
)
_TMPFS_VALUES = re.compile(r"(?:size|nr_blocks|nr_inodes|mode|uid|gid|mpol)=[^,]+")


@dataclass(frozen=True, slots=True)
class SpecMount:
    """One mount, its source resolved to what is really mounted."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]

    def to_spec(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "type": self.type,
            "source": self.source,
            "options": list(self.options),
        }


def bind(
    source: Path,
    destination: str,
    *,
    rw: bool = True,
    propagation: str = "rprivate",
    recursive: bool = True,
    read_only_recursive: bool = False,
) -> SpecMount:
    """A file or directory of the host. `read_only_recursive` needs Linux 5.12 and the runtime's
    support of the mount option rro."""
    mode = "rw" if rw else ("rro" if read_only_recursive else "ro")
    propagation = propagation or "rprivate"
    if not recursive:
        # crun takes the recursion of any option for that of the bind; one mount needs none.
        propagation = propagation.removeprefix("r")
    kind = "rbind" if recursive else "bind"
    return SpecMount(destination, "bind", str(source), (kind, mode, propagation))


def tmpfs(destination: str, options: str = "") -> SpecMount:
    """One of HostConfig.Tmpfs: `options` as of mount(8), over safe defaults.

    Raises InvalidArgument for an option that a tmpfs does not have.
    """
    given = [option for option in options.split(",") if option]
    for option in given:
        if option not in _TMPFS_FLAGS and not _TMPFS_VALUES.fullmatch(option):
            raise InvalidArgument(f"invalid tmpfs option {option[:64]!r} for {destination}")
    kept = [flag for flag in ("noexec", "nosuid", "nodev") if flag.removeprefix("no") not in given]
    return SpecMount(destination, "tmpfs", "tmpfs", tuple(dict.fromkeys([*kept, *given])))


def tmpfs_mount(destination: str, options: TmpfsOptions | None, *, rw: bool = True) -> SpecMount:
    """One of HostConfig.Mounts of type tmpfs."""
    wanted = options or TmpfsOptions()
    words = [":".join(pair) if len(pair) == 1 else "=".join(pair) for pair in wanted.options]
    words.append("rw" if rw else "ro")
    if wanted.size_bytes:
        words.append(f"size={wanted.size_bytes}")
    if wanted.mode:
        words.append(f"mode={wanted.mode:o}")
    return tmpfs(destination, ",".join(words))


def base_mounts(host: HostConfig, *, writable_cgroups: bool, shm: Path | None) -> list[SpecMount]:
    """What every container has under /proc, /sys and /dev.

    `shm` is a directory of the host that becomes /dev/shm: another container's, or one that
    others may join; without it /dev/shm is the container's own.
    """
    sys_mode = "rw" if host.privileged else "ro"
    cgroup_mode = "rw" if writable_cgroups else "ro"
    mounts = [
        SpecMount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        SpecMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        SpecMount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        SpecMount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", sys_mode)),
        SpecMount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            ("nosuid", "noexec", "nodev", cgroup_mode),
        ),
        SpecMount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ]
    return [*mounts, *_shm(host, shm)]


def _shm(host: HostConfig, shared: Path | None) -> list[SpecMount]:
    if host.ipc_mode == "none":
        return []
    if host.ipc_mode == "host":
        shared = Path("/dev/shm")
    if shared is not None:
        return [bind(shared, "/dev/shm")]
    size = host.shm_size or DEFAULT_SHM_BYTES
    options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={size}")
    return [SpecMount("/dev/shm", "tmpfs", "shm", options)]


def all_mounts(base: Sequence[SpecMount], wanted: Iterable[SpecMount]) -> list[SpecMount]:
    """`wanted` after `base`, parents before what lies in them; a wanted mount replaces the base's.

    A user's own /dev keeps nothing of the base's below it.
    """
    own = {posixpath.normpath(mount.destination): mount for mount in wanted}
    kept = [
        mount
        for mount in base
        if mount.destination not in own
        and not ("/dev" in own and mount.destination.startswith("/dev/"))
    ]
    return [*kept, *sorted(own.values(), key=lambda mount: _depth(mount.destination))]


def _depth(destination: str) -> int:
    return posixpath.normpath(destination).count("/")
