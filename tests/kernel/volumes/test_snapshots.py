"""Clones, snapshots and new names: whole or not at all, on every kind of volume."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.daemon import wait_until
from tests.support.leaks import HostState
from tests.support.stored import KINDS, assert_tree, killed, opened, write_tree

from estiba.kernel.files import sync_file_system
from estiba.kernel.loop import attached, is_attached
from estiba.kernel.mounts import mount, unmount
from estiba.model.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from estiba.volumes.clones import clone
from estiba.volumes.snapshots import Snapshots
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import held, rename

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_clone_is_the_same_and_apart(volumes: Volumes, options: dict[str, str]) -> None:
    volumes.create("one", options=options, labels={"a": "b"})
    with held(volumes, "one") as data:
        write_tree(data)
    record = clone(volumes, "one", "two", labels={"c": "d"})
    assert (record.name, record.options, record.labels) == ("two", options, {"a": "b", "c": "d"})
    # gocryptfs tells of no holes.
    holes = "gocryptfs" not in options.values()
    with held(volumes, "two") as data:
        assert_tree(data, holes=holes)
        (data / "file").write_text("other")
    with held(volumes, "one") as data:
        assert_tree(data)
    with pytest.raises(AlreadyExists, match="volume two exists already"):
        clone(volumes, "one", "two")
    with pytest.raises(NotFound):
        clone(volumes, "none", "three")
    with pytest.raises(InvalidArgument):
        clone(volumes, "one", "../three")


def test_a_clone_may_be_of_another_kind(volumes: Volumes, tmp_path: Path) -> None:
    """So a limit or encryption is given to files that are there already."""
    volumes.create("plain")
    with held(volumes, "plain") as data:
        write_tree(data)
    clone(volumes, "plain", "vault", options={"size": "24m", "encrypted": ""})
    with held(volumes, "vault") as data:
        assert_tree(data)
    clone(volumes, "vault", "open", options={})
    with held(volumes, "open") as data:
        assert_tree(data)
    other = tmp_path / "other"
    other.mkdir()
    write_tree(other)
    options = {"type": "none", "device": str(other), "o": "bind"}
    volumes.create("bound", options=options)
    assert clone(volumes, "bound", "own").options == {}, "a copy, not the same place once more"
    with held(volumes, "own") as data:
        assert_tree(data)


def test_what_does_not_fit_leaves_nothing(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("big")
    with held(volumes, "big") as data:
        (data / "file").write_bytes(os.urandom(32 << 20))
    with pytest.raises(OSError, match="No space left") as raised:
        clone(volumes, "big", "small", options={"size": "16m", "encrypted": ""})
    assert raised.value.errno == errno.ENOSPC
    assert [one.name for one in volumes.volumes()] == ["big"]
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["big"]
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_snapshots(volumes: Volumes, options: dict[str, str]) -> None:
    snapshots = Snapshots(volumes)
    volumes.create("data", options=options)
    with held(volumes, "data") as data:
        write_tree(data)
        made = snapshots.create("data", "first")
        assert made.size == (8 << 20) + 4000
        (data / "file").unlink()
        (data / "new").write_text("new")
        assert snapshots.create("data").tag > "2"
        with pytest.raises(Conflict, match="in use now"):
            snapshots.rollback("data", "first")
        assert sorted(os.listdir(data)) == ["holes", "link", "new", "null", "pipe", "sub"]
    first, second = snapshots.list("data")
    assert first == made
    with pytest.raises(AlreadyExists, match="has a snapshot first already"):
        snapshots.create("data", "first")
    for wrong in ("../up", ".part-1", "a/b", "-x", ""):
        with pytest.raises(NotFound):
            snapshots.rollback("data", wrong)
        with pytest.raises(NotFound):
            snapshots.remove("data", wrong)
        with pytest.raises(InvalidArgument):
            snapshots.create("data", wrong or "x" * 129)
    for _ in range(2):
        snapshots.rollback("data", "first")
        with held(volumes, "data") as data:
            assert_tree(data, holes="gocryptfs" not in options.values())
            (data / "file").write_text("changed again")
    assert volumes.usage("data") > 0
    snapshots.remove("data", "first")
    assert [one.tag for one in snapshots.list("data")] == [second.tag]
    volumes.remove("data")


def test_snapshots_count(volumes: Volumes) -> None:
    snapshots = Snapshots(volumes)
    volumes.create("data")
    with held(volumes, "data") as data:
        (data / "file").write_bytes(bytes(5000))
    snapshots.create("data", "one")
    assert volumes.usage("data") >= 10000
    freed = volumes.prune(is_used=lambda name: False, is_wanted=lambda record: True)
    assert freed["data"] >= 10000


def test_files_elsewhere_have_no_snapshots(volumes: Volumes) -> None:
    volumes.create("ram", options={"type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(Conflict, match="clone it, and work on the copy"):
        Snapshots(volumes).create("ram")


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_new_name(volumes: Volumes, tmp_path: Path, options: dict[str, str]) -> None:
    volumes.create("old", options=options, labels={"a": "b"})
    volumes.create("other")
    with held(volumes, "old") as data:
        (data / "file").write_text("kept")
        with pytest.raises(Conflict, match="in use now"):
            rename(volumes, "old", "new")
    with pytest.raises(Conflict, match=r"in use - \[c1\]: containers know it by its name"):
        rename(volumes, "old", "new", users=["c1"])
    with pytest.raises(AlreadyExists, match="volume other exists"):
        rename(volumes, "old", "other")
    for wrong in ("old", "../new", ""):
        with pytest.raises(InvalidArgument):
            rename(volumes, "old", wrong)
    record = rename(volumes, "old", "new")
    assert (record.name, record.options, record.labels) == ("new", options, {"a": "b"})
    assert [one.name for one in volumes.volumes()] == ["new", "other"]
    assert sorted(path.name for path in (tmp_path / "volumes").iterdir()) == ["new", "other"]
    with held(volumes, "new") as data:
        assert data == tmp_path / "volumes/new/_data"
        assert (data / "file").read_text() == "kept"
    volumes.create("old")
    volumes.remove("new")
    if options.keys() & {"encrypted"}:
        assert list((tmp_path / "keys").iterdir()) == []


MADE = """
from estiba.volumes.clones import clone
from estiba.volumes.snapshots import Snapshots
from estiba.volumes.whole import held, rename
volumes.create("data", options={options}, labels={"a": "b"})
with held(volumes, "data") as data:
    (data / "file").write_text("kept")
