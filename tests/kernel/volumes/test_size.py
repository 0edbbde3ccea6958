"""`--opt size=`: a limit that holds, on a file system of the volume's own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.daemon import wait_until
from tests.support.stored import command, killed, opened

from estiba.kernel.files import sync_file_system
from estiba.kernel.loop import attached, is_attached
from estiba.kernel.mounts import mount, unmount
from estiba.model.errors import Conflict, DataLoss, FailedPrecondition, InvalidArgument
from estiba.volumes import programs
from estiba.volumes.disk import sync
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import resize

pytestmark = pytest.mark.kernel

SIZE = {"size": "16m"}


def test_a_full_volume_is_full_and_the_host_is_not(volumes: Volumes) -> None:
    volumes.create("small", options=SIZE)
    data = volumes.mount("small", user="one")
    with pytest.raises(OSError, match="No space left") as raised, (data / "big").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    assert raised.value.errno == errno.ENOSPC
    assert 8 << 20 < (data / "big").stat().st_size < 16 << 20
    assert volumes.usage("small") <= 16 << 20
    (data / "big").unlink()
    (data / "again").write_bytes(b"x" * (1 << 20))
    volumes.release("small", user="one")
    assert list(data.iterdir()) == []
    # Not at once: other tests' namespaces may have a copy of the mount for a moment.
    wait_until(lambda: volumes.usage("small") < 8 << 20, what="the host to get back its room")
    assert volumes.mount("small", user="two").joinpath("again").stat().st_size == 1 << 20
    volumes.release("small", user="two")
    volumes.remove("small")


def test_it_is_mounted_as_long_as_somebody_uses_it(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("shared", options=SIZE)
    image = tmp_path / "volumes/shared/_disk.ext4"
    assert not is_attached(image)
    assert stat.S_IMODE(image.stat().st_mode) == 0o600
    for user in ("one", "two", "two"):
        data = volumes.mount("shared", user=user)
    assert os.path.ismount(data)
    volumes.release("shared", user="one")
    assert os.path.ismount(data)
    volumes.release("shared", user="two")
    assert not os.path.ismount(data)
    volumes.release("shared", user="two")
    status = volumes.local.get("shared").status
    assert status["Size"] == 16 << 20
    assert 0 < status["SizeOnHost"] < 1 << 20
    volumes.remove("shared")


def test_live_users_keep_it_over_a_start(tmp_path: Path) -> None:
    with opened(tmp_path) as volumes:
        volumes.create("kept", options=SIZE)
        volumes.mount("kept", user="one").joinpath("file").write_text("here")
    with contextlib.suppress(OSError), opened(tmp_path) as volumes:
        volumes.restore({"kept": ["one"]})
    with opened(tmp_path) as volumes:
        assert not os.path.ismount(volumes.path("kept")), "nobody was up"
        assert volumes.mount("kept", user="one").joinpath("file").read_text() == "here"
        volumes.restore({"kept": ["one"]})
        assert volumes.path("kept").joinpath("file").read_text() == "here"
        volumes.release("kept", user="one")
        volumes.remove("kept")


def test_an_image_fills_it(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.mkdir(mode=0o750)
    (source / "file").write_text("of the image")
    os.chown(source, 5, 6)
    volumes.create("filled", options=SIZE)
    data = volumes.mount("filled", user="one")
    assert volumes.fill("filled", tmp_path, "/image")
    assert (data / "file").read_text() == "of the image"
    status = data.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o750)
    assert [path.name for path in data.iterdir()] == ["file"], "no lost+found among the files"
    assert not volumes.fill("filled", tmp_path, "/image")
    volumes.release("filled", user="one")


def test_the_smallest(volumes: Volumes) -> None:
    for name, options in (("one", {}), ("two", {"encrypted": ""})):
        volumes.create(name, options={"size": "8390001", **options})
        data = volumes.mount(name, user="one")
        (data / "file").write_bytes(bytes(2 << 20))
        volumes.release(name, user="one")


def test_wrong_sizes(volumes: Volumes) -> None:
    for text in ("1", "-5m", "17t", "many", ""):
        with pytest.raises(InvalidArgument, match="size"):
            volumes.create("wrong", options={"size": text})
    with pytest.raises(InvalidArgument, match="do not go together"):
        volumes.create("wrong", options={"size": "16m", "type": "tmpfs", "device": "tmpfs"})
    assert volumes.volumes() == []


def test_an_unclean_end_is_mended(volumes: Volumes, tmp_path: Path) -> None:
    """What a power cut leaves: a copy of the disk taken while it is mounted."""
    volumes.create("cut", options=SIZE)
    data = volumes.mount("cut", user="one")
    (data / "file").write_text("synced")
    sync_file_system(data)
    image = tmp_path / "volumes/cut/_disk.ext4"
    crashed = image.read_bytes()
    volumes.release("cut", user="one")
    image.write_bytes(crashed)
    assert (volumes.mount("cut", user="one") / "file").read_text() == "synced"
    volumes.release("cut", user="one")
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("offset", "data", "size"),
    [
        (0, bytes(1 << 16), None),
        (0, os.urandom(1 << 16), None),
        (0, b"", 1000),
        (0, b"", 0),
        (1024 + 24, b"\xff\xff", None),  # the size of its blocks
    ],
    ids=["zeroed", "overwritten", "cut off", "emptied", "odd"],
)
def test_a_ruined_disk_is_not_mounted(
    volumes: Volumes, tmp_path: Path, offset: int, data: bytes, size: int | None
) -> None:
    volumes.create("ruin", options=SIZE)
    image = tmp_path / "volumes/ruin/_disk.ext4"
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        if size is not None:
            file.truncate(size)
    with pytest.raises(DataLoss, match=r"damaged.*save a copy of .*_disk\.ext4"):
        volumes.mount("ruin", user="one")
    assert not is_attached(image)
    volumes.remove("ruin")


def test_a_second_mount_of_one_disk_is_the_same_file_system(
    volumes: Volumes, tmp_path: Path
) -> None:
    """Somebody else's namespace may still have it mounted when it is used again."""
    volumes.create("held", options=SIZE)
    data = volumes.mount("held", user="one")
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", "echo up; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        volumes.release("held", user="one")
        assert is_attached(tmp_path / "volumes/held/_disk.ext4")
        inside = Path(f"/proc/{holder.pid}/root{data}")
        (volumes.mount("held", user="two") / "new").write_text("seen by both")
        assert (inside / "new").read_text() == "seen by both"
        volumes.release("held", user="two")
        holder.communicate(b"\n")
    assert (volumes.mount("held", user="one") / "new").read_text() == "seen by both"
    volumes.release("held", user="one")


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_larger_limit(volumes: Volumes, encrypted: bool) -> None:
    options = {**SIZE, "encrypted": ""} if encrypted else SIZE
    volumes.create("data", options=options)
    data = volumes.mount("data", user="one")
    (data / "file").write_bytes(b"kept" * 100_000)
    room = os.statvfs(data).f_blocks
    with pytest.raises(Conflict, match="in use now"):
        resize(volumes, "data", "64m")
    volumes.release("data", user="one")
    for text, words in (("8m", "less than it has"), ("x", "invalid size"), ("99999t", "a volume")):
        with pytest.raises(InvalidArgument, match=words):
            resize(volumes, "data", text)
    assert resize(volumes, "data", "64m").options["size"] == "64m"
    data = volumes.mount("data", user="one")
    assert os.statvfs(data).f_blocks > 3 * room
    assert (data / "file").read_bytes() == b"kept" * 100_000
    (data / "big").write_bytes(bytes(40 << 20))
    volumes.release("data", user="one")
    volumes.create("plain")
    with pytest.raises(Conflict, match="has no limit"):
        resize(volumes, "plain", "64m")


