"""Files of an image's root, which may be anything: read with limits, followed nowhere outside.

A path is resolved by the kernel below the root, only regular files are opened for reading (to
open a device or a FIFO may do something), and nothing is read beyond its limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel.confined import open_in_root
from estiba.kernel.trees import Found, opened_directory, walk
from estiba.model.errors import LimitExceeded

_CHUNK = 1 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EXDEV, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What looking through one root may take."""

    entries: int = 2_000_000
    seconds: float = 120.0
    total_bytes: int = 1 << 30


DEFAULT_LIMITS = TreeLimits()


@dataclass(slots=True)
class Tree:
    """One root, looked through once."""

    root: int
    limits: TreeLimits
    ends_at: float
    left_bytes: int
    entries: int = 0

    def read(self, path: str, limit: int) -> bytes | None:
        """The file's first `limit` bytes; None when no regular file is there."""
        try:
            fd = open_in_root(self.root, path, os.O_PATH)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return self._read(fd, limit)

    def read_found(self, found: Found, limit: int) -> bytes | None:
        """As `read`, of what the walk has found."""
        try:
            fd = os.open(found.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=found.parent)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return self._read(fd, limit)

    def _read(self, fd: int, limit: int) -> bytes | None:
        try:
            with _reading(fd) as file:
                if file is None:
                    return None
                pieces: list[bytes] = []
                while limit > 0 and (piece := os.read(file, min(_CHUNK, limit))):
                    self.count(len(piece))
                    limit -= len(piece)
                    pieces.append(piece)
                return b"".join(pieces)
        finally:
            os.close(fd)

    @contextmanager
    def opened(self, found: Found) -> Iterator[int | None]:
        """A descriptor to read a found file by; None when it is no regular file."""
        try:
            fd = os.open(found.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=found.parent)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            yield None
            return
        try:
            with _reading(fd) as file:
                yield file
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted; nothing when there is none."""
        try:
            fd = open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def files(self) -> Iterator[Found]:
        """All regular files, in the order of their names. Raises LimitExceeded."""
        fd = open_in_root(self.root, "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.closing(_walk(fd)) as every:
                for found in every:
                    self.entries += 1
                    if self.entries > self.limits.entries:
                        raise LimitExceeded(
                            f"the image has more than {self.limits.entries} files: its packages "
                            "cannot be listed"
                        )
                    self.count(0)
                    if stat.S_ISREG(found.status.st_mode):
                        yield found
        finally:
            os.close(fd)

    def count(self, size: int) -> None:
        """Raises LimitExceeded when too much was read, or it takes too long."""
        self.left_bytes -= size
        if self.left_bytes < 0:
            raise LimitExceeded(
                f"the image's package lists have more than {self.limits.total_bytes} bytes"
            )
        if time.monotonic() > self.ends_at:
            raise LimitExceeded(
                f"the image's packages were not listed within {self.limits.seconds:g} seconds"
            )


def _walk(fd: int) -> Generator[Found, None, None]:
    yield from walk(fd)


@contextmanager
def _reading(fd: int) -> Iterator[int | None]:
    """What stands behind an O_PATH descriptor, opened for reading once it is a regular file."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        yield None
        return
    file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def opened_tree(root: Path, limits: TreeLimits = DEFAULT_LIMITS) -> Iterator[Tree]:
    """`root` itself is trusted."""
    with opened_directory(root) as fd:
        yield Tree(fd, limits, time.monotonic() + limits.seconds, limits.total_bytes)


def printable(path: str) -> str:
    """A name of the file system as text, whatever its bytes."""
    return os.fsencode(path).decode(errors="replace")
