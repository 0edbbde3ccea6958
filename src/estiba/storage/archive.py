"""Files in and out of a container (`docker cp`): stat, get, put, all confined to its root.

`root` is a descriptor of the container's root directory, running or not; every path is
resolved by the kernel inside it, so a symlink swapped meanwhile leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from estiba.kernel.confined import open_in_root
from estiba.model.errors import InvalidArgument, NotFound
from estiba.storage.pack import pack_member
from estiba.storage.tar import Source, TarReader
from estiba.storage.unpack import Limits, UnpackOptions, unpack

_GO_MODES = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class PutOptions:
    no_overwrite_dir: bool = False
    owner: tuple[int, int] | None = None
    limits: Limits = field(default_factory=Limits)


def stat_path(root: int, path: str, shown: str = "") -> dict[str, Any]:
    """What the API's X-Docker-Container-Path-Stat header says; links are not followed.

    `shown` is the path as the container sees it, when `root` is that of a mount. Raises
    NotFound, InvalidArgument when the path leads through a file.
    """
    parent, name = _open_parent(root, path)
    try:
        status = _lstat(parent, name, path)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            target = _absolute_target(shown or path, os.readlink(name, dir_fd=parent))
        return {
            "name": posixpath.basename(posixpath.normpath(shown or path)) or "/",
            "size": status.st_size,
            "mode": go_mode(status.st_mode),
            "mtime": datetime.fromtimestamp(status.st_mtime, UTC)
            .isoformat()
            .replace("+00:00", "Z"),
            "linkTarget": target,
        }
    finally:
        os.close(parent)


def get_path(root: int, path: str, shown: str = "") -> Iterator[bytes]:
    """A tar of the file or directory; its entries are named after the last part of the path.

    A path that ends in `/.` gives the directory's content under `.`, and `/` everything under
    names that begin with a slash, which clients replace; `shown` as above.
    Raises NotFound, InvalidArgument when the path leads through a file.
    """
    parent, name = _open_parent(root, path)
    try:
        _lstat(parent, name, path)
        is_content = path == "." or path.endswith("/.")
        named = "." if is_content else posixpath.basename(posixpath.normpath(shown or path))
        yield from pack_member(parent, name, named)
    finally:
        os.close(parent)


def put_path(root: int, path: str, source: Source, options: PutOptions) -> None:
    """Unpacks a tar into the directory `path`.

    Raises NotFound, InvalidArgument when it is no directory or the archive is bad.
    """
    try:
        os.close(open_in_root(root, path, _DIRECTORY))
    except FileNotFoundError:
        raise _not_found(path) from None
    except NotADirectoryError:
        raise InvalidArgument(f"extraction point is not a directory: {path}") from None
    except OSError as error:
        raise InvalidArgument(f"cannot extract to {path}: {error.strerror}") from error
    unpack(
        TarReader(source),
        root,
        UnpackOptions(
            prefix=os.fsencode(path).strip(b"/"),
            owner=options.owner,
            no_overwrite_dir=options.no_overwrite_dir,
            limits=options.limits,
        ),
    )


def go_mode(mode: int) -> int:
    """Go's os.FileMode: permission bits, type and set-id bits in its own places."""
    value = stat.S_IMODE(mode) & 0o777
    value |= next((bit for test, bit in _GO_MODES if test(mode)), 0)
    value |= (1 << 23 if mode & stat.S_ISUID else 0) | (1 << 22 if mode & stat.S_ISGID else 0)
    return value | (1 << 20 if mode & stat.S_ISVTX else 0)


def _open_parent(root: int, path: str) -> tuple[int, str]:
    """The resolved directory of the last part, and that part; `.` for the root and `/.`."""
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/":
        directory, name = "/", "."
    elif path.endswith(("/.", "/")):
        directory, name = normal, "."
    else:
        directory, name = posixpath.split(normal)
    try:
        return open_in_root(root, directory, _DIRECTORY), name
    except NotADirectoryError as error:
        raise InvalidArgument(f"cannot look up {path}: not a directory") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):
            raise _not_found(path) from error
        raise


def _lstat(parent: int, name: str, path: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise _not_found(path) from error


def _absolute_target(path: str, target: str) -> str:
    if target.startswith("/"):
        return posixpath.normpath(target)
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _not_found(path: str) -> NotFound:
    return NotFound(f"Could not find the file {path}")
