"""Directory trees, walked and removed by descriptors: nothing is followed, no depth is too great.

A container may nest directories deeper than any recursion goes and longer than any path
(PATH_MAX) can say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_PATH_BYTES = 4096
_MAX_OPEN = 128
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """`name` in the open directory `parent` is `path` below the root of the walk."""

    parent: int
    name: str
    path: str
    status: os.stat_result


@contextmanager
def opened_directory(path: Path | str) -> Iterator[int]:
    """A descriptor for reading a directory that is no symlink."""
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def walk(root: int, prefix: str = "", *, without: Collection[str] = ()) -> Iterator[Found]:
    """All below the open directory `root`, parents first, in the order of their names.

    `prefix` begins every path; the paths `without` and what is below them are left out, and so
    are paths over 4,096 bytes, which no program can name. What vanishes meanwhile is left out.
    """
    levels = [(root, prefix, iter(sorted(os.listdir(root))))]
    try:
        while levels:
            parent, before, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                if levels:
                    os.close(parent)
                continue
            path = before + name
            if path in without or len(os.fsencode(path)) > _MAX_PATH_BYTES:
                continue
            try:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Found(parent, name, path, status)
            if stat.S_ISDIR(status.st_mode):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    below = os.open(name, _DIRECTORY, dir_fd=parent)
                    levels.append((below, f"{path}/", iter(())))
                    levels[-1] = (*levels[-1][:2], iter(sorted(os.listdir(below))))
    finally:
        for fd, _, _ in levels[1:]:
            os.close(fd)


def tree_size(path: Path) -> int:
    """Bytes of the files below `path`, each file of several names once; 0 when it is gone."""
    total = 0
    seen: set[tuple[int, int]] = set()
    with contextlib.suppress(FileNotFoundError), opened_directory(path) as root:
        for found in walk(root):
            status = found.status
            inode = status.st_dev, status.st_ino
            if stat.S_ISDIR(status.st_mode) or inode in seen:
                continue
            if status.st_nlink > 1:
                seen.add(inode)
            total += status.st_size
    return total


def remove_tree(path: Path | str | bytes, *, dir_fd: int | None = None) -> None:
    """Deletes a directory and all below; what another deletes meanwhile is no error, and what
    another makes meanwhile goes as well, unless he makes more each time.

    Raises OSError.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            top = os.open(path, _DIRECTORY, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        try:
            _empty(top)
            os.rmdir(path, dir_fd=dir_fd)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not attempts_left:
                raise
        finally:
            os.close(top)


def discard_tree(path: Path | str) -> None:
    """`remove_tree`, as far as it goes."""
    with contextlib.suppress(OSError):
        remove_tree(path)


def _empty(top: int) -> None:
    """What is too deep is moved up below `top`, so that few descriptors do for any depth."""
    waiting = os.listdir(top)
    levels = [(top, "", waiting)]
    try:
        while levels:
            fd, own, names = levels[-1]
            if not names:
                levels.pop()
                if levels:
                    os.close(fd)
                    with contextlib.suppress(FileNotFoundError):
                        os.rmdir(own, dir_fd=levels[-1][0])
                continue
            name = names.pop()
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.unlink(name, dir_fd=fd)
                except IsADirectoryError:
                    if len(levels) < _MAX_OPEN:
                        below = os.open(name, _DIRECTORY, dir_fd=fd)
                        levels.append((below, name, os.listdir(below)))
                        continue
                    waiting.append(f".removed-{secrets.token_hex(8)}")
                    os.rename(name, waiting[-1], src_dir_fd=fd, dst_dir_fd=top)
    finally:
        for fd, _, _ in levels[1:]:
            os.close(fd)
