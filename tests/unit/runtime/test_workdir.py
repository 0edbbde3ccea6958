"""Working directories that would lead out of a container through /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.runtime.workdir import check_working_directory


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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("/", "/"),
        ("/job//deep/./x/../", "/job/deep"),
        ("/not/there/yet", "/not/there/yet"),
        ("/plain/deep", "/plain/deep"),
        ("/proc", "/proc"),
        ("/proc/sys/net", "/proc/sys/net"),
        ("/procession/self", "/procession/self"),
    ],
)
def test_ordinary_directories(root: Path, path: str, expected: str) -> None:
    assert check_working_directory(root, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/fd/7",
        "/proc/self/fd/7/",
        "/proc/./self/../thread-self/fd/7",
        "/job/../proc/12/root",
        "//proc/self/cwd",
        "/evil",
        "/evil/etc",
        "/chain",
        "/out/etc",
        "/tmp/self/fd/9",
        "/not/there/../../proc/self",
    ],
)
def test_ways_through_proc(root: Path, path: str) -> None:
    with pytest.raises(InvalidArgument, match="part of /proc"):
        check_working_directory(root, path)


@pytest.mark.parametrize(
    ("path", "words"),
    [("job", "absolute path"), ("/loop", "too many links"), ("/a\0b", "NUL byte")],
)
def test_what_makes_no_sense(root: Path, path: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_working_directory(root, path)
