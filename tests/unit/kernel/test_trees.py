"""Trees deeper than recursion goes and longer than a path can say."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.kernel.trees import opened_directory, remove_tree, tree_size, walk

DEPTH = 3000


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """3,000 directories in one another, with a file in the deepest and one in the first."""
    top = tmp_path / "deep"
    top.mkdir()
    (top / "file").write_text("12345")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("dd", dir_fd=fd)
        below = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("lost", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    yield top
    remove_tree(top)


def _held(tree: Path) -> list[str]:
    """What this process has open of a tree; others of its threads open and close as well."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            found += [target] if target.startswith(str(tree)) else []
    return sorted(found)


def test_a_deep_tree_is_removed(deep: Path) -> None:
    before = _held(deep)
    remove_tree(deep)
    assert not deep.exists()
    remove_tree(deep)
    assert _held(deep) == before


def test_a_walk_ends_where_no_path_leads(deep: Path) -> None:
    before = _held(deep)
    with opened_directory(deep) as root:
        paths = [found.path for found in walk(root)]
    assert paths[:2] == ["dd", "dd/dd"]
    assert paths[-1] == "file"
    assert max(map(len, paths)) <= 4096
    assert tree_size(deep) == 5
    assert _held(deep) == before


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "canary").write_text("x" * 100)
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "also").hardlink_to(outside / "canary")
    (tree / "again").hardlink_to(outside / "canary")
    with opened_directory(tree) as root:
        assert [found.path for found in walk(root, without=["also"])] == ["again", "link"]
    assert tree_size(tree) == 100 + len(str(outside))
    remove_tree(tree)
    assert (outside / "canary").read_text() == "x" * 100


@pytest.mark.parametrize("place", ["", "below"])
def test_what_appears_meanwhile_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As a file does that is written beside another one while the directory is moved away."""
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    rmdir, made = os.rmdir, []

    def late(path: str, *, dir_fd: int | None = None) -> None:
        if not made:
            made.append(top / place / "late")
            made[0].write_text("x")
        rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)
    remove_tree(top)
    assert made and not top.exists()


def test_who_makes_more_each_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmdir = os.rmdir

    def late(path: str, *, dir_fd: int | None = None) -> None:
        (tmp_path / "top" / "late").write_text("x")
        rmdir(path, dir_fd=dir_fd)

    (tmp_path / "top").mkdir()
    monkeypatch.setattr(os, "rmdir", late)
    with pytest.raises(OSError, match="not empty"):
        remove_tree(tmp_path / "top")
