"""Objects as files below one directory, which one process at a time has for itself.

Paths are resolved by openat2 without symlinks, so nothing that stands in the root leads out
of it. An object appears by one rename after its bytes were flushed; empty directories go with
their last object.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.confined import Resolve, openat2
from estiba.model.errors import Conflict
from estiba.registry.storage.keys import TEMPORARY, check_key
from estiba.registry.storage.ports import MAX_MANIFEST_BYTES, Entry, Stat

_CONFINED = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_MAX_RACES = 100


@dataclass(slots=True)
class OpenedFile:
    """`Opened` of a file."""

    fd: int | None
    size: int
    position: int = 0

    def read(self, limit: int, /) -> bytes:
        if self.fd is None:
            raise ValueError("the object is closed")
        data = os.pread(self.fd, limit, self.position)
        self.position += len(data)
        return data

    def close(self) -> None:
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


@dataclass(slots=True)
class FileAppender:
    """`Appender` of a file; the descriptor can be read from as well."""

    fd: int | None
    size: int

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        if self.fd is None:
            raise ValueError("the upload is closed")
        rest = memoryview(data)
        while rest:
            failpoint.hit("registry.append")
            done = os.write(self.fd, rest)
            self.size += done
            rest = rest[done:]

    def close(self) -> None:
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)

    def abandon(self) -> None:
        self.close()


@dataclass(slots=True)
class FileDriver:
    """`Driver` over the directory `root`."""

    root: Path
    local: bool = True
    _root: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        """Makes the root and sweeps what a crash left.

        Raises Conflict when another process has it, OSError.
        """
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._root = os.open(self.root, _DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._root)
            raise Conflict(
                f"another registry serves {self.root}: stop it first, or leave this to it"
            ) from None
        os.close(self._make_directory(TEMPORARY))
        for leftover in os.listdir(self.root / TEMPORARY):
            self._discard(leftover)

    def close(self) -> None:
        fd, self._root = self._root, -1
        if fd >= 0:
            os.close(fd)

    def _open(self, key: str, flags: int) -> int:
        try:
            return openat2(self._root, check_key(key), flags, 0, _CONFINED)
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", key) from error

    def _directory(self, path: str) -> int:
        return openat2(self._root, path or ".", _DIRECTORY, 0, _CONFINED)

    def _make_directory(self, path: str) -> int:
        """A descriptor of the directory, whose new parents are flushed."""
        with contextlib.suppress(FileNotFoundError):
            return self._directory(path)
        head, _, name = path.rpartition("/")
        parent = self._make_directory(head)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                os.fsync(parent)
            return openat2(parent, name, _DIRECTORY, 0, _CONFINED)
        finally:
            os.close(parent)

    @contextlib.contextmanager
    def _parent(self, key: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the directory that `key` stands in, and its name there."""
        head, _, name = check_key(key).rpartition("/")
        try:
            fd = self._directory(head)
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", key) from error
        try:
            yield fd, name
        finally:
            os.close(fd)

    def _place(self, directory: int, name: str, key: str, *, durable: bool = True) -> None:
        """Renames `name` of `directory` to `key`; `durable` flushes the directory it comes to.

        Raises FileNotFoundError when the source is gone.
        """
        head, _, last = check_key(key).rpartition("/")
        for race in range(_MAX_RACES):
            try:
                parent = self._make_directory(head)
            except FileNotFoundError:
                continue
            try:
                os.rename(name, last, src_dir_fd=directory, dst_dir_fd=parent)
                if durable:
                    os.fsync(parent)
                return
            except FileNotFoundError:
                # Another thread took the empty directory away, or the source is gone.
                if race == _MAX_RACES - 1 or not _is_there(directory, name):
                    raise
            finally:
                os.close(parent)
        raise FileNotFoundError(errno.ENOENT, "its directory keeps vanishing", key)

    def read(self, key: str, *, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """Raises OSError(EFBIG) for an object over `limit` bytes."""
        fd = self._open(key, os.O_RDONLY)
        with os.fdopen(fd, "rb", buffering=0) as file:
            data = file.read(limit + 1) or b""
            while len(data) <= limit and (more := file.read(limit + 1 - len(data))):
                data += more
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"over {limit} bytes", key)
        return data

    def open(self, key: str, offset: int = 0) -> OpenedFile:
        fd = self._open(key, os.O_RDONLY)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "no such object", key)
        return OpenedFile(fd, status.st_size, offset)

    def write(self, key: str, data: bytes, *, durable: bool = True) -> None:
        check_key(key)
        temporary = self._directory(TEMPORARY)
        name = secrets.token_hex(8)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(name, flags, 0o644, dir_fd=temporary)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(fd)
                failpoint.hit("registry.write")
                self._place(temporary, name, key, durable=durable)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=temporary)
                raise
        finally:
            os.close(temporary)

    def stat(self, key: str) -> Stat:
        fd = self._open(key, os.O_PATH | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "no such object", key)
        return Stat(status.st_size, status.st_mtime)

    def list(self, prefix: str) -> Iterator[Entry]:
        try:
            fd = self._open(prefix, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    # Nobody may take what a symlink hides for absent: listing it is an error.
                    if entry.is_dir(follow_symlinks=False) or entry.is_symlink():
                        yield Entry(entry.name, None)
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            yield Entry(entry.name, Stat(status.st_size, status.st_mtime))
        finally:
            os.close(fd)

    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        for entry in self.list(prefix):
            key = f"{prefix}/{entry.name}"
            if entry.stat is not None:
                yield key, entry.stat
            else:
                yield from self.walk(key)

    def delete(self, key: str) -> None:
        """Harmless when there is nothing."""
        try:
            with self._parent(key) as (parent, name):
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)
        except (FileNotFoundError, IsADirectoryError):
            return
        self._prune(key)

    def _prune(self, key: str) -> None:
        """Removes the directories above `key` that are empty now."""
        head = key.rpartition("/")[0]
        while head:
            try:
                with self._parent(head) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError:
                return
            head = head.rpartition("/")[0]

    def delete_tree(self, prefix: str) -> None:
        name = secrets.token_hex(8)
        temporary = self._directory(TEMPORARY)
        try:
            with self._parent(prefix) as (parent, last):
                os.rename(last, name, src_dir_fd=parent, dst_dir_fd=temporary)
                os.fsync(parent)
        except FileNotFoundError:
            return
        finally:
            os.close(temporary)
        self._discard(name)
        self._prune(prefix)

    def _discard(self, name: str) -> None:
        path = self.root / TEMPORARY / name
        try:
            os.unlink(path)
        except IsADirectoryError:
            shutil.rmtree(path, ignore_errors=True)

    def move(self, source: str, destination: str) -> None:
        with self._parent(source) as (parent, name):
            self._place(parent, name, destination)
        self._prune(source)

    def append(self, key: str) -> FileAppender:
        head, _, name = check_key(key).rpartition("/")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        for _ in range(_MAX_RACES):
            parent = self._make_directory(head)
            try:
                fd = openat2(parent, name, flags, 0o644, _CONFINED)
            except FileNotFoundError:
                continue
            finally:
                os.close(parent)
            return FileAppender(fd, os.fstat(fd).st_size)
        raise FileNotFoundError(errno.ENOENT, "its directory keeps vanishing", key)

    def upload_size(self, key: str) -> int:
        try:
            return self.stat(key).size
        except FileNotFoundError:
            return 0

    def seal(self, key: str) -> None:
        appender = self.append(key)
        try:
            assert appender.fd is not None
            os.fsync(appender.fd)
        finally:
            appender.close()

    def location(self, key: str, *, method: str) -> str | None:
        return None


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
