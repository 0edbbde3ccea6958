"""Any tree, copied, is the same tree; and what is ignored is what is removed."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estiba.build.files.context import apply_ignore
from estiba.build.files.copying import put
from estiba.build.files.model import CopyOptions, CopySource, Taken
from estiba.build.files.selection import take
from estiba.kernel.confined import opened_root
from estiba.model.errors import EstibaError
from estiba.model.ignore import IgnoreRules

pytestmark = pytest.mark.kernel

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NAMES = st.sampled_from(
    ["a", "b", "c.md", "a b", "-x", "*", "[q", "x\\y", "new\nline", "\udcff", "é", ".hidden", "..."]
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_NODES = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=40), st.sampled_from([0o644, 0o4755, 0o200, 0])),
    st.tuples(st.just("dir"), st.just(b""), st.sampled_from([0o755, 0o1777, 0o2750, 0])),
    st.tuples(
        st.just("link"), st.sampled_from([b"a", b"../../none", b"/none", b"\xff"]), st.just(0)
    ),
    st.tuples(st.just("hard"), st.just(b""), st.just(0)),
)
_TREES = st.dictionaries(_PATHS, _NODES, max_size=12)
_PATTERNS = st.lists(
    st.sampled_from(["a", "*", "!a", "**/a", "!**/b", "a/*", "!a/b", "*.md", "!*.md", "**/.h*"]),
    max_size=5,
)  # fmt: skip


def make(root: Path, tree: dict[str, tuple[str, bytes, int]]) -> None:
    """As much of it as fits together. No link of the tree is followed while it is made."""
    first: str | None = None
    with opened_root(root) as top:
        for path, (kind, data, mode) in tree.items():
            before, _, name = path.rpartition("/")
            if kind == "hard" and first is None:
                continue
            try:
                parent = _directory(top, before)
            except OSError:
                continue
            try:
                _node(parent, name, kind, data, mode, top, first)
            except FileExistsError:
                continue
            finally:
                os.close(parent)
            if kind == "file":
                first = first or path


def _directory(top: int, path: str) -> int:
    """Made as far as it is missing, without passing a link."""
    current = os.open(".", _DIRECTORY, dir_fd=top)
    for name in filter(None, path.split("/")):
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=current)
            following = os.open(name, _DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def _node(
    parent: int, name: str, kind: str, data: bytes, mode: int, top: int, first: str | None
) -> None:
    """Raises FileExistsError."""
    if kind == "link":
        os.symlink(data, name, dir_fd=parent)
    elif kind == "hard":
        assert first is not None
        os.link(first, name, src_dir_fd=top, dst_dir_fd=parent, follow_symlinks=False)
    else:
        if kind == "dir":
            os.mkdir(name, dir_fd=parent)
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        else:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=parent)
            os.write(fd, data)
        os.fchmod(fd, mode)
        os.close(fd)


def listing(root: Path) -> list[tuple[str, ...]]:
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        is_link, is_file = path.is_symlink(), stat.S_ISREG(status.st_mode)
        found.append(
            (
                str(path.relative_to(root)),
                stat.filemode(status.st_mode),
                os.readlink(path) if is_link else repr(path.read_bytes() if is_file else b""),
                str(status.st_mtime_ns),
                str(status.st_nlink if is_file else 0),
            )
        )
    return found


def take_all(root: Path, rules: IgnoreRules | None = None) -> Taken:
    source = CopySource(root=root, patterns=(".",), shown="it", ignore=rules)
    return take([source], CopyOptions(destination="/to/"))


@settings(max_examples=150, deadline=None)
@given(_TREES)
def test_a_copy_is_the_same_tree(tree: dict[str, tuple[str, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        source.mkdir()
        target.mkdir()
        make(source, tree)
        taken = take_all(source)
        for _ in range(2):
            put(taken, CopyOptions(destination="/to/"), target)
            assert listing(target / "to") == listing(source)
        assert take_all(target / "to").digest == taken.digest


@settings(max_examples=150, deadline=None)
@given(_TREES, _PATTERNS)
def test_what_is_ignored_is_removed_and_not_taken(
    tree: dict[str, tuple[str, bytes, int]], patterns: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make(root, tree)
        rules = IgnoreRules.of(patterns)
        everything = {str(path.relative_to(root)) for path in root.rglob("*")}
        kept = {path for path in everything if not rules.excludes(path)}
        parents = {str(each) for path in kept for each in Path(path).parents} - {"."}
        before = take_all(root, rules)
        assert {entry.path for entry in before.selected[0].entries} == kept | parents
        apply_ignore(root, rules)
        assert {str(path.relative_to(root)) for path in root.rglob("*")} == kept | parents
        assert take_all(root).digest == before.digest


def test_messages_about_names_that_are_no_text_are_text(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for root, kind in ((source, "file"), (target, "dir")):
        root.mkdir()
        make(root, {"\udcff": (kind, b"x", 0o755)})
    with pytest.raises(EstibaError, match="cannot replace the directory /\ufffd") as caught:
        put(take_all(source), CopyOptions(destination="/"), target)
    assert str(caught.value).encode()
    with pytest.raises(EstibaError) as caught:
        take(
            [CopySource(root=source, patterns=("\udcfe",), shown="it")],
            CopyOptions(destination="/"),
        )
    assert str(caught.value).encode()
