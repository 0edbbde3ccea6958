"""Disk space set aside, so that the state can be written when the disk is full.

Without it nothing could be stopped or removed then, and removal is what makes room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_BYTES = 4 << 20
_STEP_BYTES = 256 << 10
_LEFT_FREE_BYTES = 16 << 20


class Reserve:
    """A file that is given up piece by piece, and filled again when there is room.

    Without a path there is nothing to give.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path or Path()
        self._bytes = _BYTES if path else 0
        self._size = path.stat().st_size if path and path.exists() else 0

    def fill(self) -> None:
        """Makes it whole, if that leaves the disk some room; a disk that fails is no error."""
        if self._size >= self._bytes:
            return
        with contextlib.suppress(OSError):
            room = os.statvfs(self._path.parent)
            if room.f_bavail * room.f_frsize < _BYTES + _LEFT_FREE_BYTES:
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _BYTES)
                self._size = _BYTES
            finally:
                os.close(fd)

    def give(self) -> bool:
        """Gives a piece back to the disk; False when nothing is left."""
        if not self._size:
            return False
        self._size = max(0, self._size - _STEP_BYTES)
        try:
            os.truncate(self._path, self._size)
        except OSError:
            return False
        return True