snapshots = Snapshots(volumes)
snapshots.create("data", "tag")
"""
STEPS = [
    ('clone(volumes, "data", "copy")', "volumes.filled", ["data"], ["tag"]),
    ('clone(volumes, "data", "copy")', "volumes.made#2", ["copy", "data"], ["tag"]),
    ('snapshots.create("data", "two")', "volumes.snapshot-copied#2", ["data"], ["tag"]),
    ('snapshots.rollback("data", "tag")', "volumes.rollback-copied", ["data"], ["tag"]),
    ('snapshots.rollback("data", "tag")', "volumes.rolled-back", ["data"], ["tag"]),
    ('snapshots.remove("data", "tag")', "volumes.snapshot-aside", ["data"], []),
    ('rename(volumes, "data", "moved")', "volumes.renamed", ["moved"], ["tag"]),
    ('rename(volumes, "data", "moved")', "volumes.moved", ["moved"], ["tag"]),
]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("step", "point", "names", "tags"), STEPS)
def test_killed_at_any_step(
    tmp_path: Path,
    step: str,
    point: str,
    names: list[str],
    tags: list[str],
    options: dict[str, str],
) -> None:
    body = MADE.replace("{options}", repr(options)) + step
    assert killed(tmp_path, body, point) == -signal.SIGKILL
    with opened(tmp_path) as volumes:
        assert not HostState.read(only=str(tmp_path)).mounts
        assert [one.name for one in volumes.volumes()] == names
        assert sorted(path.name for path in (tmp_path / "volumes").iterdir()) == names
        for record in volumes.volumes():
            assert (record.options, record.moved_from) == (options, "")
            with held(volumes, record.name) as data:
                assert (data / "file").read_text() == "kept"
        snapshots = Snapshots(volumes)
        assert [one.tag for one in snapshots.list(names[-1])] == tags
        snapshots.create(names[-1], "after")
        with held(volumes, names[-1]):
            folder = (volumes.local.inside(names[-1]) or tmp_path) / "_snapshots"
            assert sorted(path.name for path in folder.iterdir()) == ["after", *tags]
        for name in names:
            volumes.remove(name)
        if (tmp_path / "keys").exists():
            assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="mkfs.btrfs is not installed")
def test_on_btrfs_copies_share_their_blocks(tmp_path: Path) -> None:
    image, point = tmp_path / "disk", tmp_path / "point"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    point.mkdir()
    with attached(image) as device:
        mount(str(device), point, "btrfs")
    try:
        with opened(point) as volumes:
            volumes.create("big")
            with held(volumes, "big") as data:
                (data / "file").write_bytes(os.urandom(48 << 20))
            sync_file_system(point)
            before = os.statvfs(point).f_bfree
            snapshots = Snapshots(volumes)
            for number in range(5):
                clone(volumes, "big", f"copy{number}")
                snapshots.create("big", f"tag{number}")
            sync_file_system(point)
            assert (before - os.statvfs(point).f_bfree) * 4096 < 16 << 20, "480 MB were copied"
            volumes.create("limited", options={"size": "16m"})
            with held(volumes, "limited") as data:
                (data / "file").write_text("x")
    finally:
        unmount(point)
    wait_until(lambda: not is_attached(image), what="the disk to go")
