"""Hostile archives through layers, and through `cp` into a root: a canary outside stays intact."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.hostile import archive, attacks, make_canary, member, snapshot

from estiba.kernel.confined import opened_root
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.storage.archive import PutOptions, put_path
from estiba.storage.layers import LayerStore
from estiba.storage.tar import TarReader
from estiba.storage.unpack import Limits, UnpackOptions, unpack

pytestmark = pytest.mark.kernel


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return make_canary(tmp_path / "outside")


def into_layer(tmp_path: Path, data: bytes) -> None:
    store = LayerStore(tmp_path / "layers", Limits())
    store.open()
    store.ingest(io.BytesIO(data))


def into_root(tmp_path: Path, data: bytes) -> None:
    root_path = tmp_path / "root"
    root_path.mkdir(exist_ok=True)
    with opened_root(root_path) as root:
        put_path(root, "/", io.BytesIO(data), PutOptions())


@pytest.mark.parametrize("way", [into_layer, into_root], ids=["layer", "put"])
@pytest.mark.parametrize("name", sorted(attacks("/x")))
def test_nothing_outside_changes(
    name: str, way: Callable[[Path, bytes], None], tmp_path: Path, outside: Path
) -> None:
    before = snapshot(outside)
    try:
        way(tmp_path, attacks(str(outside))[name])
    except EstibaError:
        pass
    assert snapshot(outside) == before
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "layers" / "ingest").glob("*"))


def test_a_failed_layer_leaves_nothing(tmp_path: Path) -> None:
    data = archive(member("good", data=b"1"), member("../evil", data=b"x"))
    store = LayerStore(tmp_path, Limits())
    store.open()
    with pytest.raises(InvalidArgument, match="leads out"):
        store.ingest(io.BytesIO(data))
    assert list(store.diff_ids()) == []
    assert list((tmp_path / "ingest").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "members"),
    [
        (Limits(total_bytes=1000), [member("big", data=bytes(2000))]),
        (Limits(entries=3), [member(f"f{n}") for n in range(5)]),
        (Limits(depth=4), [member("a/b/c/d/e/f", data=b"x")]),
        (Limits(name_bytes=64), [member("n" * 65)]),
    ],
    ids=["bytes", "entries", "depth", "name"],
)
def test_bombs_meet_limits(tmp_path: Path, limits: Limits, members: list[tuple]) -> None:
    with opened_root(tmp_path) as root, pytest.raises(LimitExceeded):
        unpack(TarReader(io.BytesIO(archive(*members))), root, UnpackOptions(limits=limits))


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 600, 1024, 1500])
def test_a_cut_archive_is_an_error(tmp_path: Path, cut: int) -> None:
    data = archive(member("file", data=bytes(1000)))[:cut]
    with opened_root(tmp_path) as root, pytest.raises(InvalidArgument, match="tar"):
        unpack(TarReader(io.BytesIO(data)), root, UnpackOptions())


def test_garbage_is_an_error(tmp_path: Path) -> None:
    with opened_root(tmp_path) as root, pytest.raises(InvalidArgument, match="checksum"):
        unpack(TarReader(io.BytesIO(os.urandom(10240))), root, UnpackOptions())


def test_overlay_xattrs_are_not_taken_over(tmp_path: Path) -> None:
    info, _ = member("d", tarfile.DIRTYPE)
    info.pax_headers = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "1",
    }
    with opened_root(tmp_path) as root:
        unpack(TarReader(io.BytesIO(archive((info, b"")))), root, UnpackOptions(layer=True))
    assert os.listxattr(tmp_path / "d") == ["user.kept"]


def test_whiteouts_become_overlays_own(tmp_path: Path) -> None:
    data = archive(
        member("d", tarfile.DIRTYPE), member("d/.wh.gone"), member("e", tarfile.DIRTYPE),
        member("e/.wh..wh..opq"),
    )  # fmt: skip
    with opened_root(tmp_path) as root:
        unpack(TarReader(io.BytesIO(data)), root, UnpackOptions(layer=True))
    status = (tmp_path / "d" / "gone").lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(tmp_path / "e", "trusted.overlay.opaque") == b"y"


def test_put_into_a_file_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with opened_root(tmp_path) as root:
        with pytest.raises(InvalidArgument, match="not a directory"):
            put_path(root, "/file", io.BytesIO(archive()), PutOptions())
        with pytest.raises(EstibaError, match="Could not find"):
            put_path(root, "/none", io.BytesIO(archive()), PutOptions())


def test_a_directory_does_not_replace_a_file_when_asked_not_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    data = archive(member("file", tarfile.DIRTYPE))
    with opened_root(tmp_path) as root, pytest.raises(InvalidArgument, match="cannot overwrite"):
        put_path(root, "/", io.BytesIO(data), PutOptions(no_overwrite_dir=True))
    assert (tmp_path / "file").read_text() == "x"
