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
from estiba.kernel.mountinfo import parse_line, point_of, read_lines

_PAGE_BYTES = 4096
_UMOUNT_NOFOLLOW = 0x8
_MNT_DETACH = 0x2
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC = 0x1


class MountFlag(IntFlag):
    """MS_* of mount(2)."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    SYNCHRONOUS = 0x10
    REMOUNT = 0x20
    MANDLOCK = 0x40
    DIRSYNC = 0x80
    NOATIME = 0x400
    NODIRATIME = 0x800
    BIND = 0x1000
    MOVE = 0x2000
    REC = 0x4000
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24


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
    top = os.fsencode(root)
    points = map(point_of, read_lines())
    found = [point for point in points if point == top or point.startswith(top + b"/")]
    yield from sorted(map(Path, map(os.fsdecode, found)), key=_depth, reverse=True)


def _depth(path: Path) -> int:
    return len(path.parts)


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly at `target`."""
    wanted = os.fsencode(target)
    return any(point_of(line) == wanted for line in read_lines())


def file_system_of(fd: int) -> str:
    """The type of the file system that an open descriptor lies on, as proc(5) has it; else ``."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        wanted = next((line.split()[1] for line in info if line.startswith("mnt_id:")), "")
    return next((one.kind for one in map(parse_line, read_lines()) if one.id == wanted), "")


def peers_of(path: Path) -> frozenset[str]:
    """`shared` and `master`, as far as the mount that holds `path` has such peers (proc(5))."""
    real = path.resolve()
    holding = [one for one in map(parse_line, read_lines()) if real.is_relative_to(one.point)]
    # Of several at one place the last lies above the others.
    best = max(reversed(holding), key=lambda one: _depth(one.point), default=None)
    return best.optional & {"shared", "master"} if best else frozenset()


# -- trees without a place (Linux 5.2), and what all their mounts bear (5.12) ------------------


def clone_tree(source: Path | str | int, *, recursive: bool = True) -> int:
    """A copy of the mount at `source`, mounted nowhere (open_tree(2)); its descriptor.

    An open descriptor names what it shows, whatever its path has become. Raises OSError.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    directory, path = (source, b"") if isinstance(source, int) else (_AT_FDCWD, os.fsencode(source))
    flags |= _AT_EMPTY_PATH if not path else 0
    return syscall(_SYS_OPEN_TREE, directory, path, flags, what=f"open_tree {source}")


def attach_tree(tree: int, target: Path) -> None:
    """Mounts what `clone_tree` gave at `target` (move_mount(2)). Raises OSError."""
    syscall(
        _SYS_MOVE_MOUNT,
        tree,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
        what=f"move_mount to {target}",
    )


class MountAttribute(IntFlag):
    """MOUNT_ATTR_* of mount_setattr(2)."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    IDMAP = 0x100000


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def set_attributes(
    tree: int, attributes: MountAttribute, *, user_namespace: int = 0, recursive: bool = True
) -> None:
    """Sets attributes of a tree's mounts (mount_setattr(2)), of all or of none.

    IDMAP takes the descriptor of a user namespace. Raises OSError: EINVAL where the file system
    of one of the mounts knows no id mapping, EPERM where one is mapped already.
    """
    wanted = _MountAttr(attributes, 0, 0, user_namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall(
        _SYS_MOUNT_SETATTR,
        tree,
        b"",
        flags,
        ctypes.byref(wanted),
        ctypes.sizeof(wanted),
        what="mount_setattr",
    )
