"""A tree read entry by entry, parents first, each in the order of names; nothing is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from estiba.build.files.digest import Contents
from estiba.build.files.model import MAX_DEPTH, MAX_ENTRIES, Entry
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import Resolve, openat2
from estiba.model.errors import LimitExceeded

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT_XATTRS = ("user.", "security.capability")
_FORBIDDEN_XATTRS = ("user.overlay.",)
_MAX_PATH_BYTES = 4096


_Level = tuple[int, str, Iterator[str]]
"""(open directory, its path with a slash, names that are left)"""


class Decision(NamedTuple):
    """Whether an entry is taken, and whether a directory is entered."""

    takes: bool
    enters: bool


def read_entry(root: int, path: str, shown: str, contents: Contents) -> Entry | None:
    """The file `path` below the open `root`, no link on the way. None for a socket."""
    parent_path, _, name = path.rpartition("/")
    flags = os.O_PATH | os.O_DIRECTORY
    parent = openat2(root, parent_path or ".", flags, 0, Resolve.NO_SYMLINKS | Resolve.BENEATH)
    try:
        return _entry(parent, name, shown, contents)
    finally:
        os.close(parent)


def walk_tree(
    top: int, decide: Callable[[str], Decision], contents: Contents, cancel: CancelToken
) -> list[Entry]:
    """All below the open directory `top` that is taken, with the directories that lead there.

    Raises LimitExceeded, Cancelled, OSError.
    """
    entries: list[Entry] = []
    pending: list[Entry | None] = [None]
    levels: list[_Level] = [(top, "", iter(sorted(os.listdir(top))))]
    try:
        while levels:
            parent, before, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                pending.pop()
                if levels:
                    os.close(parent)
                continue
            path = before + name
            decision = decide(path)
            if not (decision.takes or decision.enters):
                continue
            cancel.check()
            entry = _found(parent, name, path, contents, decision)
            if entry is None:
                continue
            is_directory = stat.S_ISDIR(entry.mode)
            if decision.takes:
                entries += [each for each in pending if each is not None]
                pending = [None] * len(pending)
                entries.append(entry)
                if len(entries) > MAX_ENTRIES:
                    raise LimitExceeded(f"more than {MAX_ENTRIES} files to copy")
            if is_directory and (decision.takes or decision.enters):
                levels.append(_entered(parent, name, path, len(levels)))
                pending.append(None if decision.takes else entry)
    finally:
        for fd, _, _ in levels[1:]:
            os.close(fd)
    return entries


def _entered(parent: int, name: str, path: str, depth: int) -> _Level:
    if depth > MAX_DEPTH:
        raise LimitExceeded(f"a tree of more than {MAX_DEPTH} directories one in another")
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        return fd, f"{path}/", iter(sorted(os.listdir(fd)))
    except BaseException:
        os.close(fd)
        raise


def _found(
    parent: int, name: str, path: str, contents: Contents, decision: Decision
) -> Entry | None:
    """None when it is nothing to copy, or has vanished."""
    if not decision.takes:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return None
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise LimitExceeded(f"a path of over {_MAX_PATH_BYTES} bytes")
    return _entry(parent, name, path, contents)


def _entry(parent: int, name: str, path: str, contents: Contents) -> Entry | None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            entry = _made(path, status)
            entry.xattrs = _xattrs(fd)
        except BaseException:
            os.close(fd)
            raise
        contents.add(entry, fd)
        return entry
    if stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and not status.st_rdev):
        return None
    entry = _made(path, status)
    if stat.S_ISLNK(status.st_mode):
        entry.link = os.readlink(name, dir_fd=parent)
    elif stat.S_ISDIR(status.st_mode):
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            entry.xattrs = _xattrs(fd)
        finally:
            os.close(fd)
    return entry


def _made(path: str, status: os.stat_result) -> Entry:
    is_file = stat.S_ISREG(status.st_mode)
    return Entry(
        path=path,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if is_file else 0,
        mtime_ns=status.st_mtime_ns,
        inode=(status.st_dev, status.st_ino) if is_file and status.st_nlink > 1 else None,
        rdev=status.st_rdev,
    )


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(fd)
    except OSError:
        return ()
    kept = sorted(
        name
        for name in names
        if name.startswith(_KEPT_XATTRS) and not name.startswith(_FORBIDDEN_XATTRS)
    )
    return tuple((name, os.getxattr(fd, name)) for name in kept)
