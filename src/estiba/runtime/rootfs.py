"""What the runtimes take for granted of a container's root, made true before they see it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from estiba.kernel.confined import opened_root

_MOUNT_POINTS = ("dev", "proc", "sys")


def ensure_mount_points(rootfs: Path) -> None:
    """Makes /dev, /proc and /sys directories, whatever the image or a `cp` put there.

    runc 1.1 makes the links below /dev by their plain path before it has changed root, so with
    a symlink there it would make them on the host. Docker's init layer has the same effect.
    """
    with opened_root(rootfs) as root:
        for name in _MOUNT_POINTS:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=root, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    continue
                os.unlink(name, dir_fd=root)
            os.mkdir(name, 0o755, dir_fd=root)
