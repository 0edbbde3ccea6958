"""What is mounted now, whatever bytes the names of mount points are made of.

Each test has its mounts in a namespace of its own: other programs of the host may not like them.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

NAMES = [
    b"plain",
    "données".encode(),
    b"no \xff\xfe UTF-8",
    b"blank tab\tline\nback\\slash \\134 #hash",
    b"carriage\rreturn",
    b"form\x0cfeed\x1c\xc2\x85\xe2\x80\xa8",
]
_BEGIN = """
import os, sys
from pathlib import Path
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.mounts import (
    MountFlag, file_system_of, is_mounted, mount, mounted_under, peers_of, unmount,
)

def memory_at(directory, name):
    path = directory / os.fsdecode(name)
    path.mkdir()
    mount("tmpfs", path, "tmpfs")
    return path

root, name = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
"""


def in_own_mounts(root: Path, name: bytes, script: str) -> None:
    code = _BEGIN + textwrap.dedent(script)
    command = ["unshare", "--mount", sys.executable, "-c", code, str(root), name.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_mount_is_found_by_its_name(tmp_path: Path, name: bytes) -> None:
    script = """
        path = memory_at(root, name)
        assert is_mounted(path)
        assert list(mounted_under(root)) == [path]
        mount("", path, "", MountFlag.SHARED)
        assert peers_of(path) == {"shared"}
        assert file_system_of(os.open(path, os.O_RDONLY)) == "tmpfs"
        unmount(path)
        assert not is_mounted(path)
    """
    in_own_mounts(tmp_path, name, script)


@pytest.mark.parametrize("name", NAMES)
def test_a_strange_name_hides_no_other_mount(tmp_path: Path, name: bytes) -> None:
    """Any user of the host may have one, by FUSE for example."""
    script = """
        before = Hierarchies.detect()
        memory_at(root, name)
        other = memory_at(root, b"other")
        assert is_mounted(other)
        assert is_mounted(Path("/proc"))
        assert Hierarchies.detect() == before
    """
    in_own_mounts(tmp_path, name, script)


def test_mounts_below_come_deepest_first(tmp_path: Path) -> None:
    script = """
        one = memory_at(root, name)
        two = memory_at(one, b"two")
        three = memory_at(two, b"three")
        memory_at(root, name + b" more")
        assert list(mounted_under(one)) == [three, two, one]
    """
    in_own_mounts(tmp_path, b"one", script)
