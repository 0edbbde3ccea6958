"""Working directories that would lead out of a container through /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.runtime.workdir import ensure_working_directory, exec_directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("proc", "job/deep", "etc"):
        (tmp_path / name).mkdir(parents=True)
    for name, target in {
        "plain": "job",
        "evil": "/proc/self/fd/7",
        "relative": "job/../proc/self/fd/8/../../..",
        "chain": "chain2",
        "chain2": "/job/back",
        "job/back": "../evil",
        "loop": "loop",
        "out": "/../../../proc/1/root",
        "tmp": "proc",
    }.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize("path", ["/job/deep", "/not/there/yet", "/plain/new", "/procession/self"])
def test_it_is_made_where_it_is_missing(root: Path, path: str) -> None:
    ensure_working_directory(root, path)
    assert (root / path.lstrip("/")).is_dir()


@pytest.mark.parametrize("path", ["", "/"])
def test_the_root_needs_nothing(root: Path, path: str) -> None:
    before = sorted(root.iterdir())
    ensure_working_directory(root, path)
    assert sorted(root.iterdir()) == before


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/fd/7",
        "/proc/self/fd/7/",
        "/job/../proc/12/root",
        "//proc/self/cwd",
        "/evil/etc",
        "/chain",
        "/out/etc",
        "/tmp/self/fd/9",
    ],
)
def test_ways_through_proc(root: Path, path: str) -> None:
    with pytest.raises(InvalidArgument, match=r"descriptors of a process|is not a dir"):
        ensure_working_directory(root, path)


def test_a_file_in_its_place(root: Path) -> None:
    (root / "etc/file").write_text("")
    with pytest.raises(InvalidArgument, match="/etc/file is not a directory"):
        ensure_working_directory(root, "/etc/file")


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/proc/1/fd/3/..", "/x/../proc/self/cwd"])
def test_execs_into_descriptors_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match="descriptors of a process"):
        exec_directory(path)


def test_execs_get_normal_paths() -> None:
    """Written out, `..` behind a descriptor would leave it; made normal it is /proc."""
    assert exec_directory("/proc/1/fd/3/../../..") == "/proc"
    assert exec_directory("/a//b/./c/..") == "/a/b"
    assert exec_directory("") == ""
