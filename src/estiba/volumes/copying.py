"""Trees copied whole: owners, modes, times, attributes, hard links, holes.

The source may belong to a container: it is walked by directory descriptors, no symlink in it is
ever followed, and what vanishes meanwhile is left out. Sockets are left out too. Where the file
system can, copies share their blocks (btrfs, xfs).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from estiba.kernel.confined import Resolve, openat2
from estiba.kernel.files import data_parts

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY
_MAX_PATH_BYTES = 4096 - 256
"""What paths take, less a name in the last directory."""

_COPY_BYTES = 1 << 30
_FICLONE = 0x40049409
_OVERLAY_ATTRIBUTES = ("trusted.overlay.", "user.overlay.")
_CANNOT_SHARE = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM,
                 errno.ETXTBSY, errno.ENOSYS)  # fmt: skip

Told = Callable[[int], None]


def copy_tree(source: int, target: int, told: Told = lambda size: None) -> None:
    """Fills the empty open directory `target` from `source`, the directory's own owner, mode and
    times included. `told` hears the size of every file that is done.

    Raises OSError.
    """
    _Copy(told).directory(source, target)


class _Copy:
    """One walk; remembers files of several names, to link them again."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._linked: dict[tuple[int, int], str] = {}
        """Paths of the copy: descriptors would be as many as there are directories."""

    def directory(self, source: int, target: int) -> None:
        levels = [(source, target, _names(source))]
        path: list[str] = []
        try:
            while levels:
                below, made, names = levels[-1]
                name = next(names, None)
                if name is None:
                    copy_attributes(below, made, os.fstat(below))
                    levels.pop()
                    if levels:
                        os.close(below)
                        os.close(made)
                        path.pop()
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=below, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        _check_depth(path, name)
                        levels.append(_subdirectory(below, made, name))
                        path.append(name)
                    elif not self._link_again(target, made, name, status):
                        self._leaf(below, made, name, status)
                        if status.st_nlink > 1 and not stat.S_ISSOCK(status.st_mode):
                            linked = "/".join((*path, name))
                            self._linked[status.st_dev, status.st_ino] = linked
        finally:
            for below, made, _ in levels[1:]:
                os.close(below)
                os.close(made)

    def _link_again(self, top: int, target: int, name: str, status: os.stat_result) -> bool:
        first = self._linked.get((status.st_dev, status.st_ino))
        if first is None:
            return False
        folder, _, base = first.rpartition("/")
        parent = openat2(top, folder or ".", _PLACE, 0, Resolve.NO_SYMLINKS | Resolve.BENEATH)
        try:
            os.link(base, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(parent)
        return True

    def _leaf(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISREG(mode):
            self._told(_copy_file(source, target, name))
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISSOCK(mode):
            return
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            _set_mode(target, name, mode)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _set_mode(directory: int, name: str, mode: int) -> None:
    """Of a node; who has the volume too may have put a symlink in its place by now."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(mode):
            raise OSError(errno.ESTALE, f"{name} changed while it was copied")
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    finally:
        os.close(fd)


def _check_depth(path: list[str], name: str) -> None:
    """Every level holds two descriptors, of which the engine has only so many."""
    if len(os.fsencode("/".join((*path, name)))) > _MAX_PATH_BYTES:
        where = "/".join(path[:4])
        raise OSError(errno.ENAMETOOLONG, f"directories below {where} are deeper than any path")


def _names(directory: int) -> Iterator[str]:
    return iter(os.listdir(directory))


def _subdirectory(source: int, target: int, name: str) -> tuple[int, int, Iterator[str]]:
    below = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        made = os.open(name, _DIRECTORY, dir_fd=target)
    except BaseException:
        os.close(below)
        raise
    return below, made, _names(below)


def _copy_file(source: int, target: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    origin = os.open(name, flags, dir_fd=source)
    try:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, f"{name} changed while it was copied")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_data(origin, copy, status.st_size)
            copy_attributes(origin, copy, status)
        finally:
            os.close(copy)
    finally:
        os.close(origin)
    return status.st_size


def _copy_data(origin: int, copy: int, size: int) -> None:
    """Shares blocks where it can; from an overlay to the file system below it Linux cannot."""
    try:
        fcntl.ioctl(copy, _FICLONE, origin)
        return
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
    for start, end in data_parts(origin, size):
        _copy_part(origin, copy, start, end)
    os.ftruncate(copy, size)


def _copy_part(origin: int, copy: int, start: int, end: int) -> None:
    try:
        while start < end:
            done = os.copy_file_range(origin, copy, min(end - start, _COPY_BYTES), start, start)
            if not done:
                return  # it has become shorter
            start += done
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        os.lseek(copy, start, os.SEEK_SET)
        while start < end and (
            done := os.sendfile(copy, origin, start, min(end - start, _COPY_BYTES))
        ):
            start += done


def copy_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner first: a change of owner clears set-user-ID bits and file capabilities."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY_ATTRIBUTES):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