GROWN = """
from estiba.volumes.whole import resize
volumes.create("data", options={"size": "16m"})
volumes.mount("data", user="one").joinpath("file").write_text("kept")
volumes.release("data", user="one")
resize(volumes, "data", "64m")
"""


@pytest.mark.parametrize("point", ["volumes.resized", "volumes.disk-longer"])
def test_killed_while_it_grows(tmp_path: Path, point: str) -> None:
    assert killed(tmp_path, GROWN, point) == -signal.SIGKILL
    with opened(tmp_path) as volumes:
        assert volumes.get("data").options == {"size": "64m"}
        data = volumes.mount("data", user="one")
        assert (data / "file").read_text() == "kept"
        assert os.statvfs(data).f_blocks * 4096 > 48 << 20
        volumes.release("data", user="one")


def test_what_is_missing_is_named(
    volumes: Volumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_PATH", "/nowhere")
    with pytest.raises(FailedPrecondition, match=r"mkfs\.ext4 is not installed.*e2fsprogs"):
        volumes.create("data", options=SIZE)
    with pytest.raises(FailedPrecondition, match="give size=, or install gocryptfs"):
        volumes.create("data", options={"encrypted": ""})
    assert list((tmp_path / "volumes").iterdir()) == []
    assert list((tmp_path / "keys").iterdir()) == []


CHECKED = """
from estiba.volumes import programs
programs._PATH = f"{root}/bin:{programs._PATH}"
volumes.mount("data", user="one")
"""


def test_a_check_that_outlives_its_engine_is_waited_for(tmp_path: Path) -> None:
    """Else the next engine would mount what is being mended."""
    with opened(tmp_path) as volumes:
        volumes.create("data", options=SIZE)
        data = volumes.mount("data", user="one")
        (data / "file").write_text("kept")
        sync_file_system(data)
        image = tmp_path / "volumes/data/_disk.ext4"
        crashed = image.read_bytes()
        volumes.release("data", user="one")
    wait_until(lambda: not is_attached(image), what="the disk to go")
    image.write_bytes(crashed)
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "e2fsck"
    slow.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/begun\n"
        f'while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\nexec /usr/sbin/e2fsck "$@"\n'
    )
    slow.chmod(0o755)
    with subprocess.Popen([*command(CHECKED), tmp_path]) as engine:
        wait_until((tmp_path / "begun").exists, what="the check")
        engine.kill()
    with opened(tmp_path) as volumes, ThreadPoolExecutor(1) as pool:
        with image.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mounting = pool.submit(volumes.mount, "data", user="two")
        assert not is_attached(image)
        (tmp_path / "go").touch()
        assert (mounting.result(30) / "file").read_text() == "kept"
        volumes.release("data", user="two")


