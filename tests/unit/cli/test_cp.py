"""What a hostile container may send to `cp`, on every Python."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest

from estiba.client.archive import unpack
from estiba.client.errors import ClientError


def archive(*members: tuple[str, bytes, str, bytes]) -> list[bytes]:
    """(name, type, link, data) as an archive's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    return [buffer.getvalue()]


@pytest.mark.parametrize(
    "members",
    [
        [("tree/../../evil", tarfile.REGTYPE, "", b"x")],
        [("tree/out", tarfile.SYMTYPE, "{outside}", b""),
         ("tree/out/evil", tarfile.REGTYPE, "", b"x")],
        [("tree/h", tarfile.LNKTYPE, "../outside/canary", b""),
         ("tree/h", tarfile.REGTYPE, "", b"x")],
        [("tree/s", tarfile.SYMTYPE, "{outside}/canary", b""),
         ("tree/s", tarfile.REGTYPE, "", b"x")],
    ],
    ids=["dot-dot", "behind a symlink", "hard link out", "over a symlink"],
)  # fmt: skip
def test_nothing_outside_is_touched(tmp_path: Path, members: list) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("safe")
    filled = [(n, k, link.format(outside=outside), d) for n, k, link, d in members]
    with contextlib.suppress(ClientError):
        unpack(archive(*filled), str(tmp_path / "target"), keep_owner=False)
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "safe"
    assert not (tmp_path / "evil").exists()


def test_a_file_does_not_follow_a_symlink_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("safe")
    (tmp_path / "file").symlink_to(tmp_path / "canary")
    unpack(archive(("file", tarfile.REGTYPE, "", b"new")), str(tmp_path / "file"), keep_owner=False)
    assert (tmp_path / "canary").read_text() == "safe"
    assert (tmp_path / "file").read_bytes() == b"new"
