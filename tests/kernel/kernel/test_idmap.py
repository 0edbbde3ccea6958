"""Mounts with owners mapped, on every file system at hand."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.leaks import HostState, assert_clean

from estiba.kernel.idmap import MAX_ID, IdMap, IdRange, mount_mapped, swap, user_namespace
from estiba.kernel.mounts import file_system_of, mount, mount_overlay, unmount

pytestmark = pytest.mark.kernel

ROOT_AND_1000 = IdMap(swap(0, 1000), swap(0, 1000))


@pytest.fixture(autouse=True)
def no_leaks(tmp_path: Path) -> Iterator[None]:
    before = HostState.read(only=str(tmp_path))
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert_clean(before, only=str(tmp_path))


@contextmanager
def mapped(source: Path, wanted: IdMap, *, recursive: bool = True) -> Iterator[Path]:
    target = source.parent / "mapped"
    target.mkdir(exist_ok=True)
    mount_mapped(source, target, wanted, recursive=recursive)
    try:
        yield target
    finally:
        unmount(target)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@contextmanager
def file_system(kind: str, tmp_path: Path) -> Iterator[Path]:
    """A directory on a new file system of that kind."""
    place = tmp_path / kind
    place.mkdir()
    loop = ""
    if kind == "tmpfs":
        mount("tmpfs", place, "tmpfs")
    elif kind == "overlay":
        for name in ("lower", "upper", "work"):
            (tmp_path / name).mkdir()
        mount_overlay(place, [tmp_path / "lower"], upper=tmp_path / "upper", work=tmp_path / "work")
    else:
        image = tmp_path / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(320 << 20)
        subprocess.run([f"mkfs.{kind}", image], check=True, capture_output=True)
        done = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True)
        loop = done.stdout.decode().strip()
        mount(loop, place, kind)
    try:
        yield place
    finally:
        unmount(place)
        if loop:
            subprocess.run(["losetup", "-d", loop], check=True)


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "tmpfs"])
def test_owners_both_ways(tmp_path: Path, kind: str) -> None:
    with file_system(kind, tmp_path) as place:
        source = place / "source"
        source.mkdir()
        (source / "kept").touch()
        (source / "other").touch()
        os.chown(source / "kept", 1000, 1000)
        os.chown(source / "other", 5, 6)
        with mapped(source, ROOT_AND_1000) as seen:
            assert owner(seen / "kept") == (0, 0)
            assert owner(seen / "other") == (5, 6)
            (seen / "new").touch()
            os.chown(seen / "other", 0, 77)
            assert owner(seen / "new") == (0, 0)
        assert owner(source / "new") == (1000, 1000)
        assert owner(source / "other") == (1000, 77)
        shutil.rmtree(place / "mapped")


def test_an_overlay_says_no(tmp_path: Path) -> None:
    with file_system("overlay", tmp_path) as place:
        (place / "source").mkdir()
        (place / "target").mkdir()
        with pytest.raises(OSError, match="mount_setattr") as raised:
            mount_mapped(place / "source", place / "target", ROOT_AND_1000)
        assert raised.value.errno == errno.EINVAL


def test_what_is_mounted_below_is_mapped_too_or_nothing_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    with file_system("tmpfs", tmp_path) as place:
        mount(str(place), source / "below", "", 0x1000)
        try:
            (place / "file").touch()
            with mapped(source, ROOT_AND_1000) as seen:
                assert owner(seen / "below" / "file") == (1000, 1000)
            with mapped(source, ROOT_AND_1000, recursive=False) as seen:
                assert not (seen / "below" / "file").exists()
        finally:
            unmount(source / "below")
    mount("proc", source / "below", "proc")
    try:
        with pytest.raises(OSError, match="Invalid argument"), mapped(source, ROOT_AND_1000):
            pass
        with mapped(source, ROOT_AND_1000, recursive=False) as seen:
            assert owner(seen) == (1000, 1000)
    finally:
        unmount(source / "below")


def test_ids_that_no_range_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "known").touch()
    (source / "unknown").touch()
    os.chown(source / "unknown", 50, 50)
    one = (IdRange(0, 1000, 1),)
    with mapped(source, IdMap(one, one)) as seen:
        assert owner(seen / "known") == (1000, 1000)
        assert owner(seen / "unknown") == (65534, 65534)
        with pytest.raises(OSError, match="Value too large"):
            (seen / "new").touch()


def test_one_that_is_mapped_is_not_mapped_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with mapped(source, ROOT_AND_1000) as seen:
        (tmp_path / "again").mkdir()
        with pytest.raises(OSError, match="Operation not permitted"):
            mount_mapped(seen, tmp_path / "again", ROOT_AND_1000)


def test_ranges_that_overlap_make_no_namespace() -> None:
    overlapping = (IdRange(0, 0, 10), IdRange(5, 50, 10))
    with (
        pytest.raises(OSError, match="Invalid argument"),
        user_namespace(IdMap(overlapping, overlapping)),
    ):
        pass


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (1000, 0), (5, 7), (0, MAX_ID)])
def test_a_swap_names_every_id_once(one: int, other: int) -> None:
    ranges = swap(one, other)
    for side in ("stored", "shown"):
        spans = sorted((getattr(each, side), each.length) for each in ranges)
        ends = [first + length for first, length in spans]
        assert [first for first, _ in spans] == [0, *ends[:-1]]
        assert ends[-1] == MAX_ID + 1
    shown = {each.stored: each.shown for each in ranges if each.length == 1}
    assert one == other or (shown[one], shown[other]) == (other, one)


def test_the_file_system_of_a_descriptor(tmp_path: Path) -> None:
    with file_system("tmpfs", tmp_path) as place:
        fd = os.open(place, os.O_PATH)
        try:
            assert file_system_of(fd) == "tmpfs"
        finally:
            os.close(fd)
