"""Trees to tar: a whole root, one path of it, or the difference that a layer is.

Walks by directory descriptors and follows nothing; entries come in the order of their names,
so the same tree gives the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from itertools import islice

from estiba.kernel.files import data_parts
from estiba.kernel.trees import walk
from estiba.storage.tar import BLOCK, Kind
from estiba.storage.tarheader import END, KINDS, Member, header, sparse_map
from estiba.storage.unpack import OPAQUE_XATTR

_CHUNK = 1 << 20
_MAX_PARTS = 1 << 14
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# It is gone, is a link, no link, or a socket by now.
_CHANGED = (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.ENXIO)
_SKIPPED_XATTRS = ("trusted.", "system.", "user.overlay.", "security.selinux")

Inode = tuple[int, int]


class Packer:
    """Makes the members of one archive; remembers inodes to write hard links.

    With `newest_ns` no member's time is later. With `sparse` holes are no content.
    """

    def __init__(
        self,
        *,
        overlay_upper: bool = False,
        without: Collection[str] = (),
        newest_ns: int | None = None,
        sparse: bool = False,
    ) -> None:
        self._is_upper = overlay_upper
        self._without = without
        self._newest_ns = newest_ns
        self._sparse = sparse
        self._seen: dict[Inode, str] = {}

    def tree(self, directory: int, prefix: str) -> Iterator[bytes]:
        """All below the open `directory`, named with `prefix` ("" or ending in "/")."""
        for found in walk(directory, prefix, without=self._without):
            yield from self._entry(found.parent, found.name, found.path, found.status)

    def root(self, directory: int, path: str) -> Iterator[bytes]:
        """The open `directory` itself, named `path`."""
        member = self._member(f"{path}/", os.fstat(directory), Kind.DIRECTORY)
        yield header(member, _xattrs(directory))

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
            yield header(self._member(f"{folder}{slash}.wh.{base}", status, Kind.FILE))
        else:
            member = self._member(path, status, KINDS[stat.S_IFMT(mode)])
            if stat.S_ISLNK(mode):
                try:
                    member.link = os.fsencode(os.readlink(name, dir_fd=parent))
                except OSError as error:
                    if error.errno in _CHANGED:
                        return
                    raise
            elif earlier := self._earlier(status, path):
                member.kind, member.link, member.device = Kind.HARDLINK, os.fsencode(earlier), None
            yield header(member)

    def _directory(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            status = os.fstat(fd)
            yield header(self._member(f"{path}/", status, Kind.DIRECTORY), _xattrs(fd))
            if self._is_upper and _is_opaque(fd):
                yield header(self._member(f"{path}/.wh..wh..opq", status, Kind.FILE))
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
        earlier = self._earlier(status, path)
        if earlier:
            member = self._member(path, status, Kind.HARDLINK)
            member.link = os.fsencode(earlier)
            yield header(member)
            return
        try:
            fd = os.open(name, _FILE, dir_fd=parent)
        except OSError as error:
            if error.errno in _CHANGED:
                return
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            member = self._member(path, status, Kind.FILE)
            member.size = status.st_size
            parts = _parts(fd, status) if self._sparse else None
            yield header(member, _xattrs(fd), sparse=parts)
            if parts is None:
                yield from _content(fd, status.st_size)
            else:
                yield from _sparse_content(fd, parts)
        finally:
            os.close(fd)

    def _earlier(self, status: os.stat_result, path: str) -> str | None:
        """The first path of an inode with several names; None the first time."""
        if status.st_nlink < 2:
            return None
        first = self._seen.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first

    def _member(self, path: str, status: os.stat_result, kind: Kind) -> Member:
        time_ns = status.st_mtime_ns
        if self._newest_ns is not None:
            time_ns = min(time_ns, self._newest_ns)
        device = None
        if kind in (Kind.CHAR, Kind.BLOCK):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        return Member(
            os.fsencode(path),
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            mtime_ns=time_ns,
            device=device,
        )


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding: a file that shrinks meanwhile ends in zeros."""
    yield from _exactly(fd, size)
    if size % BLOCK:
        yield bytes(-size % BLOCK)


def _exactly(fd: int, size: int) -> Iterator[bytes]:
    remaining = size
    while remaining:
        piece = os.read(fd, min(_CHUNK, remaining)) or bytes(min(_CHUNK, remaining))
        remaining -= len(piece)
        yield piece


def _parts(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Offsets and lengths of what is no hole; None for a file without holes worth telling."""
    size = status.st_size
    if status.st_blocks * BLOCK >= size:
        return None
    parts = [(start, end - start) for start, end in islice(data_parts(fd, size), _MAX_PARTS)]
    if len(parts) == _MAX_PARTS or parts == [(0, size)]:
        return None
    if not parts or sum(parts[-1]) < size:
        parts.append((size, 0))  # GNU tar's mark of a hole at the end
    return parts


def _sparse_content(fd: int, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    yield sparse_map(parts)
    total = 0
    for start, length in parts:
        os.lseek(fd, start, os.SEEK_SET)
        yield from _exactly(fd, length)
        total += length
    if total % BLOCK:
        yield bytes(-total % BLOCK)


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    found: dict[bytes, bytes] = {}
    for name in names:
        if not name.startswith(_SKIPPED_XATTRS):
            try:
                found[os.fsencode(name)] = os.getxattr(fd, name)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise
    return found


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def pack_end() -> bytes:
    """What ends an archive."""
    return END


def pack_tree(
    directory: int, *, overlay_upper: bool = False, without: Collection[str] = ()
) -> Iterator[bytes]:
    """A whole archive of what is below `directory`, but for the paths `without`."""
    yield from Packer(overlay_upper=overlay_upper, without=without).tree(directory, "")
    yield END


def pack_member(parent: int, name: str, path: str) -> Iterator[bytes]:
    """A whole archive of one file or subtree, called `path`."""
    yield from Packer().member(parent, name, path)
    yield END
