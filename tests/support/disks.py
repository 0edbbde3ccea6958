"""File systems of a test's own, on files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from estiba.kernel.loop import attached, is_attached
from estiba.kernel.mounts import mount, unmount
from tests.support.daemon import wait_until


@contextmanager
def ext4(folder: Path, size_bytes: int, *options: str) -> Iterator[Path]:
    """The root of one that `mkfs.ext4` makes with `options`; it is gone afterwards."""
    image, point = folder / "image", folder / "point"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, image], check=True)
    point.mkdir()
    with attached(image) as device:
        mount(str(device), point, "ext4")
    try:
        yield point
    finally:
        unmount(point)
        wait_until(lambda: not is_attached(image), what="the disk to go")
