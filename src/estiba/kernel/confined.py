"""Paths inside a container's tree, resolved as a process there would (openat2(2), Linux 5.6).

The root of resolution is a directory descriptor: symlinks, absolute ones too, and `..` never
lead out of it, and no magic link of /proc is followed. The kernel does it in one step, so a
link that is swapped at the same time changes nothing about that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path

from estiba.kernel.libc import check, libc

_SYS_OPENAT2 = 437
_AT_FDCWD = -100
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_RETRIES = 64


class Resolve(IntFlag):
    """RESOLVE_* of openat2(2)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(directory: int, path: str | bytes, flags: int, mode: int, resolve: Resolve) -> int:
    """openat2(2) with O_CLOEXEC. Raises OSError; EXDEV when the path leads out."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, int(resolve))
    encoded = os.fsencode(path)
    for _ in range(_MAX_RETRIES):
        result = libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(encoded),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        # EAGAIN: a rename raced with `..`; the kernel could not tell that it is safe.
        if result != -1 or ctypes.get_errno() != errno.EAGAIN:
            break
    name = encoded.decode(errors="replace")
    return check(result, f"open {name}")


def open_in_root(root: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Opens `path` as a process would whose root directory is `root`.

    Raises OSError as open(2) does.
    """
    relative = os.fsencode(path).lstrip(b"/") or b"."
    return openat2(root, relative, flags, mode, Resolve.IN_ROOT | Resolve.NO_MAGICLINKS)


@contextmanager
def opened_root(path: Path | str) -> Iterator[int]:
    """A descriptor of the directory `path`, which itself is trusted."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_plain(path: Path) -> Iterator[int]:
    """A descriptor for reading the directory `path`, in which no part is a symlink (ELOOP)."""
    fd = openat2(_AT_FDCWD, os.fspath(path), _DIRECTORY, 0, Resolve.NO_SYMLINKS)
    try:
        yield fd
    finally:
        os.close(fd)


def exists_in_root(root: int, path: str) -> bool:
    """Whether something, a dangling symlink too, stands at `path`."""
    try:
        os.close(open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def _make_directory(parent: int, name: str, mode: int, path: str) -> None:
    """Raises NotADirectoryError when a symlink to nowhere is in the way."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{path} leads to no directory") from None


def ensure_directory_in_root(
    root: int,
    path: str,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    inherit_owner: bool = False,
) -> int:
    """`mkdir -p` inside the root; returns a descriptor of the directory.

    Only directories that it makes get mode and owner, with `inherit_owner` that of the directory
    above. A symlink on the way is followed inside
    the root. Raises OSError, NotADirectoryError when a file is in the way.
    """
    current = open_in_root(root, "/", _DIRECTORY)
    done = ""
    try:
        for part in [part for part in path.split("/") if part not in ("", ".")]:
            done = f"{done}/{part}"
            try:
                following = open_in_root(root, done, _DIRECTORY)
            except FileNotFoundError:
                _make_directory(current, part, mode, done)
                following = openat2(current, part, _DIRECTORY, 0, Resolve.NO_SYMLINKS)
                above = os.fstat(current)
                owner = (above.st_uid, above.st_gid) if inherit_owner else (uid, gid)
                os.fchown(following, *owner)
                os.fchmod(following, mode)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current
