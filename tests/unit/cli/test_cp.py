"""What a hostile container may send to `cp`, on every Python."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from estiba.cli.cp import _unpack
from estiba.client.errors import ClientError


def archive(*members: tuple[str, bytes, str, bytes]) -> tarfile.TarFile:
    """(name, type, link, data) as an open archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return tarfile.open(fileobj=buffer, mode="r|")


@pytest.mark.parametrize(
    "members",
    [
        [("tree/../../evil", tarfile.REGTYPE, "", b"x")],
        [("tree/out", tarfile.SYMTYPE, "{outside}", b""),
         ("tree/out/evil", tarfile.REGTYPE, "", b"x")],
        [("tree/h", tarfile.LNKTYPE, "../outside/canary", b""),
         ("tree/h", tarfile.REGTYPE, "", b"x")],
    ],
    ids=["dot-dot", "behind a symlink", "hard link out"],
)  # fmt: skip
def test_nothing_outside_is_touched(tmp_path: Path, members: list) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "canary").write_text("safe")
    filled = [(n, k, link.format(outside=outside), d) for n, k, link, d in members]
    with archive(*filled) as tar, pytest.raises(ClientError):
        _unpack(tar, "/tree", str(target), is_directory=True)
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "safe"
    assert not (tmp_path / "evil").exists()


def test_a_file_does_not_follow_a_symlink_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("safe")
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").symlink_to(tmp_path / "canary")
    with archive(("file", tarfile.REGTYPE, "", b"new")) as tar:
        _unpack(tar, "/file", str(target), is_directory=False)
    assert (tmp_path / "canary").read_text() == "safe"
    assert (target / "file").read_bytes() == b"new"
