"""Backups: all that a file is, there and back; and archives that mean harm."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tests.support.stored import KINDS, assert_tree, write_tree

from estiba.model.errors import AlreadyExists, Conflict, InvalidArgument, LimitExceeded
from estiba.storage.unpack import Limits
from estiba.volumes.backup import archive, describe, restore
from estiba.volumes.clones import clone
from estiba.volumes.volumes import Volumes
from estiba.volumes.whole import held

pytestmark = pytest.mark.kernel

LIMITS = Limits(total_bytes=64 << 20, entries=1000)
DESCRIPTION = b'{"format":1,"name":"evil"}'


def backup(volumes: Volumes, name: str) -> bytes:
    return b"".join(archive(volumes, describe(volumes, name, plain=True)))


def assert_nothing(volumes: Volumes, root: Path) -> None:
    assert volumes.volumes() == []
    assert list((root / "volumes").iterdir()) == []
    keys = root / "keys"
    assert not keys.exists() or list(keys.iterdir()) == []


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_there_and_back(volumes: Volumes, tmp_path: Path, options: dict[str, str]) -> None:
    volumes.create("data", options=options, labels={"a": "b"})
    with held(volumes, "data") as data:
        write_tree(data)
    if "encrypted" in options:
        with pytest.raises(Conflict, match="is encrypted and its backup would not be"):
            describe(volumes, "data", plain=False)
    kept = backup(volumes, "data")
    assert len(kept) < 64 << 10, "holes take no room"
    with pytest.raises(AlreadyExists):
        restore(volumes, "data", io.BytesIO(kept), limits=LIMITS)
    volumes.remove("data")
    record = restore(volumes, "again", io.BytesIO(kept), limits=LIMITS, labels={"c": "d"})
    assert (record.options, record.labels) == (options, {"a": "b", "c": "d"})
    with held(volumes, "again") as data:
        assert_tree(data, holes="gocryptfs" not in options.values())
    record = restore(volumes, "plain", io.BytesIO(kept), limits=LIMITS, options={})
    assert record.options == {}
    with held(volumes, "plain") as data:
        assert_tree(data)


def test_keys_and_places_of_files_stay_out(volumes: Volumes, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    vault = {"size": "16m", "encrypted": "", "key-file": str(key)}
    volumes.create("vault", options=vault)
    assert describe(volumes, "vault", plain=True).options == {"size": "16m", "encrypted": ""}
    again = restore(volumes, "again", io.BytesIO(backup(volumes, "vault")), limits=LIMITS)
    assert volumes.local.get(again.name).status["Key"] != f"file {key}", "a new key was made"
    other = tmp_path / "other"
    other.mkdir()
    place = {"type": "none", "device": str(other), "o": "bind"}
    volumes.create("bound", options=place)
    assert describe(volumes, "bound", plain=False).options == {}


def test_other_programs_read_it(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("data")
    with held(volumes, "data") as data:
        write_tree(data)
    (tmp_path / "backup.tar.zst").write_bytes(backup(volumes, "data"))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["tar", "--zstd", "--xattrs", "-xpf", tmp_path / "backup.tar.zst", "-C", out], check=True
    )
    assert_tree(out / "data")


def test_files_of_many_holes(volumes: Volumes) -> None:
    volumes.create("data")
    with held(volumes, "data") as data:
        with (data / "comb").open("wb") as file:
            for number in range(2000):
                file.seek(number * 16384)
                file.write(b"%d" % number)
        with (data / "empty").open("wb") as file:
            file.truncate(5 << 20)
        with (data / "odd").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"x" * 5001)
        before = {path.name: path.read_bytes() for path in data.iterdir()}
        taken = {path.name: path.stat().st_blocks for path in data.iterdir()}
    restore(volumes, "again", io.BytesIO(backup(volumes, "data")), limits=LIMITS)
    with held(volumes, "again") as data:
        assert {path.name: path.read_bytes() for path in data.iterdir()} == before
        for path in data.iterdir():
            assert path.stat().st_blocks <= taken[path.name] + 64


# -- archives that mean harm -------------------------------------------------------------------


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def tar_of(*members: tuple[tarfile.TarInfo, bytes], description: bytes = DESCRIPTION) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (member("volume.json", description), *members):
            tar.addfile(info, io.BytesIO(data))
    return whole.getvalue()


EVIL = {
    "climbs": tar_of(member("data/../../escaped", b"x")),
    "climbs from the start": tar_of(member("../escaped", b"x")),
    "absolute": tar_of(member("/escaped", b"x")),
    "beside the data": tar_of(member("_disk.ext4", b"x")),
    "hard link out": tar_of(member("data/l", kind=tarfile.LNKTYPE, link="../../secret")),
    "hard link to a link": tar_of(
        member("data/s", kind=tarfile.SYMTYPE, link="../../../secret"),
        member("data/l", kind=tarfile.LNKTYPE, link="data/s/x"),
    ),
    "file below a link": tar_of(
        member("data/s", kind=tarfile.SYMTYPE, link="/etc"),
        member("data/s/passwd/x", b"x"),
    ),
    "no description": tar_of()[1536:] + bytes(1024),
    "not JSON": tar_of(description=b"{"),
    "other form": tar_of(description=b'{"format":2,"name":"x"}'),
    "options of another kind": tar_of(description=b'{"format":1,"name":"x","options":{"size":1}}'),
    "wrong options": tar_of(description=b'{"format":1,"name":"x","options":{"size":"evil"}}'),
    "device of overlay": tar_of(member("data/c", kind=tarfile.CHRTYPE)),
    "no tar": b"hello" * 1000,
    "nothing": b"",
}


@pytest.mark.parametrize("data", EVIL.values(), ids=EVIL)
def test_harm_is_refused(volumes: Volumes, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "secret").write_text("of the host")
    with pytest.raises(InvalidArgument):
        restore(volumes, "new", io.BytesIO(data), limits=LIMITS)
    assert_nothing(volumes, tmp_path)
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*"))
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_links_lead_within_the_volume(volumes: Volumes, tmp_path: Path) -> None:
    data = tar_of(
        member("data/up", kind=tarfile.SYMTYPE, link="../../../.."),
        member("data/up/planted", b"x"),
    )
    restore(volumes, "new", io.BytesIO(data), limits=LIMITS)
    with held(volumes, "new") as inside:
        assert (inside / "planted").read_bytes() == b"x"
        assert os.readlink(inside / "up") == "../../../.."


def test_an_archive_has_no_say_about_places_and_keys(volumes: Volumes, tmp_path: Path) -> None:
    victim, key = tmp_path / "victim", tmp_path / "key"
    victim.mkdir()
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    place = {"type": "none", "device": str(victim), "o": "bind"}
    told = {"format": 1, "name": "x" * 1000, "options": {**place, "key-file": str(key)}}
    data = tar_of(member("data/planted", b"x"), description=json.dumps(told).encode())
    assert restore(volumes, "new", io.BytesIO(data), limits=LIMITS).options == {}
    assert list(victim.iterdir()) == []
    with pytest.raises(InvalidArgument, match="cannot have the options type, device and o"):
        restore(volumes, "other", io.BytesIO(data), limits=LIMITS, options=place)
    with pytest.raises(InvalidArgument, match="cannot have the options type, device and o"):
        clone(volumes, "new", "other", options=place)
    assert list(victim.iterdir()) == []
    assert [one.name for one in volumes.volumes()] == ["new"]


def test_a_name_that_is_taken_meanwhile(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("data")
    kept = backup(volumes, "data")

    class Slow(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            if not volumes.has("new"):
                volumes.create("new", labels={"who": "another"})
            return super().read(size)

    with pytest.raises(AlreadyExists):
        restore(volumes, "new", Slow(kept), limits=LIMITS)
    assert volumes.get("new").labels == {"who": "another"}
    assert sorted(path.name for path in (tmp_path / "volumes").iterdir()) == ["data", "new"]


def test_bombs(volumes: Volumes, tmp_path: Path) -> None:
    zeros = zstandard.compress(tar_of(member("data/zeros", bytes(80 << 20))))
    assert len(zeros) < 1 << 20
    many = tar_of(*(member(f"data/{number}") for number in range(1001)))
    options = {"size": "16m", "encrypted": ""}
    for data in (zeros, many):
        for chosen in ({}, options):
            with pytest.raises((LimitExceeded, OSError)):
                restore(volumes, "new", io.BytesIO(data), limits=LIMITS, options=chosen)
            assert_nothing(volumes, tmp_path)


def cut_plain(data: bytes, at: int) -> bytes:
    return data[:at]


def cut_compressed(data: bytes, at: int) -> bytes:
    return zstandard.compress(data[:at])


@pytest.mark.parametrize("cut", [cut_plain, cut_compressed])
def test_an_archive_that_is_cut_off(
    volumes: Volumes, tmp_path: Path, cut: Callable[[bytes, int], bytes]
) -> None:
    whole = tar_of(member("data/one", b"x" * 700), member("data/two", b"y" * 512))
    end = len(whole.rstrip(b"\0")) + 512
    for at in sorted({*range(0, end - 1024, 512), *range(100, end - 1024, 997)}):
        with pytest.raises(InvalidArgument):
            restore(volumes, "new", io.BytesIO(cut(whole, at)), limits=LIMITS)
        assert_nothing(volumes, tmp_path)


def test_a_backup_that_is_cut_off_or_damaged(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("data")
    with held(volumes, "data") as data:
        (data / "file").write_bytes(os.urandom(200_000))
    kept = backup(volumes, "data")
    volumes.remove("data")
    for at in (0, 10, 1000, len(kept) // 2, len(kept) - 1):
        with pytest.raises(InvalidArgument):
            restore(volumes, "new", io.BytesIO(kept[:at]), limits=LIMITS)
        if at:
            flipped = bytearray(kept)
            flipped[at] ^= 0x40
            with pytest.raises(InvalidArgument):
                restore(volumes, "new", io.BytesIO(bytes(flipped)), limits=LIMITS)
        assert_nothing(volumes, tmp_path)
