"""Hostile archives through layers, and through `cp` into a root: a canary outside stays intact."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from estiba.kernel.confined import opened_root
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.storage.archive import PutOptions, put_path
from estiba.storage.layers import LayerStore
from estiba.storage.tar import TarReader
from estiba.storage.unpack import Limits, UnpackOptions, unpack

pytestmark = pytest.mark.kernel

SECRET = b"canary"


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> tuple:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(*members: tuple) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link(name: str, target: str) -> tuple:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple:
    return member(name, tarfile.LNKTYPE, linkname=target)


def attacks(outside: str) -> dict[str, bytes]:
    """Every archive tries to change `outside`/canary or to make a file beside it."""
    return {
        "dot-dot": archive(member("../evil", data=b"x")),
        "dot-dot in the middle": archive(member("a/../../evil", data=b"x")),
        "absolute": archive(member(f"{outside}/evil", data=b"x")),
        "absolute symlinked parent": archive(
            link("out", outside), member("out/evil", data=b"x"), member("out/canary", data=b"x")
        ),
        "relative symlinked parent": archive(
            link("out", "../" * 20 + outside.lstrip("/")), member("out/evil", data=b"x")
        ),
        "links through links": archive(
            link("a", "b"), link("b", outside), member("a/evil", data=b"x")
        ),
        "file over a symlink to the canary": archive(
            link("f", f"{outside}/canary"), member("f", data=b"x")
        ),
        "hard link out": archive(hard("h", f"{outside}/canary"), member("h", data=b"x")),
        "hard link by dot-dot": archive(hard("h", f"../../..{outside}/canary")),
        "hard link through a symlink": archive(
            link("out", outside), hard("h", "out/canary"), member("h", data=b"x")
        ),
        "hard link to a symlink": archive(
            link("s", f"{outside}/canary"), hard("h", "s"), member("h", data=b"x")
        ),
        "chmod through a symlink": archive(
            link("d", outside), member("d", tarfile.DIRTYPE, mode=0o777)
        ),
        "directory times through a symlink": archive(
            member("d", tarfile.DIRTYPE, mtime=1), link("d", outside)
        ),
        "whiteout with dot-dot": archive(member(".wh...")),
        "whiteout through a symlink": archive(link("out", outside), member("out/.wh.canary")),
        "whiteout of nothing": archive(member(".wh.")),
        "opaque through a symlink": archive(link("out", outside), member("out/.wh..wh..opq")),
        "dev, proc and etc as symlinks": archive(
            link("dev", outside), link("proc", outside), link("etc", outside),
            member("dev/evil", data=b"x"), member("proc/evil", data=b"x"),
            member("etc/evil", data=b"x"),
        ),
        "symlink replaced by a directory and back": archive(
            member("d", tarfile.DIRTYPE), member("d/x", data=b"1"), link("d", outside),
            member("d/evil", data=b"x"),
        ),
        "name of 4096 bytes": archive(member("a/" * 2047 + "bb", data=b"x")),
        "component of 300 bytes": archive(member("n" * 300, data=b"x")),
        "odd names": archive(member("a\nb", data=b"x"), member("ü\udcff", data=b"x"),
                             member("-rf", data=b"x")),
    }  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir(mode=0o755)
    (path / "canary").write_bytes(SECRET)
    (path / "canary").chmod(0o600)
    return path


def snapshot(path: Path) -> list[tuple]:
    """All that an attack could change."""
    found = []
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        content = entry.read_bytes() if entry.is_file() else b""
        xattrs = sorted(os.listxattr(entry, follow_symlinks=False))
        found.append((entry, status.st_mode, status.st_mtime_ns, status.st_nlink, content, xattrs))
    return found


def into_layer(tmp_path: Path, data: bytes) -> None:
    store = LayerStore(tmp_path / "layers", Limits())
    store.open()
    store.ingest(io.BytesIO(data), None)


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
        store.ingest(io.BytesIO(data), None)
    assert list(store.chains()) == []
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
