"""What tests of volumes with a file system or a cipher of their own share."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from estiba.store import Store
from estiba.store.events import EventBus
from estiba.volumes.stored import stored_kind
from estiba.volumes.volumes import Volumes

KINDS: dict[str, dict[str, str]] = {
    "plain": {},
    "sized": {"size": "24m"},
    "fscrypt": {"size": "24m", "encrypted": ""},
    "gocryptfs": {"encrypted": "gocryptfs"},
}


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Volumes]:
    """The volumes of an engine that starts and finds nobody using them."""
    store = Store.open(root / "estiba.db", EventBus())
    try:
        volumes = Volumes(root / "volumes", store, kinds=[stored_kind(root / "keys")])
        volumes.start()
        volumes.restore({})
        yield volumes
    finally:
        store.close()


SCRIPT = """
import sys
from pathlib import Path
from tests.support.stored import opened
root = Path(sys.argv[1])
with opened(root) as volumes:
"""


def command(body: str) -> list[str]:
    """A process that runs `body` with `volumes`, once the root is added as an argument."""
    return [sys.executable, "-c", SCRIPT + textwrap.indent(textwrap.dedent(body), "    ")]


def killed(root: Path, body: str, point: str) -> int:
    """Runs `body` in a process of its own that dies at the failpoint; the return code."""
    return subprocess.run(
        [*command(body), os.fspath(root)],
        env={**os.environ, "ESTIBA_FAILPOINTS": f"{point}=kill"},
        check=False,
    ).returncode


def write_tree(root: Path) -> None:
    """One of each kind that a file can be."""
    (root / "sub").mkdir()
    (root / "sub").chmod(0o1770)
    (root / "file").write_bytes(b"data" * 1000)
    (root / "file").chmod(0o4711)
    os.chown(root / "file", 1234, 4321)
    (root / "file").chmod(0o4711)
    os.setxattr(root / "file", "user.note", b"kept")
    os.link(root / "file", root / "sub" / "same")
    (root / "link").symlink_to("../../../etc/passwd")
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (root / "holes").open("wb") as file:
        file.seek(4 << 20)
        file.write(b"after the hole")
        file.truncate(8 << 20)
    os.utime(root / "file", ns=(1_000_000_001, 1_234_567_890_123_456_789))
    os.utime(root / "sub", ns=(1, 987_654_321_000_000_007))
    root.chmod(0o750)
    os.chown(root, 99, 98)


def assert_tree(root: Path, *, holes: bool = True) -> None:
    assert sorted(os.listdir(root)) == ["file", "holes", "link", "null", "pipe", "sub"]
    status = (root / "file").stat()
    assert (root / "file").read_bytes() == b"data" * 1000
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4711, 1234, 4321)
    assert status.st_mtime_ns == 1_234_567_890_123_456_789
    assert os.getxattr(root / "file", "user.note") == b"kept"
    assert (root / "sub" / "same").stat().st_ino == status.st_ino
    assert (root / "sub").stat().st_mtime_ns == 987_654_321_000_000_007
    assert stat.S_IMODE((root / "sub").stat().st_mode) == 0o1770
    assert os.readlink(root / "link") == "../../../etc/passwd"
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    sparse = (root / "holes").stat()
    assert sparse.st_size == 8 << 20
    with (root / "holes").open("rb") as file:
        file.seek((4 << 20) - 1)
        assert file.read(16) == b"\0after the hole\0"
    if holes:
        assert sparse.st_blocks * 512 < 1 << 20, "holes stay holes"
    top = root.stat()
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (99, 98, 0o750)
