"""What an overlay wrote becomes a layer where it stands: one walk makes the recipe and the
digest of its tar. No content of a file is written again.

The same tree gives the same tar: names in the order of their bytes, times in whole seconds,
whiteouts and marks of opaque directories without any time or owner. It reads only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from estiba.model.errors import DataLoss, InvalidArgument, LimitExceeded
from estiba.storage.hashing import Hashing
from estiba.storage.layers import LayerInfo
from estiba.storage.recipe import RecipeWriter
from estiba.storage.tar import BLOCK, Kind
from estiba.storage.tarheader import END, KINDS, Member, header
from estiba.storage.unpack import OPAQUE, OPAQUE_XATTR, WHITEOUT, Limits

_CHUNK = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_PLAIN_ROOT = (0o755, 0, 0)
_SECOND = 1_000_000_000
_ZEROS = bytes(BLOCK)


def describe_upper(
    upper: int, recipe: RecipeWriter, limits: Limits, check: Callable[[], None]
) -> LayerInfo:
    """Facts of the layer that the open directory `upper`, which nobody writes to, makes.

    `check` is called at least once a megabyte, to end it by an exception. Raises InvalidArgument
    for a name that a layer cannot hold, LimitExceeded, DataLoss when a file changes meanwhile.
    """
    return _Upper(recipe, limits, check).describe(upper)


class _Upper:
    def __init__(self, recipe: RecipeWriter, limits: Limits, check: Callable[[], None]) -> None:
        self._recipe, self._limits, self._check = recipe, limits, check
        self._hashing = Hashing()
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._padding = b""
        self._links: dict[int, bytes] = {}
        self._size_bytes = 0
        self._entries = 0

    def describe(self, upper: int) -> LayerInfo:
        try:
            self._root(upper)
            self._below(upper, b"", 1)
            trailer = self._padding + END
            self._recipe.finish(trailer)
            self._put(trailer)
            self._flush()
            return LayerInfo(
                diff_id=f"sha256:{self._hashing.hexdigest()}",
                size_bytes=self._size_bytes,
                tar_bytes=self._hashing.size,
            )
        finally:
            self._hashing.close()

    def _root(self, upper: int) -> None:
        """The root has no entry unless there is something to say of it."""
        status = os.fstat(upper)
        xattrs = _xattrs(upper)
        if xattrs or (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != _PLAIN_ROOT:
            self._write(header(_member(b"./", Kind.DIRECTORY, status), xattrs))

    def _below(self, directory: int, prefix: bytes, depth: int) -> None:
        names = sorted(map(os.fsencode, os.listdir(directory)))
        self._count(names, prefix, depth)
        for name in names:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            path = prefix + name
            if kind == stat.S_IFDIR:
                self._directory(directory, name, path + b"/", depth)
            elif kind == stat.S_IFCHR and status.st_rdev == 0:
                self._write(header(Member(prefix + WHITEOUT + name, Kind.FILE)))
            elif kind != stat.S_IFSOCK and not self._is_link(path, status):
                if kind == stat.S_IFREG:
                    self._file(directory, name, path, status)
                else:
                    self._special(directory, name, path, status)

    def _count(self, names: list[bytes], prefix: bytes, depth: int) -> None:
        """What this engine would not take from a registry it does not make either."""
        self._entries += len(names)
        if self._entries > self._limits.entries:
            raise LimitExceeded(f"a layer of more than {self._limits.entries} files")
        if not names:
            return
        longest = len(prefix) + max(map(len, names)) + len(WHITEOUT)
        if depth > self._limits.depth or longest > self._limits.name_bytes:
            shown = os.fsdecode(prefix[:100])
            raise LimitExceeded(
                f"{shown!r}… is too deep for a layer: at most {self._limits.depth} directories "
                f"and {self._limits.name_bytes} bytes a path"
            )
        for name in names:
            if name.startswith(WHITEOUT):
                raise InvalidArgument(
                    f"{os.fsdecode(prefix + name)!r}: names that begin with .wh. stand for "
                    "deletions in a layer; remove or rename it in the same step"
                )

    def _directory(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            names = os.listxattr(fd)
            member = _member(path, Kind.DIRECTORY, os.fstat(fd))
            self._write(header(member, _kept(fd, names) if names else None))
            if OPAQUE_XATTR in names and os.getxattr(fd, OPAQUE_XATTR) == b"y":
                self._write(header(Member(path + OPAQUE, Kind.FILE)))
            self._below(fd, path, depth + 1)
        finally:
            os.close(fd)

    def _is_link(self, path: bytes, status: os.stat_result) -> bool:
        """Whether it is another name of what was written already; the entry is written then."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault(status.st_ino, path)
        if first == path:
            return False
        member = _member(path, Kind.HARDLINK, status)
        member.link = first
        self._write(header(member))
        return True

    def _special(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        member = _member(path, KINDS[stat.S_IFMT(status.st_mode)], status)
        if member.kind is Kind.SYMLINK:
            member.link = os.readlink(name, dir_fd=parent)
        elif member.kind is not Kind.FIFO:
            member.device = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._write(header(member))

    def _file(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        size = status.st_size
        self._size_bytes += size
        if self._size_bytes > self._limits.total_bytes:
            raise LimitExceeded(f"a layer of more than {self._limits.total_bytes} bytes")
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            member = _member(path, Kind.FILE, status)
            member.size = size
            self._write(header(member, _xattrs(fd)), size, path)
            remaining = size
            while remaining:
                piece = os.read(fd, min(_CHUNK, remaining))
                if not piece:
                    raise DataLoss(f"{os.fsdecode(path)} shrank while the layer was made")
                remaining -= len(piece)
                self._put(piece)
        finally:
            os.close(fd)
        self._padding = _ZEROS[: -size % BLOCK]

    def _write(self, head: bytes, size: int = 0, path: bytes = b"") -> None:
        if self._padding:
            head = self._padding + head
            self._padding = b""
        self._recipe.put(head, size, path if size else b"")
        self._put(head)

    def _put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        if self._pieces_bytes >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        """One long piece is hashed beside this thread; many short ones would hold it up."""
        self._check()
        self._hashing.update(b"".join(self._pieces))
        self._pieces.clear()
        self._pieces_bytes = 0


def _member(name: bytes, kind: Kind, status: os.stat_result) -> Member:
    return Member(
        name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        mtime_ns=status.st_mtime_ns // _SECOND * _SECOND,
    )


def _xattrs(fd: int) -> dict[bytes, bytes] | None:
    names = os.listxattr(fd)
    return _kept(fd, names) if names else None


def _kept(fd: int, names: list[str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.getxattr(fd, name) for name in names if _is_kept(name)}


def _is_kept(name: str) -> bool:
    """Labels of SELinux and overlay's own marks belong to this host."""
    if name.startswith("user."):
        return not name.startswith("user.overlay.")
    return name == "security.capability"
