"""Where ext4 puts trees that have nothing to do with each other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from estiba.kernel.inode_flags import spread_subdirectories

pytestmark = pytest.mark.kernel

_ROOMY_BYTES = 32 << 30
_GROUP_INODES = 8192
"""As mke2fs makes them, or a multiple of that."""


def _file_system(path: Path) -> str:
    words = ["stat", "--file-system", "--format", "%T", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_trees_below_lie_apart_on_ext4(tmp_path: Path) -> None:
    if not _file_system(tmp_path).startswith("ext"):
        pytest.skip("the temporary directory is not on ext4")
    disk = os.statvfs(tmp_path)
    if disk.f_blocks * disk.f_frsize < _ROOMY_BYTES:
        pytest.skip("a small disk has too few block groups to choose from")
    spread, packed = tmp_path / "spread", tmp_path / "packed"
    for parent in (spread, packed):
        parent.mkdir()
    spread_subdirectories(spread)
    spread_subdirectories(spread)
    numbers = {}
    for parent in (spread, packed):
        made = [parent / str(number) for number in range(8)]
        for directory in made:
            directory.mkdir()
        inodes = [os.stat(directory).st_ino for directory in made]
        numbers[parent] = len({inode // _GROUP_INODES for inode in inodes})
    # A group that is full, or was lately, sends some of them to the next one.
    assert numbers[packed] < numbers[spread]
    assert numbers[spread] >= 4


def test_other_file_systems_are_left_as_they_are() -> None:
    spread_subdirectories(Path("/dev/shm"))
    spread_subdirectories(Path("/does/not/exist"))
