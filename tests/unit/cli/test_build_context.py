"""The stream that a directory, or a tar on STDIN, becomes."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.client.buildcontext import Tree, gathered
from estiba.client.buildstdin import Begun, members
from estiba.client.errors import ClientError
from estiba.client.tarstream import DIRECTORY, END, FILE, SYMLINK, header, member, padded
from estiba.model.ignore import IgnoreRules


def unpacked(pieces: Iterator[bytes] | list[bytes]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces) + END), mode="r:") as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            assert info.name not in found
            found[info.name] = (info, file.read() if file else b"")
    return found


def names(tree: Tree) -> list[str]:
    return [name.removeprefix("ctx/") for name in unpacked(tree.members()) if name != "ctx"]


# -- headers -------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 99, 100, 101, 154, 155, 156, 255, 256, 257, 1000, 4000])
def test_names_of_every_length(length: int) -> None:
    generator = random.Random(length)
    for _ in range(20):
        text = "".join(generator.choice("abcé/") for _ in range(length)).strip("/") or "a"
        name = "/".join(word for word in text.split("/") if word)
        info, data = unpacked([member(name, b"x" * length)])[name]
        assert (info.mode, data) == (0o644, b"x" * length)
        target = name[::-1]
        info, _ = unpacked([header(name.encode(), SYMLINK, mode=0o777, target=target.encode())])[
            name
        ]
        assert info.linkname == target


def test_numbers_that_ustar_has_no_room_for() -> None:
    head = header(b"big", FILE, mode=0o644, size=1 << 34, mtime=-5)
    with tarfile.open(fileobj=io.BytesIO(head), mode="r|") as tar:
        info = tar.next()
    assert info is not None
    assert (info.name, info.size, info.mtime) == ("big", 1 << 34, -5)


def test_names_that_are_no_text() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert list(unpacked([member(name, b"")])) == [name]
    long = name * 100
    assert list(unpacked([member(long, b"")])) == [long]


# -- a directory ---------------------------------------------------------------------------


def test_what_a_directory_becomes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir(mode=0o750)
    (tmp_path / "b" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "b" / "run").chmod(0o4755)
    (tmp_path / "a").write_bytes(b"x" * 513)
    os.utime(tmp_path / "a", ns=(5, 1_234_567_890_987_654_321))
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    os.link(tmp_path / "a", tmp_path / "again")
    found = unpacked(gathered(Tree(str(tmp_path), "ctx").members()))
    assert list(found) == [
        "ctx", "ctx/a", "ctx/again", "ctx/b", "ctx/b/run", "ctx/loop", "ctx/out", "ctx/pipe",
    ]  # fmt: skip
    assert found["ctx/a"][1] == b"x" * 513
    assert found["ctx/again"][0].islnk() and found["ctx/again"][0].linkname == "ctx/a"
    assert found["ctx/pipe"][0].isfifo()
    assert found["ctx/a"][0].mtime == 1_234_567_890
    assert found["ctx/b"][0].mode == 0o750 and found["ctx/b"][0].isdir()
    assert found["ctx/b/run"][0].mode == 0o4755
    assert found["ctx/out"][0].linkname == "/etc/passwd"
    assert {info.uid for info, _ in found.values()} == {0}


def test_what_is_ignored_is_not_looked_into(tmp_path: Path) -> None:
    for path in ("keep/a", "drop/a", "drop/deep/b", "part/a", "part/deep/b", "part/deep/c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "part" / "deep").chmod(0o711)
    rules = IgnoreRules.parse("drop\npart\n!part/deep/b\n**/*.log\n")
    entered: list[str] = []

    def may_hold(path: str) -> bool:
        entered.append(path)
        return rules.may_hold_exceptions(path)

    tree = Tree(str(tmp_path), "ctx", rules.excludes, may_hold)
    assert names(tree) == ["keep", "keep/a", "part", "part/deep", "part/deep/b"]
    # Its parents come with their own modes, though rules leave them out.
    assert unpacked(tree.members())["ctx/part/deep"][0].mode == 0o711
    assert entered[:3] == ["drop", "part", "part/deep"]


def test_a_link_that_comes_in_the_way_of_the_walk_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "dir", outside):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)

    def excludes(path: str) -> bool:
        if path == "dir":
            (inside / "dir" / "file").unlink()
            (inside / "dir").rmdir()
            (inside / "dir").symlink_to(outside)
        return False

    assert "outside" not in str(unpacked(Tree(str(inside), "ctx", excludes).members()).values())


def test_what_vanishes_was_never_there(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)

    def excludes(path: str) -> bool:
        if path == "b":
            (tmp_path / "b").unlink()
        return False

    assert names(Tree(str(tmp_path), "ctx", excludes)) == ["a", "c"]


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1_000_000)
    pieces = Tree(str(tmp_path), "ctx").members()
    assert len(next(pieces)) == len(next(pieces)) == 512  # the directory and the file's header
    assert len(next(pieces)) == 1 << 18
    path.write_bytes(b"y")
    with pytest.raises(ClientError, match=r"log became shorter .*262144 of 1000000 bytes"):
        list(pieces)


def test_a_file_that_grows_is_sent_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 300_000)
    pieces = Tree(str(tmp_path), "ctx").members()
    first = [next(pieces), next(pieces)]
    path.write_bytes(b"x" * 400_000)
    assert len(unpacked([*first, *pieces])["ctx/log"][1]) == 300_000


def test_a_directory_that_is_too_deep_is_named(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(450):
        os.mkdir("d", dir_fd=here)
        following = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = following
    os.close(here)
    with pytest.raises(ClientError, match="more than 400 directories in one another"):
        list(Tree(str(tmp_path), "ctx").members())


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"d{number}" / "e").mkdir(parents=True)
        (tmp_path / f"d{number}" / "e" / "f").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    list(Tree(str(tmp_path), "ctx").members())
    half = Tree(str(tmp_path), "ctx").members()
    for _ in range(4):
        next(half)
    half.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) <= before


# -- a tar on STDIN ------------------------------------------------------------------------


def packed(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind, link, data in (
            ("./", tarfile.DIRTYPE, "", b""),
            ("./Dockerfile", tarfile.REGTYPE, "", b"FROM scratch\n"),
            ("/abs/file", tarfile.REGTYPE, "", b"y" * 700),
            ("hard", tarfile.LNKTYPE, "abs/file", b""),
            ("sym", tarfile.SYMTYPE, "../../up", b""),
            ("dev", tarfile.CHRTYPE, "", b""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o640
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_of_every_kind(mode: str) -> None:
    begun = Begun(io.BytesIO(packed(mode)))
    assert begun.is_archive()
    found = unpacked(members(begun, "ctx"))
    assert list(found) == ["ctx", "ctx/Dockerfile", "ctx/abs/file", "ctx/hard", "ctx/sym"]
    assert found["ctx/abs/file"][1] == b"y" * 700
    assert found["ctx/hard"][0].linkname == "ctx/abs/file"
    assert found["ctx/sym"][0].linkname == "../../up"


@pytest.mark.parametrize("text", [b"", b"FROM busybox\n", b"FROM busybox\n" + b"#" * 2000])
def test_a_dockerfile_is_no_archive(text: bytes) -> None:
    begun = Begun(io.BytesIO(text))
    assert not begun.is_archive()
    assert begun.read(1 << 20) == text


def test_archives_that_are_refused() -> None:
    with pytest.raises(ClientError, match="zstd"):
        Begun(io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(600))).is_archive()
    with pytest.raises(ClientError, match="damaged"):
        list(members(Begun(io.BytesIO(packed("w")[:1500])), "ctx"))
    evil = header(b"a/../../etc", DIRECTORY, mode=0o755) + padded(b"") + END
    with pytest.raises(ClientError, match="leads out of it"):
        list(members(Begun(io.BytesIO(evil)), "ctx"))
