"""What a tree holds, to be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def describe(root: Path) -> dict[str, tuple]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode):
            content = status.st_rdev
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        found[str(path.relative_to(root))] = (
            kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, size,
            status.st_mtime_ns // 10**9, status.st_nlink if kind == stat.S_IFREG else 0,
            content, xattrs,
        )  # fmt: skip
    return found
