"""Where in a tree something is put: directories made on the way, links followed inside it.

Without following, whatever stands in the way of a directory is replaced by one.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import OrderedDict

from estiba.build.files.model import MAX_DEPTH, shown_path
from estiba.kernel.confined import Resolve, open_in_root, openat2
from estiba.kernel.trees import remove_tree
from estiba.model.errors import InvalidArgument

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_BELOW = Resolve.BENEATH | Resolve.NO_SYMLINKS
_MAX_LINKS = 40
_MAX_CACHED = 64


class Destination:
    """The tree behind the open `root`; directories that it makes have `owner` and `mode`."""

    def __init__(
        self, root: int, owner: tuple[int, int], mode: int = 0o755, *, follows: bool
    ) -> None:
        self.root = root
        self.follows = follows
        self._owner = owner
        self._mode = mode

    def is_directory(self, path: str) -> bool:
        """Whether `path` is one, or a link to one that is followed."""
        flags = os.O_PATH | (0 if self.follows else os.O_NOFOLLOW)
        try:
            fd = open_in_root(self.root, path, flags)
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def directory(self, path: str) -> int:
        """A descriptor of the directory, made with its parents when it is missing.

        Raises InvalidArgument when something else is in the way.
        """
        try:
            return self._followed(path, 0) if self.follows else self._plain(path)
        except NotADirectoryError as error:
            raise InvalidArgument(f"cannot copy to non-directory: {shown_path(path)}") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV):
                raise InvalidArgument(
                    f"cannot copy to {shown_path(path)}: {error.strerror}"
                ) from error
            raise

    def file(self, path: str) -> tuple[int, str]:
        """(descriptor of the directory, name) for a file at `path`.

        A link there is followed inside the tree, to nothing too.
        """
        for _ in range(_MAX_LINKS):
            before, name = posixpath.split(path)
            if name in ("", ".", ".."):
                break
            parent = self.directory(before)
            try:
                target = os.readlink(name, dir_fd=parent) if self.follows else None
            except OSError:
                target = None
            if target is None:
                return parent, name
            os.close(parent)
            path = posixpath.join(before, target)
        raise InvalidArgument(f"cannot copy to {shown_path(path)}: it leads to no file")

    def _followed(self, path: str, links: int) -> int:
        try:
            return open_in_root(self.root, path, _DIRECTORY)
        except FileNotFoundError:
            pass
        before, name = posixpath.split(path.rstrip("/"))
        if not name or links > _MAX_LINKS:
            raise NotADirectoryError(errno.ENOTDIR, path)
        if path.count("/") > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} directories one in another")
        parent = self._followed(before, links)
        try:
            try:
                return self._made(parent, name)
            except FileExistsError:
                target = os.readlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotADirectoryError(errno.ENOTDIR, path) from error
            raise
        finally:
            os.close(parent)
        return self._followed(posixpath.join(before, target), links + 1)

    def _plain(self, path: str) -> int:
        current = open_in_root(self.root, "/", _DIRECTORY)
        try:
            for name in [part for part in path.split("/") if part]:
                try:
                    following = openat2(current, name, _DIRECTORY, 0, _BELOW)
                except FileNotFoundError:
                    following = self._made(current, name)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    os.unlink(name, dir_fd=current)
                    following = self._made(current, name)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        return current

    def _made(self, parent: int, name: str) -> int:
        """Raises FileExistsError."""
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = openat2(parent, name, _DIRECTORY, 0, _BELOW)
        try:
            os.fchown(fd, *self._owner)
            os.fchmod(fd, self._mode)
        except BaseException:
            os.close(fd)
            raise
        return fd


class Directories:
    """Descriptors of the directories below one, the last used kept open; no link is followed."""

    def __init__(self, base: int) -> None:
        """Takes `base` over."""
        self._base = base
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._base, *self._open.values()):
            os.close(fd)

    def get(self, path: str) -> int:
        """Valid until the next call. Raises OSError."""
        if not path:
            return self._base
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        fd = openat2(self._base, path, _DIRECTORY, 0, _BELOW)
        self._open[path] = fd
        if len(self._open) > _MAX_CACHED:
            os.close(self._open.popitem(last=False)[1])
        return fd


def clear(parent: int, name: str, path: str, *, replaces: bool) -> None:
    """Takes away what is in the way of a file.

    Raises InvalidArgument for a directory unless it `replaces` those too.
    """
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if not replaces:
        raise InvalidArgument(f"cannot replace the directory {path} with a file")
    remove_tree(name, dir_fd=parent)