BODY = """
volumes.create("data", options={"size": "16m"})
volumes.mount("data", user="one").joinpath("file").write_text("kept")
volumes.release("data", user="one")
"""


@pytest.mark.parametrize(
    "point",
    [
        "volumes.directory-made", "volumes.disk-sized", "volumes.disk-formatted", "volumes.made",
        "volumes.disk-attached", "volumes.disk-mounted", "volumes.data-mounted",
    ],
)  # fmt: skip
def test_killed_at_any_step(tmp_path: Path, point: str) -> None:
    assert killed(tmp_path, BODY, point) == -signal.SIGKILL
    with opened(tmp_path) as volumes:
        (record,) = volumes.volumes()
        assert record.options == SIZE, "found again with its limit"
        disk = tmp_path / "volumes/data/_disk.ext4"
        wait_until(lambda: not is_attached(disk), what="the disk to go")
        volumes.create("data", options=SIZE)
        data = volumes.mount("data", user="two")
        (data / "file").write_text("works")
        volumes.release("data", user="two")
        volumes.remove("data")
        assert list((tmp_path / "volumes").iterdir()) == []


def test_a_host_that_is_full(tmp_path: Path) -> None:
    """The limit is larger than what the host has left."""
    image, point = tmp_path / "disk", tmp_path / "point"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    point.mkdir()
    with attached(image) as device:
        mount(str(device), point, "ext4")
    try:
        with opened(point) as volumes:
            volumes.create("data", options={"size": "128m"})
            data = volumes.mount("data", user="one")
            (data / "first").write_bytes(b"kept" * 1000)
            sync(data, volumes.local.directory("data"))
            with pytest.raises(OSError, match=r"."), (data / "big").open("wb") as file:
                for _ in range(100):
                    file.write(bytes(range(256)) * 4096)
                    file.flush()
                    os.fsync(file.fileno())
            (data / "bigger").write_bytes(bytes(range(256)) * (1 << 16))
            with pytest.raises(OSError, match="No space left"):
                sync(data, volumes.local.directory("data"))
            volumes.release("data", user="one")
    finally:
        unmount(point)
    wait_until(lambda: not is_attached(image), what="the disk to go")
    os.truncate(image, 256 << 20)
    subprocess.run(["e2fsck", "-fp", image], check=False, capture_output=True)
    subprocess.run(["resize2fs", image], check=True, capture_output=True)
    with attached(image) as device:
        mount(str(device), point, "ext4")
    try:
        with opened(point) as volumes:
            data = volumes.mount("data", user="one")
            assert (data / "first").read_bytes() == b"kept" * 1000
            (data / "second").write_bytes(bytes(50 << 20))
            volumes.release("data", user="one")
    finally:
        unmount(point)
    wait_until(lambda: not is_attached(image), what="the disk to go")
