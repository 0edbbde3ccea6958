"""Contexts that come in: what is kept, what is refused, and the first files read from them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tests.support.hostile import archive, attacks, hard, link, make_canary, member, snapshot

from estiba.build.files.context import (
    Bundle,
    apply_ignore,
    read_dockerfile,
    read_ignore,
    receive,
    receive_bundle,
)
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded, NotFound
from estiba.model.ignore import IgnoreRules
from estiba.storage.unpack import Limits

pytestmark = pytest.mark.kernel
REQUEST = member("request.json", data=b"{}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    return made


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
)
def test_a_context_comes_compressed_or_not(
    directory: Path, compress: Callable[[bytes], bytes]
) -> None:
    data = archive(
        member("d", tarfile.DIRTYPE, mode=0o750, uid=5, gid=6),
        member("d/run.sh", data=b"#!", mode=0o755, uid=5, mtime=1_000_000_000),
        link("l", "d/run.sh"),
        hard("h", "d/run.sh"),
    )
    receive(io.BytesIO(compress(data)), directory)
    assert names(directory) == ["d", "d/run.sh", "h", "l"]
    status = (directory / "d" / "run.sh").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)
    assert status.st_mtime == 1_000_000_000
    assert (directory / "d").stat().st_gid == 0


def test_devices_and_capabilities_are_left_out(directory: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000").decode()
    xattrs = {
        "SCHILY.xattr.security.capability": capability,
        "SCHILY.xattr.user.note": "hello",
    }
    data = archive(
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("sda", tarfile.BLKTYPE, devmajor=8, devminor=0),
        member("fifo", tarfile.FIFOTYPE),
        member("file", data=b"x", pax_headers=xattrs),
    )
    receive(io.BytesIO(data), directory)
    assert names(directory) == ["fifo", "file"]
    assert stat.S_ISFIFO((directory / "fifo").stat().st_mode)
    assert os.listxattr(directory / "file") == ["user.note"]


def test_no_context_gets_out(tmp_path: Path, directory: Path) -> None:
    outside = make_canary(tmp_path / "outside")
    before = snapshot(outside)
    for name, data in attacks(str(outside)).items():
        for number, target in enumerate((receive, receive_bundle)):
            into = tmp_path / f"{name}-{number}".replace("/", "_").replace(" ", "_")
            into.mkdir()
            try:
                target(io.BytesIO(data), into)
            except EstibaError as error:
                assert str(error), name
            assert snapshot(outside) == before, name


@pytest.mark.parametrize(
    "data", [b"FROM scratch\n" * 99, archive(member("f", data=bytes(999)))[:700]]
)
def test_what_is_no_tar_is_told(directory: Path, data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="the build context cannot be read: tar: "):
        receive(io.BytesIO(data), directory)


def test_limits(directory: Path) -> None:
    data = archive(member("f", data=bytes(5000)))
    with pytest.raises(LimitExceeded):
        receive(io.BytesIO(gzip.compress(data)), directory, Limits(total_bytes=4000))


# -- the bundle ----------------------------------------------------------------------------


def bundle(directory: Path, *members: tuple) -> Bundle:
    return receive_bundle(io.BytesIO(archive(*members)), directory)


def test_a_bundle_has_its_parts(directory: Path) -> None:
    made = bundle(
        directory,
        member("request.json", data=b'{"target":"x"}'),
        member("dockerfile", data=b"FROM scratch"),
        member("contexts", tarfile.DIRTYPE, mode=0o755),
        member("contexts/context/a/file", data=b"main", uid=7),
        member("contexts/docker.io%2Flibrary%2Falpine%3A3/file", data=b"named"),
        member("caches/2/index.json", data=b"[]"),
    )
    assert made.request == b'{"target":"x"}'
    assert made.dockerfile == b"FROM scratch"
    assert made.dockerignore is None
    assert (made.contexts["context"] / "a" / "file").read_text() == "main"
    assert (made.contexts["docker.io/library/alpine:3"] / "file").read_text() == "named"
    assert (made.caches[2] / "index.json").read_text() == "[]"
    assert (directory / "contexts/context/a/file").stat().st_uid == 0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "request.json is missing"),
        ([member("dockerfile", data=b"x"), REQUEST], "its first member is 'dockerfile'"),
        ([REQUEST, REQUEST], "stands there twice"),
        ([link("request.json", "/etc/passwd")], "is no file"),
        ([REQUEST, member("else", data=b"x")], "belongs neither to a context nor to a cache"),
        ([REQUEST, member("caches/one/x", data=b"x")], "belongs neither"),
        ([REQUEST, link("contexts", "/etc")], "'contexts' is no directory"),
        ([REQUEST, link("contexts/context", "/etc")], "'contexts/context' is no directory"),
        ([REQUEST, member("contexts/context", data=b"x")], "is no directory"),
        ([REQUEST, hard("contexts/x", "request.json")], "is no directory"),
        ([REQUEST, member("contexts/../../x", data=b"x")], "leads out of the archive's root"),
    ],
)
def test_a_bundle_of_another_form_is_refused(
    directory: Path, members: list[tuple], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        bundle(directory, *members)


def test_a_request_has_a_limit(directory: Path) -> None:
    with pytest.raises(LimitExceeded, match="over 8 MiB"):
        bundle(directory, member("request.json", data=bytes(9 << 20)))


# -- what is left out ----------------------------------------------------------------------


def test_what_is_ignored_is_removed(tmp_path: Path, directory: Path) -> None:
    outside = make_canary(tmp_path / "outside")
    for name in (
        "keep.txt",
        "a.log",
        "logs/b.log",
        "logs/keep.log",
        "mods/x/y/z",
        "deep/only/c.log",
    ):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (directory / "empty").mkdir()
    (directory / "mods" / "out").symlink_to(outside)
    (directory / "out").symlink_to(outside)
    before = snapshot(outside)
    apply_ignore(
        directory, IgnoreRules.parse("**/*.log\nlogs\n!logs/keep.log\nmods\ndeep\n!deep/*/x\nout")
    )
    assert names(directory) == ["empty", "keep.txt", "logs", "logs/keep.log"]
    assert snapshot(outside) == before


# -- first files ---------------------------------------------------------------------------


def test_the_dockerfile_and_its_ignore_file(directory: Path) -> None:
    (directory / "dockerfile").write_text("lower")
    assert read_dockerfile(directory) == b"lower"
    (directory / "Dockerfile").write_text("upper")
    assert read_dockerfile(directory) == read_dockerfile(directory, "./Dockerfile") == b"upper"
    assert not read_ignore(directory)
    (directory / ".dockerignore").write_text("a")
    assert str(read_ignore(directory).reason("a")) == '"a" (.dockerignore:1)'
    (directory / "docker").mkdir()
    (directory / "docker" / "web").write_text("web")
    (directory / "docker" / "web.dockerignore").write_bytes(b"b\xff")
    assert read_dockerfile(directory, "docker/web") == b"web"
    rules = read_ignore(directory, "docker/web")
    assert rules.excludes(os.fsdecode(b"b\xff")) and not rules.excludes("a")


def test_a_missing_dockerfile_is_told_with_near_ones(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "Dockerfile.web").write_text("x")
    (directory / "Dockerfile.dev").write_text("x")
    with pytest.raises(NotFound, match=r'Dockerfile; did you mean "Dockerfile.dev"\?'):
        read_dockerfile(directory)
    with pytest.raises(NotFound, match=r'did you mean "sub/Dockerfile.web" or "Dockerfile.dev"\?'):
        read_dockerfile(directory, "sub/Dockerfile.wbe")


def test_the_dockerfile_stays_in_the_context(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "Dockerfile").write_text("canary")
    (directory / "Dockerfile").symlink_to("../Dockerfile2")
    (directory / "abs").symlink_to(tmp_path / "Dockerfile")
    for path in ("", "abs", str(tmp_path / "Dockerfile")):
        with pytest.raises(NotFound, match="Cannot locate specified Dockerfile"):
            read_dockerfile(directory, path)
    (directory / "real").write_text("real")
    (directory / "abs2").symlink_to("/real")
    assert read_dockerfile(directory, "abs2") == read_dockerfile(directory, "../real") == b"real"
    with pytest.raises(InvalidArgument, match="it is no file"):
        read_dockerfile(directory, "/")
    os.mkfifo(directory / "fifo")
    with pytest.raises(InvalidArgument, match="it is no file"):
        read_dockerfile(directory, "fifo")
    with (directory / "large").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(LimitExceeded, match="over 16 MiB"):
        read_dockerfile(directory, "large")
