"""Whatever steps do to a tree: their layers, unpacked elsewhere, make the same one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.leaks import HostState, assert_clean
from tests.support.trees import describe

from estiba.images.importing import IteratorSource
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces

pytestmark = pytest.mark.kernel

_NAMES = [
    b"a",
    b"b",
    b"c",
    b"usr",
    b"lib",
    b"etc",
    b"x" * 120,
    "ñandú".encode(),
    b"\xff\xfe",
    b".w",
]
_SIZES = (0, 1, 511, 512, 513, 4096, 200_000)
_TARGETS = (b"a", b"/nowhere/at/all", b"nowhere/" * 20, b"\xff")
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


class Steps:
    """Random changes below `root`; which one depends on the seed alone."""

    def __init__(self, root: Path, seed: random.Random) -> None:
        self.root, self.random = os.fsencode(root), seed

    def run(self, count: int) -> None:
        for _ in range(count):
            # Many changes make no sense where they fall; then they are none.
            with contextlib.suppress(OSError, shutil.Error):
                self.random.choice(_CHANGES)(self)

    def directories(self) -> list[bytes]:
        found = [self.root]
        for parent, names, _ in sorted(os.walk(self.root)):
            found += [
                path
                for name in sorted(names)
                if not os.path.islink(path := os.path.join(parent, name))
            ]
        return [path for path in found if path.count(b"/") - self.root.count(b"/") < 6]

    def place(self) -> bytes:
        """Perhaps something stands there, perhaps nothing."""
        return os.path.join(self.random.choice(self.directories()), self.random.choice(_NAMES))

    def any(self, kind: Callable[[int], bool] | None = None) -> bytes:
        """Something that stands there. Raises OSError when there is nothing."""
        found = [
            path
            for directory in self.directories()
            for name in sorted(os.listdir(directory))
            if (path := os.path.join(directory, name))
            and (kind is None or kind(os.lstat(path).st_mode))
        ]
        if not found:
            raise FileNotFoundError
        return self.random.choice(found)

    def write(self) -> None:
        """No link is followed: it may lead out of the tree, to the host."""
        how = self.random.choice((os.O_CREAT | os.O_TRUNC, os.O_APPEND, os.O_CREAT, 0))
        path, data = self.place(), self.random.randbytes(self.random.choice(_SIZES))
        if not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode):
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | how, 0o644)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)

    def truncate(self) -> None:
        os.truncate(self.any(stat.S_ISREG), self.random.choice((0, 7, 1 << 20)))

    def make_directory(self) -> None:
        os.mkdir(self.place(), self.random.choice((0o700, 0o755, 0o1777)))

    def remove(self) -> None:
        path = self.any()
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def replace(self) -> None:
        """By something of another kind."""
        path = self.any()
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
        shutil.rmtree(path) if is_directory else os.unlink(path)
        if is_directory and self.random.random() < 0.5:
            Path(os.fsdecode(path)).write_bytes(b"was a directory")
        else:
            os.mkdir(path)
            Path(os.fsdecode(path), "inside").write_bytes(b"was something")

    def rename(self) -> None:
        source, target = self.any(), self.place()
        try:
            os.rename(source, target)
        except OSError:  # a directory of a layer below: as mv(1) does it
            subprocess.run(["mv", "-T", "--", source, target], capture_output=True, check=False)

    def link(self) -> None:
        os.link(self.any(), self.place(), follow_symlinks=False)

    def symlink(self) -> None:
        os.symlink(
            self.random.choice((b"a", b"/nowhere/at/all", b"nowhere/" * 20, b"\xff")), self.place()
        )

    def node(self) -> None:
        kind, device = self.random.choice(
            (
                (stat.S_IFIFO, 0),
                (stat.S_IFCHR, os.makedev(1, 5)),
                (stat.S_IFBLK, os.makedev(7, 300)),
            )
        )
        os.mknod(self.place(), kind | 0o640, device)

    def mode(self) -> None:
        os.chmod(self.any(lambda mode: not stat.S_ISLNK(mode)),
                 self.random.choice((0o400, 0o644, 0o4755, 0o2711, 0o1777)))  # fmt: skip

    def owner(self) -> None:
        ids = (0, 1000, 70_000, 3_000_000)
        os.lchown(self.any(), self.random.choice(ids), self.random.choice(ids))

    def attribute(self) -> None:
        path = self.any(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        os.setxattr(path, b"user.note", self.random.randbytes(self.random.choice((0, 3, 300))))

    def capability(self) -> None:
        os.setxattr(self.any(stat.S_ISREG), b"security.capability", _CAPABILITY)

    def time(self) -> None:
        seconds = self.random.choice((-70_000, 0, 1_700_000_000, 9_000_000_000))
        os.utime(self.any(), ns=(0, seconds * 10**9 + 5), follow_symlinks=False)

    def root_itself(self) -> None:
        os.chmod(self.root, self.random.choice((0o755, 0o700, 0o1777)))


_CHANGES: list[Callable[[Steps], None]] = [
    *[Steps.write] * 8, *[Steps.make_directory] * 8, *[Steps.link] * 2, *[Steps.symlink] * 2,
    *[Steps.rename] * 2, Steps.remove, Steps.replace, Steps.node, Steps.mode, Steps.owner,
    Steps.attribute, Steps.capability, Steps.time, Steps.truncate, Steps.root_itself,
]  # fmt: skip


def whole(spaces: Workspaces, lower: list) -> dict[str, tuple]:
    """Hard links too: names of one inode have its first name."""
    with spaces.view(lower) as root:
        found = describe(root)
        first: dict[int, str] = {}
        for path in found:
            status = (root / path).lstat()
            if stat.S_ISREG(status.st_mode):
                found[path] = (*found[path], first.setdefault(status.st_ino, path))
        status = root.stat()
        found["."] = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return found


def without_counts(tree: dict[str, tuple]) -> dict[str, tuple]:
    """Without the number of names: those hidden by layers above count in a layer below."""
    return {path: (*facts[:6], *facts[7:]) for path, facts in tree.items()}


@pytest.mark.parametrize("seed", range(12))
def test_layers_of_random_steps_make_the_same_tree_elsewhere(tmp_path: Path, seed: int) -> None:
    before = HostState.read(only=str(tmp_path))
    here, there = (LayerStore(tmp_path / name / "images", Limits()) for name in ("here", "there"))
    spaces, others = (
        Workspaces(tmp_path / "here/build", here),
        Workspaces(tmp_path / "there/build", there),
    )
    for store in (here, there, spaces, others):
        store.open()
    changes = random.Random(seed)
    stack: list = []
    with ThreadPoolExecutor(2) as pool:
        commits = []
        for number in range(6):
            spaces.prepare(f"step{number}", stack)
            with spaces.mounted(f"step{number}") as root:
                Steps(root, changes).run(100)
            stack.append(spaces.freeze(f"step{number}"))
            commits.append(pool.submit(spaces.commit, stack[-1], lambda _: None))
        infos = [commit.result() for commit in commits]
    expected = whole(spaces, stack)
    assert len(expected) > 5
    ids = [info.diff_id for info in infos]
    assert [there.ingest(IteratorSource(here.tar(diff_id))) for diff_id in ids] == infos
    assert whole(others, ids) == expected
    below = changes.randrange(5)
    merged = others.commit(others.merged(ids[below:], "merged", below=ids[:below]), lambda _: None)
    found = whole(others, [*ids[:below], merged.diff_id])
    assert without_counts(found) == without_counts(expected)
    assert_clean(before, only=str(tmp_path))
