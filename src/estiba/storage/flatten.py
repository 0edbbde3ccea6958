"""Several layers made one: each applied to a tree that is itself in overlay's form.

What they delete of that which lies below all of them stays deleted. Content is copied; the
layers are only read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from estiba.kernel.confined import exists_in_root
from estiba.kernel.trees import Found, remove_tree, walk
from estiba.storage.unpack import OPAQUE_XATTR

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30
_OVERLAY = "trusted.overlay."


def flatten(layers: Sequence[int], target: int, below: int) -> None:
    """Applies the open directories `layers`, bottom first, to the empty open one `target`.

    `below` is the root of the whole tree that lies below them.
    """
    for layer in layers:
        _Applied(layer, target, below).run()


class _Applied:
    """One layer on top of what `target` holds. Directories of it are real ones, never links,
    so that a path below it needs no confinement."""

    def __init__(self, layer: int, target: int, below: int) -> None:
        self._layer, self._target, self._below = layer, target, below
        self._links: dict[int, str] = {}
        self._opaque: str | None = None
        """The outermost opaque directory that the walk is in, with a slash."""

        self._times: list[tuple[str, int]] = []

    def run(self) -> None:
        for found in walk(self._layer):
            self._apply(found)
        # Last, and from below, because every entry changes the time of its directory.
        for path, mtime_ns in reversed(self._times):
            os.utime(path, ns=(mtime_ns, mtime_ns), dir_fd=self._target, follow_symlinks=False)
        _copy_metadata(self._layer, self._target)
        mtime_ns = os.fstat(self._layer).st_mtime_ns
        os.utime(self._target, ns=(mtime_ns, mtime_ns))

    def _apply(self, found: Found) -> None:
        if self._opaque is not None and not found.path.startswith(self._opaque):
            self._opaque = None
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            self._directory(found)
        elif stat.S_ISCHR(mode) and found.status.st_rdev == 0:
            self._whiteout(found.path)
        else:
            self._remove(found.path)
            self._file(found)

    def _directory(self, found: Found) -> None:
        source = os.open(found.name, _DIRECTORY, dir_fd=found.parent)
        try:
            before = self._kind(found.path)
            hides = _is_opaque(source)
            if before != stat.S_IFDIR:
                # Overlay merges no directory with what lies below a file or a deletion.
                hides = hides or before is not None
            if hides or before != stat.S_IFDIR:
                self._remove(found.path)
                os.mkdir(found.path, 0o700, dir_fd=self._target)
            made = os.open(found.path, _DIRECTORY, dir_fd=self._target)
            try:
                if hides:
                    os.setxattr(made, OPAQUE_XATTR, b"y")
                elif before is not None:
                    hides = _is_opaque(made)
                _copy_metadata(source, made)
            finally:
                os.close(made)
        finally:
            os.close(source)
        self._times.append((found.path, found.status.st_mtime_ns))
        if hides and self._opaque is None:
            self._opaque = f"{found.path}/"

    def _whiteout(self, path: str) -> None:
        """Where nothing is to be hidden overlay would list the mark."""
        self._remove(path)
        if self._opaque is None and exists_in_root(self._below, path):
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._target)

    def _file(self, found: Found) -> None:
        status, path = found.status, found.path
        if status.st_nlink > 1:
            first = self._links.setdefault(status.st_ino, path)
            if first != path:
                os.link(first, path, src_dir_fd=self._target, dst_dir_fd=self._target,
                        follow_symlinks=False)  # fmt: skip
                return
        if stat.S_ISREG(status.st_mode):
            self._copy(found)
        elif stat.S_ISLNK(status.st_mode):
            link = os.readlink(found.name, dir_fd=found.parent)
            os.symlink(link, path, dir_fd=self._target)
            _own(path, status, self._target)
        else:
            os.mknod(path, status.st_mode, status.st_rdev, dir_fd=self._target)
            _own(path, status, self._target)
            os.chmod(path, stat.S_IMODE(status.st_mode), dir_fd=self._target)
        times = (status.st_mtime_ns, status.st_mtime_ns)
        os.utime(path, ns=times, dir_fd=self._target, follow_symlinks=False)

    def _copy(self, found: Found) -> None:
        source = os.open(found.name, _READ, dir_fd=found.parent)
        try:
            made = os.open(found.path, _NEW, 0o600, dir_fd=self._target)
            try:
                _copy_content(source, made, found.status.st_size)
                _copy_metadata(source, made)
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _kind(self, path: str) -> int | None:
        try:
            status = os.stat(path, dir_fd=self._target, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return stat.S_IFMT(status.st_mode)

    def _remove(self, path: str) -> None:
        kind = self._kind(path)
        if kind == stat.S_IFDIR:
            remove_tree(path, dir_fd=self._target)
        elif kind is not None:
            os.unlink(path, dir_fd=self._target)


def _own(path: str, status: os.stat_result, directory: int) -> None:
    os.chown(path, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False)


def _copy_content(source: int, made: int, size: int) -> None:
    """Data and holes: a sparse file stays one, and file systems that share blocks share them."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        offset = os.lseek(source, start, os.SEEK_HOLE)
        while start < offset:
            copied = os.copy_file_range(source, made, min(_CHUNK, offset - start), start, start)
            if not copied:
                break
            start += copied
    os.ftruncate(made, size)


def _copy_metadata(source: int, made: int) -> None:
    """Owner before mode, because chown clears set-id bits; then attributes, for capabilities."""
    status = os.fstat(source)
    os.fchown(made, status.st_uid, status.st_gid)
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    names = [name for name in os.listxattr(source) if not name.startswith(_OVERLAY)]
    for name in os.listxattr(made):
        if not name.startswith(_OVERLAY) and name not in names:
            os.removexattr(made, name)
    for name in names:
        os.setxattr(made, name, os.getxattr(source, name))


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
