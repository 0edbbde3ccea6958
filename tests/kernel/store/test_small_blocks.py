"""The database on a full disk whose blocks are smaller than a page, as those of small ext4 are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.disks import ext4

from estiba.kernel.files import sync_file_system

_WRITER = """
import os, sys
from pathlib import Path
from estiba.store import EventBus, Store

root = Path(sys.argv[1])
store = Store.open(root / "estiba.db", EventBus(), reserve=root / "reserve")
known = len(store.load("container"))
store.commit_blocking(lambda tx: tx.put("container", str(known), b"{}", f"name{known}"))
print(known, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[Path]:
    with ext4(tmp_path, 64 << 20, "-b", "1024", "-m", "0") as root:
        yield root


def test_it_is_opened_and_written_after_a_kill(small_blocks: Path) -> None:
    """With room for a part of each page of the log's index."""
    for round_, blocks in enumerate((0, 10, 14, 20, 0)):
        done = subprocess.run(
            [sys.executable, "-c", _WRITER, str(small_blocks)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.returncode) == (f"{round_}\n", -9), done.stderr
        (small_blocks / "estiba.db-shm").unlink(missing_ok=True)
        leave(small_blocks, blocks)


def leave(point: Path, blocks: int) -> None:
    """Fills the disk but for these."""
    with (point / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 10):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
        assert os.statvfs(point).f_bavail == 0
        file.truncate(os.fstat(file.fileno()).st_size - blocks * 1024)
    sync_file_system(point)
