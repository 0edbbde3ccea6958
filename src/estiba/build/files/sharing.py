"""Files that become a layer's by another name instead of a copy.

A context is the build's own and nobody changes a file of it, so a link to it is as good as a copy
and needs no new inode: on ext4 to make one is most of the work of copying a small file.

An overlay takes no link from outside. It is made in the upper directory itself, beside the mount,
and only in a directory that the step has made: the overlay knows nothing of what is in it. Whoever
looks there through the mount later may not see the file, and until the layer is made nobody does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from estiba.kernel.confined import Resolve, openat2, opened_root

_PLACE = os.O_PATH | os.O_DIRECTORY
_HERE = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_XDEV


class Sharing:
    """Of one step. Call `close` at the end, or use `sharing`."""

    def __init__(self, root: Path, upper: int) -> None:
        self._root = root
        self._upper = upper
        self._last: tuple[int, str, int] | None = None

    def link(self, of: int, to: int, name: str) -> bool:
        """`name` of the directory `of` in the mounted directory `to` too.

        False when it cannot be: on another file system, or linked already, by whatever step of
        the build. Two names of one file stay one wherever layers lie on one another: `cp` finds
        them the same, and what keeps hard links makes such of them.
        """
        try:
            if _links(of, name) > 1:
                return False
            beside = self._beside(to)
            os.link(name, name, src_dir_fd=of, dst_dir_fd=beside, follow_symlinks=False)
            if _links(of, name) > 2:
                # Another stage was at it too.
                os.unlink(name, dir_fd=beside)
                return False
        except OSError:
            return False
        return True

    def _beside(self, to: int) -> int:
        """The directory of the upper tree that `to` shows. Raises OSError."""
        path = os.readlink(f"/proc/self/fd/{to}")
        if self._last is not None and self._last[:2] == (to, path):
            return self._last[2]
        self.close()
        place = openat2(self._upper, os.path.relpath(path, self._root), _PLACE, 0, _HERE)
        self._last = (to, path, place)
        return place

    def close(self) -> None:
        if self._last is not None:
            os.close(self._last[2])
            self._last = None


def _links(of: int, name: str) -> int:
    return os.stat(name, dir_fd=of, follow_symlinks=False).st_nlink


@contextmanager
def sharing(root: Path, upper: Path | None) -> Iterator[Sharing | None]:
    """None without an upper directory."""
    if upper is None:
        yield None
        return
    with opened_root(upper) as fd:
        shared = Sharing(root.resolve(), fd)
        try:
            yield shared
        finally:
            shared.close()
