"""Tar streams to and from the user's own files, for `cp` and for what a build puts out.

What comes out of a container may be hostile: unpacking goes by directory descriptors, follows no
symlink of the archive and refuses `..`, so that nothing outside the target can be touched.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile

from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = 512
_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# -- packing -------------------------------------------------------------------------------


def pack(source: str, name: str) -> Iterator[bytes]:
    """A tar of `source` under `name`, made as it is read. Sockets are left out."""
    seen: dict[tuple[int, int], str] = {}
    for path, inside in _walk(source, name):
        status = os.lstat(path)
        info = _describe(path, inside, status)
        if info is None:
            continue
        key = (status.st_dev, status.st_ino)
        if info.isreg() and status.st_nlink > 1:
            if key in seen:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, seen[key], 0
            seen.setdefault(key, inside)
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(path, info.size)
    yield bytes(2 * _BLOCK)


def _walk(source: str, name: str) -> Iterator[tuple[str, str]]:
    yield source, name
    if os.path.isdir(source) and not os.path.islink(source):
        for entry in sorted(os.listdir(source)):
            yield from _walk(os.path.join(source, entry), f"{name}/{entry}")


def _describe(path: str, inside: str, status: os.stat_result) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(inside)
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = int(status.st_mtime)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        info.size = status.st_size
    elif kind == stat.S_IFDIR:
        info.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif kind == stat.S_IFIFO:
        info.type = tarfile.FIFOTYPE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        return None
    return info


def _content(path: str, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding: the header has promised them."""
    left = size
    with open(path, "rb") as file:
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:
                raise ClientError(f"{path} became shorter while it was being copied")
            left -= len(data)
            yield data
    yield bytes(-size % _BLOCK)


# -- unpacking -----------------------------------------------------------------------------


class _Reader(io.RawIOBase):
    """A file over pieces, for tarfile's stream mode."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self.count += len(piece)
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def unpack(pieces: Iterable[bytes], target: str, *, keep_owner: bool) -> int:
    """Makes the archive's one root `target`; how many bytes the stream had.

    Raises ClientError for an archive that leads out of it or cannot be read.
    """
    parent, name = os.path.split(target)
    return _unpack(pieces, parent or ".", [name], target, keep_owner=keep_owner)


def unpack_into(pieces: Iterable[bytes], target: str, *, keep_owner: bool) -> int:
    """All that the archive holds, into a directory that is there; whose own mode stays.

    Raises ClientError for an archive that leads out of it or cannot be read.
    """
    return _unpack(pieces, target, None, target, keep_owner=keep_owner)


def _unpack(
    pieces: Iterable[bytes], folder: str, root: list[str] | None, target: str, *, keep_owner: bool
) -> int:
    reader = _Reader(pieces)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    unpacker = _Unpacker(directory, root, keep_owner=keep_owner)
    try:
        with tarfile.open(fileobj=io.BufferedReader(reader, _CHUNK), mode="r|") as tar:
            for member in tar:
                unpacker.add(tar, member)
        unpacker.finish()
        while reader.readinto(memoryview(bytearray(_CHUNK))):
            pass
    except tarfile.TarError as error:
        raise ClientError(f"damaged archive from the daemon: {error}") from error
    except OSError as error:
        raise ClientError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        os.close(directory)
    return reader.count


class _Unpacker:
    """`root` replaces the archive's own one; without, its names are taken as they are."""

    def __init__(self, directory: int, root: list[str] | None, *, keep_owner: bool) -> None:
        self._directory = directory
        self._root = root
        self._keep_owner = keep_owner
        self._finished: list[tuple[list[str], tarfile.TarInfo]] = []

    def _path(self, text: str) -> list[str]:
        """Below the directory; empty for the directory itself."""
        words = [word for word in text.split("/") if word]
        if ".." in words:
            raise ClientError(f"the archive has an entry that leads out of it: {text!r}")
        rest = [word for word in words[self._root is not None :] if word != "."]
        return [*(self._root or ()), *rest]

    def _parent(self, path: list[str]) -> int:
        """A descriptor of the directory that an entry stands in; no link is followed."""
        current = os.dup(self._directory)
        try:
            for word in path[:-1]:
                try:
                    os.mkdir(word, 0o755, dir_fd=current)
                except FileExistsError:
                    pass
                following = os.open(word, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = following
        except OSError:
            os.close(current)
            raise
        return current

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if not path:
            return
        parent = self._parent(path)
        try:
            if member.isdir():
                self._add_directory(parent, path, member)
                return
            _remove(parent, path[-1])
            if member.isreg():
                self._add_file(tar, parent, path[-1], member)
            elif member.issym():
                os.symlink(member.linkname, path[-1], dir_fd=parent)
                self._own(member, path[-1], parent)
            elif member.islnk():
                self._add_link(parent, path[-1], member)
            elif member.isfifo() or member.ischr() or member.isblk():
                self._add_node(parent, path[-1], member)
        finally:
            os.close(parent)

    def _add_directory(self, parent: int, path: list[str], member: tarfile.TarInfo) -> None:
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            os.close(os.open(path[-1], _DIRECTORY, dir_fd=parent))
        self._finished.append((path, member))

    def _add_file(
        self, tar: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo
    ) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        source = tar.extractfile(member)
        assert source is not None
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            while data := source.read(_CHUNK):
                file.write(data)
            file.flush()
            self._own(member, file.fileno())
            os.fchmod(file.fileno(), self._mode(member))
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _add_link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        path = self._path(member.linkname)
        source = self._parent(path)
        try:
            os.link(path[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _add_node(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
        os.mknod(name, kind | self._mode(member), device, dir_fd=parent)
        self._own(member, name, parent)

    def _mode(self, member: tarfile.TarInfo) -> int:
        """As cp does it: a new owner gets no set-id bits of the old one."""
        return member.mode & (0o7777 if self._keep_owner else 0o777)

    def _own(self, member: tarfile.TarInfo, what: int | str, parent: int | None = None) -> None:
        if not self._keep_owner:
            return
        if isinstance(what, int):
            os.chown(what, member.uid, member.gid)
        else:
            os.chown(what, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """Modes and times of directories, which writing into them would have changed."""
        for path, member in reversed(self._finished):
            parent = self._parent(path)
            try:
                directory = os.open(path[-1], _DIRECTORY, dir_fd=parent)
                try:
                    self._own(member, directory)
                    os.fchmod(directory, self._mode(member) | (member.mode & stat.S_ISVTX))
                    os.utime(directory, (member.mtime, member.mtime))
                finally:
                    os.close(directory)
            finally:
                os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Whatever was there, unless it is a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
