"""Directories as members of a tar stream, made while they are walked: what a build is sent.

Owns the walk. It goes by directory descriptors and follows no symlink, leaves out what an ignore
file names without looking below it, and writes nothing anywhere. Sockets and devices are no part
of a context.
"""

from __future__ import annotations

import os
import stat

from estiba.client.errors import ClientError
from estiba.client.tarstream import BLOCK, DIRECTORY, FIFO, FILE, LINK, SYMLINK, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Decide = Callable[[str], bool]
    """Of a path below the root, with slashes."""

PIECE = 1 << 18
_MOST_DEPTH = 400
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MTIME_NS = 10**9


def gathered(members: Iterable[bytes]) -> Iterator[bytes]:
    """Small pieces together, so that they cost few system calls."""
    held: list[bytes] = []
    size = 0
    for piece in members:
        held.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Frame:
    """A directory that the walk is in."""

    __slots__ = ("entries", "fd", "is_told", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.entries: Iterator[tuple[str, int]] = iter(())
        self.is_told = False


class Tree:
    """A directory of the user's, sent below `prefix`.

    `excludes` says what is left out, `may_hold` whether something below a directory that is may
    be sent all the same. `bytes_sent` counts what has been read of files.
    """

    def __init__(
        self,
        root: str,
        prefix: str,
        excludes: Decide | None = None,
        may_hold: Decide | None = None,
    ) -> None:
        self._root = root
        self._prefix = prefix.encode(errors="surrogateescape")
        self._excludes = excludes
        self._may_hold = may_hold
        self._first_names: dict[tuple[int, int], bytes] = {}
        """Of files with several names, by device and inode."""
        self.bytes_sent = 0

    def members(self) -> Iterator[bytes]:
        """Raises ClientError naming the file that cannot be read."""
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(self._root, error) from None
        stack = [_Frame(root, "")]
        try:
            stack[0].entries = self._entries(root, "")
            yield from self._told(stack)
            while stack:
                entry = next(stack[-1].entries, None)
                if entry is None:
                    os.close(stack.pop().fd)
                    continue
                yield from self._entry(stack, *entry)
        finally:
            for frame in stack:
                os.close(frame.fd)

    def _entry(self, stack: list[_Frame], name: str, kind: int) -> Iterator[bytes]:
        parent = stack[-1]
        path = f"{parent.path}/{name}" if parent.path else name
        is_directory = kind == stat.S_IFDIR
        kept = self._excludes is None or not self._excludes(path)
        if is_directory and (kept or (self._may_hold is not None and self._may_hold(path))):
            fd = self._enter(parent.fd, name, path, depth=len(stack))
            if fd is not None:
                stack.append(_Frame(fd, path))
                stack[-1].entries = self._entries(fd, path)
        if kept:
            yield from self._told(stack)
            if not is_directory:
                yield from self._leaf(parent.fd, name, path, kind)

    def _told(self, stack: list[_Frame]) -> Iterator[bytes]:
        """Directories on the way that have not been sent: those left out, but for some files."""
        for frame in stack:
            if not frame.is_told:
                frame.is_told = True
                path = os.fsencode(frame.path)
                yield self._head(path + b"/" if path else b"", DIRECTORY, os.fstat(frame.fd))

    def _entries(self, fd: int, path: str) -> Iterator[tuple[str, int]]:
        """In order of their names, with their kinds."""
        try:
            with os.scandir(fd) as scanned:
                found = sorted((entry.name, _kind(entry)) for entry in scanned)
        except OSError as error:
            raise _unreadable(self._shown(path), error) from None
        return iter(found)

    def _enter(self, parent: int, name: str, path: str, *, depth: int) -> int | None:
        """None when it has gone in the meantime."""
        if depth >= _MOST_DEPTH:
            raise ClientError(
                f"{self._shown(path)}: more than {_MOST_DEPTH} directories in one another; leave "
                "it out with a line in .dockerignore"
            )
        try:
            return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(self._shown(path), error) from None

    def _leaf(self, parent: int, name: str, path: str, kind: int) -> Iterator[bytes]:
        try:
            if kind == stat.S_IFLNK:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                target = os.fsencode(os.readlink(name, dir_fd=parent))
                yield self._head(os.fsencode(path), SYMLINK, status, target=target)
                return
            if kind == stat.S_IFIFO:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                yield self._head(os.fsencode(path), FIFO, status)
                return
            fd = os.open(name, _OPEN_FILE, dir_fd=parent) if kind == stat.S_IFREG else -1
        except FileNotFoundError:
            # As if it had gone before the walk began.
            return
        except OSError as error:
            raise _unreadable(self._shown(path), error) from None
        if fd < 0:
            return
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ClientError(f"{self._shown(path)} was replaced while it was being sent")
            yield from self._file(fd, path, status)
        finally:
            os.close(fd)

    def _file(self, fd: int, path: str, status: os.stat_result) -> Iterator[bytes]:
        """With its content at the first of its names."""
        if status.st_nlink > 1:
            first = self._first_names.setdefault(
                (status.st_dev, status.st_ino), self._name(os.fsencode(path))
            )
            if first != self._name(os.fsencode(path)):
                yield self._head(os.fsencode(path), LINK, status, target=first)
                return
        yield self._head(os.fsencode(path), FILE, status, size=status.st_size)
        yield from self._content(fd, path, status.st_size)

    def _content(self, fd: int, path: str, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes and the padding: the header has promised them."""
        left = size
        while left:
            try:
                data = os.read(fd, min(PIECE, left))
            except OSError as error:
                raise _unreadable(self._shown(path), error) from None
            if not data:
                raise ClientError(
                    f"{self._shown(path)} became shorter while it was being sent "
                    f"({size - left} of {size} bytes): build again when nothing writes to it"
                )
            left -= len(data)
            self.bytes_sent += len(data)
            yield data
        if size % BLOCK:
            yield bytes(-size % BLOCK)

    def _head(
        self,
        path: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        target: bytes = b"",
    ) -> bytes:
        return header(
            self._name(path),
            kind,
            mode=stat.S_IMODE(status.st_mode),
            size=size,
            mtime=status.st_mtime_ns // _MTIME_NS,
            target=target,
        )

    def _name(self, path: bytes) -> bytes:
        return b"%b/%b" % (self._prefix, path)

    def _shown(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root


def _kind(entry: os.DirEntry[str]) -> int:
    """As `stat` has it, mostly without asking the file system again."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    try:
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0


def _unreadable(path: str, error: OSError) -> ClientError:
    reason = (error.strerror or str(error)).lower()
    return ClientError(
        f"cannot send {path} to the builder: {reason}; make it readable or leave it out with a "
        "line in .dockerignore"
    )
