"""File systems of tests, gone with all that is mounted below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from estiba.kernel.mounts import mount, mounted_under, unmount


@contextmanager
def tmpfs(path: Path) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    mount("tmpfs", path, "tmpfs")
    try:
        yield path
    finally:
        for point in mounted_under(path):
            unmount(point)
