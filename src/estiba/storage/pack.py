"""Trees to tar: a whole root, one path of it, or the difference that a layer is.

Walks by directory descriptors and follows nothing; entries come in the order of their names,
so the same tree gives the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Collection, Iterator

from estiba.kernel.trees import walk
from estiba.storage.tar import BLOCK
from estiba.storage.unpack import OPAQUE_XATTR

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_END = bytes(BLOCK * 2)
_SKIPPED_XATTRS = ("trusted.", "system.", "user.overlay.", "security.selinux")

Inode = tuple[int, int]


class Packer:
    """Makes the members of one archive; remembers inodes to write hard links.

    With `newest_ns` no member's time is later.
    """

    def __init__(
        self,
        *,
        overlay_upper: bool = False,
        without: Collection[str] = (),
        newest_ns: int | None = None,
    ) -> None:
        self._is_upper = overlay_upper
        self._without = without
        self._newest_ns = newest_ns
        self._seen: dict[Inode, str] = {}

    def tree(self, directory: int, prefix: str) -> Iterator[bytes]:
        """All below the open `directory`, named with `prefix` ("" or ending in "/")."""
        for found in walk(directory, prefix, without=self._without):
            yield from self._entry(found.parent, found.name, found.path, found.status)

    def root(self, directory: int, path: str) -> Iterator[bytes]:
        """The open `directory` itself, named `path`."""
        yield _header(self._info(f"{path}/", os.fstat(directory), stat.S_IFDIR), _xattrs(directory))

    def member(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        """One file or subtree, named `path` in the archive; what vanishes meanwhile is left out."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        yield from self._entry(parent, name, path, status)
        if stat.S_ISDIR(status.st_mode):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = os.open(name, _DIRECTORY, dir_fd=parent)
                try:
                    yield from self.tree(fd, f"{path}/")
                finally:
                    os.close(fd)

    def _entry(self, parent: int, name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
        """One file or directory, without what is in it."""
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            yield from self._directory(parent, name, path)
        elif stat.S_ISREG(mode):
            yield from self._file(parent, name, path, status)
        elif stat.S_ISSOCK(mode):
            return
        elif self._is_upper and stat.S_ISCHR(mode) and status.st_rdev == 0:
            folder, slash, base = path.rpartition("/")
            yield _header(self._info(f"{folder}{slash}.wh.{base}", status, stat.S_IFREG))
        else:
            info = self._info(path, status, mode)
            if stat.S_ISLNK(mode):
                with contextlib.suppress(FileNotFoundError):
                    info.linkname = os.readlink(name, dir_fd=parent)
            elif earlier := self._earlier(status, path):
                info.type, info.linkname = tarfile.LNKTYPE, earlier
            yield _header(info)

    def _directory(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            info = self._info(f"{path}/", os.fstat(fd), stat.S_IFDIR)
            xattrs = _xattrs(fd)
            yield _header(info, xattrs)
            if self._is_upper and _is_opaque(fd):
                yield _header(self._info(f"{path}/.wh..wh..opq", os.fstat(fd), stat.S_IFREG))
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
        earlier = self._earlier(status, path)
        if earlier:
            info = self._info(path, status, stat.S_IFREG)
            info.type, info.linkname = tarfile.LNKTYPE, earlier
            yield _header(info)
            return
        try:
            fd = os.open(name, _FILE, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            info = self._info(path, status, stat.S_IFREG)
            info.size = status.st_size
            yield _header(info, _xattrs(fd))
            yield from _content(fd, status.st_size)
        finally:
            os.close(fd)

    def _earlier(self, status: os.stat_result, path: str) -> str | None:
        """The first path of an inode with several names; None the first time."""
        if status.st_nlink < 2:
            return None
        first = self._seen.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first

    def _info(self, path: str, status: os.stat_result, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = status.st_uid, status.st_gid
        time_ns = status.st_mtime_ns
        if self._newest_ns is not None:
            time_ns = min(time_ns, self._newest_ns)
        whole, fraction = divmod(time_ns, 1_000_000_000)
        info.mtime = whole
        if fraction:
            info.pax_headers = {"mtime": f"{whole}.{fraction:09d}"}
        kind = stat.S_IFMT(mode)
        info.type = {
            stat.S_IFDIR: tarfile.DIRTYPE,
            stat.S_IFLNK: tarfile.SYMTYPE,
            stat.S_IFCHR: tarfile.CHRTYPE,
            stat.S_IFBLK: tarfile.BLKTYPE,
            stat.S_IFIFO: tarfile.FIFOTYPE,
        }.get(kind, tarfile.REGTYPE)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return info


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding: a file that shrinks meanwhile ends in zeros."""
    remaining = size
    while remaining:
        piece = os.read(fd, min(_CHUNK, remaining)) or bytes(min(_CHUNK, remaining))
        remaining -= len(piece)
        yield piece
    if size % BLOCK:
        yield bytes(-size % BLOCK)


def _header(info: tarfile.TarInfo, xattrs: dict[str, str] | None = None) -> bytes:
    if xattrs:
        info.pax_headers = {**info.pax_headers, **xattrs}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _xattrs(fd: int) -> dict[str, str]:
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    return {
        f"SCHILY.xattr.{name}": os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        for name in names
        if not name.startswith(_SKIPPED_XATTRS)
    }


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def pack_end() -> bytes:
    """What ends an archive."""
    return _END


def pack_tree(
    directory: int, *, overlay_upper: bool = False, without: Collection[str] = ()
) -> Iterator[bytes]:
    """A whole archive of what is below `directory`, but for the paths `without`."""
    yield from Packer(overlay_upper=overlay_upper, without=without).tree(directory, "")
    yield _END


def pack_member(parent: int, name: str, path: str) -> Iterator[bytes]:
    """A whole archive of one file or subtree, called `path`."""
    yield from Packer().member(parent, name, path)
    yield _END
