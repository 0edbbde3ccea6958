"""Mounting: mount(2), umount2(2), overlay, and what is mounted now."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Iterator, Sequence
from enum import IntFlag
from pathlib import Path

from estiba.kernel.libc import check, libc, syscall

_PAGE_BYTES = 4096
_UMOUNT_NOFOLLOW = 0x8
_MNT_DETACH = 0x2
_SYS_FSOPEN = 430
_FSOPEN_CLOEXEC = 0x1


class MountFlag(IntFlag):
    """MS_* of mount(2)."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    REMOUNT = 0x20
    BIND = 0x1000
    MOVE = 0x2000
    REC = 0x4000
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


def mount(source: str, target: Path | str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    result = libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    check(result, f"mount {kind or source} on {target}")


def unmount(target: Path | str) -> None:
    """Detaches the mount at `target` at once, busy or not; none there is no error."""
    while True:
        result = libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        if result == 0:
            continue
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOENT):
            return
        raise OSError(code, f"umount {target}: {os.strerror(code)}")


def mount_overlay(
    target: Path,
    lower: Sequence[Path | int],
    *,
    upper: Path | None = None,
    work: Path | None = None,
    volatile: bool = False,
) -> None:
    """Mounts an overlay, `lower` from top to bottom; read-only without `upper`.

    Directories are named by descriptor, so that the options fit the page that mount(2) takes
    whatever the number of layers and the length of their paths. `upper` gets the plain form of
    overlayfs.rst, which any kernel reads as a layer. With `volatile` nothing in it is ever
    flushed, not by unmounting either, and `work` serves for no second mount. Raises OSError.
    """
    with contextlib.ExitStack() as stack:

        def name(place: Path | int) -> str:
            if isinstance(place, Path):
                place = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, place)
            return f"/proc/self/fd/{place}"

        options = "lowerdir=" + ":".join(name(place) for place in lower)
        if upper is not None and work is not None:
            options += f",upperdir={name(upper)},workdir={name(work)}{_plain_form()}"
            options += ",volatile" if volatile else ""
        if len(options) >= _PAGE_BYTES:
            raise OSError(errno.E2BIG, f"{len(lower)} layers are more than one overlay takes")
        mount("overlay", target, "overlay", data=options)


def _plain_form() -> str:
    """Options that keep features off which distributions may have on, as far as this kernel
    has them: a directory that was renamed would be a reference to its old name, a file whose
    mode was changed would be without its content.
    """
    known = _overlay_parameters()
    return "".join(
        f",{name}=off" for name in ("redirect_dir", "metacopy", "index") if name in known
    )


@functools.cache
def _overlay_parameters() -> frozenset[str]:
    # Opening the file system loads its module (fsopen(2), Linux 5.2).
    with contextlib.suppress(OSError):
        os.close(syscall(_SYS_FSOPEN, b"overlay", _FSOPEN_CLOEXEC, what="fsopen overlay"))
    try:
        return frozenset(os.listdir("/sys/module/overlay/parameters"))
    except OSError:
        return frozenset()


def mounted_under(root: Path) -> Iterator[Path]:
    """Mount points at or below `root`, deepest first."""
    prefix = f"{root}/"
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            point = line.split(" ", 5)[4].encode().decode("unicode_escape")
            if point == str(root) or point.startswith(prefix):
                found.append(Path(point))
    yield from sorted(found, key=lambda path: len(path.parts), reverse=True)


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly at `target`."""
    return any(point == target for point in mounted_under(target))


def peers_of(path: Path) -> frozenset[str]:
    """`shared` and `master`, as far as the mount that holds `path` has such peers (proc(5))."""
    real = path.resolve()
    best, peers = -1, frozenset[str]()
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            point = Path(fields[4].encode().decode("unicode_escape"))
            if len(point.parts) >= best and real.is_relative_to(point):
                options = fields[6 : fields.index("-", 6)]
                best = len(point.parts)
                peers = frozenset(option.partition(":")[0] for option in options)
    return peers & {"shared", "master"}
