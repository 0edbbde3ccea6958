"""Volumes with something mounted over them: real file systems, and what mount(2) refuses."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from estiba.kernel.mounts import MountFlag, mount, peers_of, unmount
from estiba.model.errors import Internal
from estiba.store import Store
from estiba.volumes.volumes import Volumes

pytestmark = pytest.mark.kernel


@pytest.fixture
def volumes(tmp_path: Path, store: Store) -> Volumes:
    volumes = Volumes(tmp_path / "volumes", store)
    volumes.start()
    return volumes


@contextmanager
def mounted(volumes: Volumes, kind: str, device: Path | str, words: str = "") -> Iterator[Path]:
    options = {"type": kind, "device": os.fspath(device), "o": words}
    volumes.create("vol", options=options)
    try:
        yield volumes.mount("vol", user="one")
    finally:
        volumes.release("vol", user="one")
        assert not os.path.ismount(volumes.path("vol"))
        volumes.remove("vol")


def options_of(path: Path) -> set[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    (found,) = (line.split()[3] for line in lines if line.split()[1] == str(path))
    return set(found.split(","))


def test_a_directory(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").touch()
    with mounted(volumes, "none", source, "bind") as path:
        (path / "new").touch()
    assert sorted(entry.name for entry in source.iterdir()) == ["kept", "new"]


def test_a_directory_read_only(volumes: Volumes, tmp_path: Path) -> None:
    """The kernel ignores `ro` when a bind is made, so it takes a second call."""
    source = tmp_path / "source"
    source.mkdir()
    with mounted(volumes, "none", source, "bind,ro,noexec") as path:
        assert {"ro", "noexec"} <= options_of(path)
        with pytest.raises(OSError, match="Read-only file system"):
            (path / "new").touch()
    (source / "new").touch()


def test_a_second_user_sees_the_same_files_whatever_the_root_is_called(
    tmp_path: Path, store: Store
) -> None:
    volumes = Volumes(tmp_path / "données", store)
    volumes.start()
    with mounted(volumes, "tmpfs", "tmpfs") as path:
        (path / "kept").touch()
        assert (volumes.mount("vol", user="two") / "kept").exists()
        volumes.release("vol", user="two")


def test_a_directory_that_propagates(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mount("tmpfs", source, "tmpfs")
    try:
        mount("", source, "", MountFlag.SHARED)
        with mounted(volumes, "none", source, "bind,slave") as path:
            assert peers_of(path) == {"master"}
        with mounted(volumes, "none", source, "bind,private") as path:
            assert peers_of(path) == set()
    finally:
        unmount(source)


def test_memory(volumes: Volumes) -> None:
    with mounted(volumes, "tmpfs", "tmpfs", "size=1m,uid=7,mode=700,nosuid") as path:
        assert {"size=1024k", "nosuid"} <= options_of(path)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (7, 0o700)
        with pytest.raises(OSError, match="No space left"):
            (path / "big").write_bytes(bytes(2 << 20))


def test_a_block_device(volumes: Volumes, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    losetup = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = losetup.stdout.strip()
    try:
        with mounted(volumes, "ext4", device, "noatime,commit=9") as path:
            assert {"noatime", "commit=9"} <= options_of(path)
            (path / "file").write_text("on the device")
        with mounted(volumes, "ext4", device, "ro") as path:
            assert (path / "file").read_text() == "on the device"
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_an_overlay(volumes: Volumes, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_text("below")
    words = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    with mounted(volumes, "overlay", "overlay", words) as path:
        assert (path / "file").read_text() == "below"
        (path / "new").touch()
    assert (tmp_path / "upper" / "new").exists()


@pytest.mark.parametrize(
    ("kind", "device", "words", "why"),
    [
        ("none", "/nowhere/at/all", "bind", "no such file or directory: /nowhere/at/all does not"),
        ("ext4", "/etc/hostname", "", "block device required: /etc/hostname is no block device"),
        ("none", "/etc/hostname", "bind", "not a directory: /etc/hostname is no directory"),
        ("tmpfs", "tmpfs", "nonsense=1", "invalid argument: wrong file system type 'tmpfs', bad"),
        ("nosuchfs", "x", "", "no such device: this kernel has no file system 'nosuchfs'"),
        ("overlay", "overlay", "lowerdir=/nowhere", "no such file or directory"),
    ],
)
def test_what_cannot_be_mounted(
    volumes: Volumes, kind: str, device: str, words: str, why: str
) -> None:
    volumes.create("vol", options={"type": kind, "device": device, "o": words})
    with pytest.raises(Internal, match=why) as raised:
        volumes.mount("vol", user="one")
    assert "failed to mount local volume" in raised.value.message
    assert not os.path.ismount(volumes.path("vol"))
    volumes.remove("vol")


@pytest.mark.parametrize(
    ("kind", "device", "words", "call"),
    [
        (
            "nfs",
            ":/export",
            "addr=localhost,rw,vers=4",
            "mount :/export:.*, data: addr=127.0.0.1,vers=4: ",
        ),
        (
            "cifs",
            "//localhost/share",
            "username=u,password=hunter2",
            r"mount //127.0.0.1/share:.*, data: username=u,password=\*{8}: ",
        ),
    ],
)
def test_file_systems_of_servers(
    volumes: Volumes,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    device: str,
    words: str,
    call: str,
) -> None:
    """The kernel of the tests has neither: what is tried is the call that it is given."""
    caplog.set_level(logging.DEBUG)
    volumes.create("vol", options={"type": kind, "device": device, "o": words})
    with pytest.raises(Internal, match=call) as raised:
        volumes.mount("vol", user="one")
    assert "hunter2" not in raised.value.message + caplog.text
    volumes.remove("vol")


def test_a_directory_deleted_by_hand_is_made_anew(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("vol")
    path = volumes.path("vol")
    path.rmdir()
    path.parent.rmdir()
    assert volumes.usage("vol") == 0
    assert volumes.mount("vol", user="one").is_dir()
    volumes.release("vol", user="one")
    path.rmdir()
    assert volumes.mount("vol", user="one").is_dir()
    volumes.release("vol", user="one")
    path.rmdir()
    path.parent.rmdir()
    volumes.remove("vol")
    assert volumes.volumes() == []
    assert list((tmp_path / "volumes").iterdir()) == []


def test_users_of_one_mount(volumes: Volumes) -> None:
    volumes.create("vol", options={"type": "tmpfs", "device": "tmpfs"})
    for user in ("one", "two", "one"):
        path = volumes.mount("vol", user=user)
    (path / "file").touch()
    volumes.release("vol", user="one")
    volumes.release("vol", user="nobody")
    assert (path / "file").exists()
    volumes.release("vol", user="two")
    assert not os.path.ismount(path)
    volumes.release("vol", user="two")


def test_a_mount_taken_away_by_hand_comes_back_with_the_next_user(volumes: Volumes) -> None:
    volumes.create("vol", options={"type": "tmpfs", "device": "tmpfs"})
    path = volumes.mount("vol", user="one")
    unmount(path)
    volumes.mount("vol", user="two")
    assert os.path.ismount(path)
    for user in ("one", "two"):
        volumes.release("vol", user=user)


def test_those_on_no_disk_of_ours_are_neither_pruned_nor_measured(volumes: Volumes) -> None:
    volumes.create("ram", options={"type": "tmpfs", "device": "tmpfs"})
    volumes.create("disk")
    assert [record.name for record in volumes.on_disk()] == ["disk"]
    freed = volumes.prune(is_used=lambda name: False, is_wanted=lambda record: True)
    assert list(freed) == ["disk"]
    assert [record.name for record in volumes.volumes()] == ["ram"]


def test_a_mount_is_filled_from_the_image(volumes: Volumes, tmp_path: Path) -> None:
    """No rename leads into it from outside, and nothing of ours is left in it."""
    image = tmp_path / "image" / "dir"
    (image / "sub").mkdir(parents=True)
    (image / "sub" / "file").write_text("of the image")
    os.chown(image, 7, 8)
    with mounted(volumes, "tmpfs", "tmpfs") as path:
        assert volumes.fill("vol", image.parent, "/dir")
        assert [entry.name for entry in path.iterdir()] == ["sub"]
        assert (path / "sub" / "file").read_text() == "of the image"
        assert (path.stat().st_uid, path.stat().st_gid) == (7, 8)
        assert not volumes.fill("vol", image.parent, "/dir")
    with mounted(volumes, "tmpfs", "tmpfs") as path:
        for name, content in (("_staging", "half"), ("_ready", "whole")):
            (path / f".estiba-populate{name}").mkdir()
            (path / f".estiba-populate{name}" / content).touch()
        assert volumes.fill("vol", image.parent, "/dir"), "a crash was between the two"
        assert (path / "whole").exists()
    with mounted(volumes, "tmpfs", "tmpfs") as path:
        (path / ".estiba-populate_staging" / "half").mkdir(parents=True)
        assert volumes.fill("vol", image.parent, "/dir")
        assert [entry.name for entry in path.iterdir()] == ["sub"]
    source = tmp_path / "source"
    source.mkdir()
    with mounted(volumes, "none", source, "bind") as path:
        assert volumes.fill("vol", image.parent, "/dir")
    assert (source / "sub" / "file").exists()
    (tmp_path / "empty").mkdir()
    with mounted(volumes, "none", tmp_path / "empty", "bind,ro"):
        assert not volumes.fill("vol", image.parent, "/dir")


@pytest.mark.parametrize("name", ["_ready", "_staging"])
def test_what_other_users_plant_there_leads_nowhere(
    volumes: Volumes, tmp_path: Path, name: str
) -> None:
    """A user of the volume may know the names that a copy has meanwhile."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "canary").touch()
    image = tmp_path / "image" / "dir"
    image.mkdir(parents=True)
    (image / "file").touch()
    source = tmp_path / "source"
    source.mkdir()
    (source / f".estiba-populate{name}").symlink_to(host)
    with mounted(volumes, "none", source, "bind") as path:
        with pytest.raises(Internal, match="cannot copy /dir of the image into volume vol: "):
            volumes.fill("vol", image.parent, "/dir")
        assert [entry.name for entry in path.iterdir()] == [f".estiba-populate{name}"]
    assert [entry.name for entry in host.iterdir()] == ["canary"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A place of one MiB and few files."""
    place = tmp_path / "small"
    place.mkdir()
    mount("tmpfs", place, "tmpfs", data="size=1m,nr_inodes=40")
    yield place
    unmount(place)


def test_on_a_full_disk(small_disk: Path, tmp_path: Path, store: Store) -> None:
    """What fails leaves nothing, and what is there can be removed."""
    volumes = Volumes(small_disk / "volumes", store)
    volumes.start()
    image = tmp_path / "image" / "dir"
    image.mkdir(parents=True)
    (image / "big").write_bytes(bytes(2 << 20))
    volumes.create("copy")
    with pytest.raises(OSError, match="No space left"):
        volumes.fill("copy", image.parent, "/dir")
    assert [path.name for path in volumes.local.directory("copy").iterdir()] == ["_data"]
    (image / "big").write_bytes(bytes(1000))
    assert volumes.fill("copy", image.parent, "/dir")
    names = iter(range(100))
    with pytest.raises(OSError, match="No space left"):
        while True:
            volumes.create(f"vol{next(names)}")
    made = {record.name for record in volumes.volumes()}
    on_disk = {path.name for path in (small_disk / "volumes").iterdir()}
    assert made == on_disk
    for name in made:
        volumes.remove(name)
    assert volumes.create("again").name == "again"


def test_a_symlink_in_the_place_of_a_copied_node_leads_nowhere(
    volumes: Volumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user of the volume swaps it as soon as it is made: no file of the host changes."""
    source, image, host = tmp_path / "source", tmp_path / "image" / "dir", tmp_path / "host"
    source.mkdir()
    image.mkdir(parents=True)
    os.mkfifo(image / "pipe")
    (image / "pipe").chmod(0o6777)
    host.touch(0o600)
    genuine = os.mknod

    def swapped(name: str, *arguments: int, dir_fd: int) -> None:
        genuine(name, *arguments, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(host, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swapped)
    volumes.create("vol", options={"type": "none", "device": os.fspath(source), "o": "bind"})
    volumes.mount("vol", user="one")
    try:
        with pytest.raises(Internal, match="changed while it was copied"):
            volumes.fill("vol", image.parent, "/dir")
    finally:
        volumes.release("vol", user="one")
    assert host.stat().st_mode & 0o7777 == 0o600
    assert not list(source.iterdir())


@pytest.fixture
def silent(volumes: Volumes, store: Store, tmp_path: Path) -> Iterator[int]:
    """Volume `silent` lies on a file system whose server never answers, and is mounted."""
    server = os.open("/dev/fuse", os.O_RDWR)
    words = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    volumes.create("silent", options={"type": "fuse", "device": "silent", "o": words})
    volumes.mount("silent", user="one")
    try:
        yield server
    finally:
        unmount(volumes.path("silent"))
        os.close(server)


def test_a_server_that_never_answers_holds_up_nothing_else(
    volumes: Volumes, store: Store, tmp_path: Path, silent: int
) -> None:
    """Neither a start of the engine, nor lists, nor other volumes, nor its own removal."""
    done: list[str] = []

    def work() -> None:
        again = Volumes(tmp_path / "volumes", store)
        again.start()
        again.restore({"silent": ["one"]})
        done.append("started")
        again.mount("silent", user="two")
        again.create("other")
        again.mount("other", user="two")
        again.release("other", user="two")
        assert [record.name for record in again.on_disk()] == ["other"]
        again.prune(is_used=lambda name: False, is_wanted=lambda record: True)
        done.append("used")
        for user in ("one", "two"):
            again.release("silent", user=user)
        again.remove("silent")
        done.append("removed")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert done == ["started", "used", "removed"]
