"""Files that are either wholly there or not at all, and files that are changed in place."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from estiba.kernel.libc import check, libc

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Writes a temporary file beside `path` and renames it into place.

    With `durable` the file and its directory are flushed, so that it survives a power cut.
    Raises OSError; the old content stays then.
    """
    # Two threads may write the same file at once.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(path.parent)


def write_all(file: BinaryIO, data: bytes) -> None:
    """All of it, to a file without a buffer: where the disk has room for a part the kernel takes
    that, and refuses the rest only when it is asked to take it. Raises OSError.
    """
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def edit_in_place(path: Path, edit: Callable[[bytes], bytes], *, limit: int) -> None:
    """Changes the content of a file that others have open or mounted: it stays the same file.

    Raises OSError: ELOOP for a link, EINVAL for what is no plain file, EFBIG for more than
    `limit` bytes. The content is as it was then, unless the disk failed.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb+", buffering=0):
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if info.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        old = os.pread(fd, limit, 0)
        new = edit(old)
        if new == old:
            return
        if len(new) > info.st_size:
            # Room for all of it first, or what is there would be cut off on a full disk.
            os.posix_fallocate(fd, 0, len(new))
        view = memoryview(new)
        done = 0
        while done < len(new):
            done += os.pwrite(fd, view[done:], done)
        os.ftruncate(fd, len(new))


def sync_directory(path: Path) -> None:
    """Flushes the directory's entries to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Flushes all of the file system that holds `path` (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(libc.syncfs(fd), f"syncfs {path}")
    finally:
        os.close(fd)


def exchange(one: Path, other: Path) -> None:
    """Each takes the other's place, in one step (renameat2(2), Linux 3.15). Raises OSError."""
    names = os.fsencode(one), os.fsencode(other)
    result = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    check(result, f"exchange {one} and {other}")


def data_parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """From where to where the file of `size` bytes is no hole; all of it where nobody can say."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = offset, size
        yield start, min(end, size)
        offset = end
