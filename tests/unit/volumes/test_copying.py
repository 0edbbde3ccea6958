"""Trees that are made to be hard to copy."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from estiba.kernel.trees import opened_directory, remove_tree
from estiba.volumes.copying import copy_tree


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def copied(tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    with opened_directory(tmp_path / "source") as source, opened_directory(tmp_path / "copy") as to:
        copy_tree(source, to)
    return tmp_path / "copy"


def test_many_directories_with_linked_files_take_few_descriptors(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / f"source/{number}/sub"
        folder.mkdir(parents=True)
        (folder / "one").write_text(str(number))
        os.link(folder / "one", folder.parent / "two")
    os.link(tmp_path / "source/7/two", tmp_path / "source/top")
    used = len(os.listdir("/proc/self/fd"))
    with few_descriptors(used + 60):
        copy = copied(tmp_path)
    for number in range(300):
        one, two = copy / f"{number}/sub/one", copy / f"{number}/two"
        assert one.read_text() == str(number)
        assert one.samefile(two)
        assert one.stat().st_nlink == 2 + (number == 7)
    assert (copy / "top").samefile(copy / "7/two")


def test_directories_deeper_than_any_path_are_refused(tmp_path: Path) -> None:
    """A container makes them by relative names; each level of a copy holds descriptors."""
    (tmp_path / "source").mkdir()
    with ExitStack() as stack:
        current = stack.enter_context(opened_directory(tmp_path / "source"))
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=current)
            current = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
            stack.callback(os.close, current)
        with pytest.raises(OSError, match="deeper than any path") as caught:
            copied(tmp_path)
    assert caught.value.errno == errno.ENAMETOOLONG
    for name in ("source", "copy"):
        remove_tree(tmp_path / name)
