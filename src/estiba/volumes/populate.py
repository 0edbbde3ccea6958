"""Copies an image's directory into a new volume, with owners, modes, times and attributes.

The source belongs to a container: it is walked by directory descriptors and no symlink in it
is ever followed. The copy is made aside and moved in when it is whole:

    _staging   a copy under way; a crash leaves it to be thrown away
    _ready     a whole copy that is being moved into _data, entry by entry; always finished
    _data      what containers see; entries appear in it whole
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.trees import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 30
_OVERLAY_ATTRIBUTES = ("trusted.overlay.", "user.overlay.")


def populate(volume: Path, source: int) -> bool:
    """Fills the empty volume at `volume` from the open directory `source`.

    Returns whether it did: a volume that holds something stays as it is. Sockets are left out.
    """
    data, staging, ready = volume / "_data", volume / "_staging", volume / "_ready"
    if ready.exists():
        _move_in(ready, data)
        return True
    if any(data.iterdir()):
        return False
    remove_tree(staging)
    staging.mkdir(mode=0o700)
    target = os.open(staging, _DIRECTORY)
    try:
        _Copy().directory(source, target)
    finally:
        os.close(target)
    failpoint.hit("volumes.copied")
    staging.rename(ready)
    _move_in(ready, data)
    return True


def _move_in(ready: Path, data: Path) -> None:
    for entry in ready.iterdir():
        entry.rename(data / entry.name)
        failpoint.hit("volumes.moved-one")
    source, target = os.open(ready, _DIRECTORY), os.open(data, _DIRECTORY)
    try:
        _copy_attributes(source, target, os.fstat(source))
    finally:
        os.close(source)
        os.close(target)
    ready.rmdir()


class _Copy:
    """One walk; remembers files of several names, to link them again."""

    def __init__(self) -> None:
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}
        self._kept: list[int] = []

    def directory(self, source: int, target: int) -> None:
        try:
            self._directory(source, target)
        finally:
            for fd in self._kept:
                os.close(fd)

    def _directory(self, source: int, target: int) -> None:
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name)
            elif not self._link_again(target, name, status):
                _copy_leaf(source, target, name, status)
                self._remember(target, name, status)
        _copy_attributes(source, target, os.fstat(source))

    def _subdirectory(self, source: int, target: int, name: str) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        below = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            made = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self._directory(below, made)
            finally:
                os.close(made)
        finally:
            os.close(below)

    def _link_again(self, target: int, name: str, status: os.stat_result) -> bool:
        first = self._linked.get((status.st_dev, status.st_ino))
        if first is None:
            return False
        os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=target, follow_symlinks=False)
        return True

    def _remember(self, target: int, name: str, status: os.stat_result) -> None:
        if status.st_nlink > 1 and not stat.S_ISSOCK(status.st_mode):
            kept = os.dup(target)
            self._kept.append(kept)
            self._linked[status.st_dev, status.st_ino] = (kept, name)


def _copy_leaf(source: int, target: int, name: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        _copy_file(source, target, name)
        return
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISSOCK(mode):
        return
    else:
        os.mknod(name, mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    origin = os.open(name, flags, dir_fd=source)
    try:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, f"{name} changed while it was copied")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_data(origin, copy)
            _copy_attributes(origin, copy, status)
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def _copy_data(origin: int, copy: int) -> None:
    """Shares blocks where it can; from an overlay to the file system below it Linux cannot."""
    try:
        while os.copy_file_range(origin, copy, _COPY_BYTES):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        while os.sendfile(copy, origin, None, _COPY_BYTES):
            pass


def _copy_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner first: a change of owner clears set-user-ID bits and file capabilities."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY_ATTRIBUTES):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
