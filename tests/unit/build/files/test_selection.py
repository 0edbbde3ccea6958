"""What COPY takes: wildcards, directories, --parents, --exclude, links, and what it tells."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from estiba.build.files.model import CopyOptions, CopySource, Form
from estiba.build.files.selection import take
from estiba.model.errors import InvalidArgument, LimitExceeded, NotFound
from estiba.model.ignore import IgnoreRules

TREE = {
    "a.txt": "a",
    "b.txt": "b",
    "c.md": "c",
    "src/main.py": "main",
    "src/lib/util.py": "util",
    "src/lib/notes.md": "notes",
    "docs/x/deep.md": "deep",
    "we[i]rd": "w",
    "node_modules/m/index.js": "m",
}


def fill(root: Path, files: dict[str, str] = TREE) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return fill(tmp_path / "context")


def chosen(
    root: Path,
    *patterns: str,
    to: str = "/to/",
    ignore: str = "",
    parents: bool = False,
    excludes: tuple[str, ...] = (),
) -> dict[str, list[str]]:
    """Source → what is taken below it; a file alone has one entry without a name."""
    rules = IgnoreRules.parse(ignore) if ignore else None
    source = CopySource(root=root, patterns=patterns, shown="the build context", ignore=rules)
    options = CopyOptions(destination=to, parents=parents, excludes=excludes)
    taken = take([source], options)
    return {each.path: [entry.path for entry in each.entries] for each in taken.selected}


def test_files_and_directories(tree: Path) -> None:
    assert chosen(tree, "a.txt") == {"a.txt": [""]}
    assert chosen(tree, "/a.txt", "./b.txt") == {"a.txt": [""], "b.txt": [""]}
    assert chosen(tree, "src/") == {
        "src": ["lib", "lib/notes.md", "lib/util.py", "main.py"],
    }
    assert chosen(tree, "src/../a.txt") == {"a.txt": [""]}
    assert chosen(tree, "../../a.txt") == {"a.txt": [""]}


def test_wildcards(tree: Path) -> None:
    assert chosen(tree, "*.txt") == {"a.txt": [""], "b.txt": [""]}
    assert chosen(tree, "src/*/*.py") == {"src/lib/util.py": [""]}
    assert chosen(tree, "[ab].t?t", "none*") == {"a.txt": [""], "b.txt": [""]}
    assert chosen(tree, "s*") == {"src": ["lib", "lib/notes.md", "lib/util.py", "main.py"]}
    assert chosen(tree, r"we\[i\]rd") == {"we[i]rd": [""]}
    assert chosen(tree, "z*") == {}
    with pytest.raises(InvalidArgument, match="bad pattern"):
        chosen(tree, "[a")


def test_wildcards_enter_no_link(tree: Path) -> None:
    (tree / "link").symlink_to("src")
    assert "link/main.py" not in chosen(tree, "*/main.py")
    assert chosen(tree, "link/*.py") == {"src/main.py": [""]}


def test_parents_keep_the_path(tree: Path) -> None:
    assert chosen(tree, "src/lib/util.py", parents=True) == {
        "": ["src", "src/lib", "src/lib/util.py"]
    }
    assert chosen(tree, "src/./lib/util.py", parents=True) == {"src": ["lib", "lib/util.py"]}
    assert chosen(tree, "./**/*.md", parents=True) == {
        "": ["c.md", "docs", "docs/x", "docs/x/deep.md", "src", "src/lib", "src/lib/notes.md"]
    }
    assert chosen(tree, "docs", parents=True) == {"": ["docs", "docs/x", "docs/x/deep.md"]}
    assert chosen(tree, "./s*/./lib/*.py", parents=True) == {"src": ["lib", "lib/util.py"]}
    with pytest.raises(NotFound, match=re.escape('"/src/mian.py": not found')):
        chosen(tree, "src/mian.py", parents=True)


def test_excludes(tree: Path) -> None:
    assert chosen(tree, "src", excludes=("**/*.md",)) == {"src": ["lib", "lib/util.py", "main.py"]}
    assert chosen(tree, "src", excludes=("lib", "!lib/util.py")) == {
        "src": ["lib", "lib/util.py", "main.py"]
    }
    assert chosen(tree, "*", excludes=("*.txt", "node_modules", "docs", "we*", "src")) == {
        "c.md": [""],
        "docs": ["x", "x/deep.md"],
        "node_modules": ["m", "m/index.js"],
        "src": ["lib", "lib/notes.md", "lib/util.py", "main.py"],
    }


def test_what_is_excluded_altogether_is_no_error(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    assert chosen(tree, "a.txt", excludes=("*.txt",)) == {}
    assert chosen(tree, "*.txt", excludes=("*.txt",)) == {}
    assert chosen(tree, "z*/q", parents=True) == {}


def test_names_of_downloads_are_no_patterns(tmp_path: Path) -> None:
    (tmp_path / "a[1]*").write_text("x")
    source = CopySource(root=tmp_path, patterns=("a[1]*",), shown="it", is_remote_file=True)
    options = CopyOptions(destination="/", parents=True)
    assert [each.path for each in take([source], options).selected] == ["a[1]*"]


def test_what_is_ignored_is_not_there(tree: Path) -> None:
    ignore = "node_modules\n*.md\n**/lib\n!src/lib/util.py\n"
    assert chosen(tree, ".", ignore=ignore)[""] == [
        "a.txt", "b.txt", "docs", "docs/x", "docs/x/deep.md", "src", "src/lib",
        "src/lib/util.py", "src/main.py", "we[i]rd",
    ]  # fmt: skip
    for path, rule in [
        ("c.md", '"*.md" (.dockerignore:2)'),
        ("node_modules", '"node_modules" (.dockerignore:1)'),
        ("node_modules/m/index.js", '"node_modules" (.dockerignore:1)'),
        ("src/lib/notes.md", '"**/lib" (.dockerignore:3)'),
        ("gone.md", '"*.md" (.dockerignore:2)'),
    ]:
        message = f'"/{path}": not found in the build context; it is left out by {rule}'
        with pytest.raises(NotFound, match=re.escape(message)):
            chosen(tree, path, ignore=ignore)
    assert chosen(tree, "*.*", ignore=ignore) == {"a.txt": [""], "b.txt": [""]}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("src/mian.py", 'did you mean "/src/main.py"?'),
        ("SRC/main.py", 'did you mean "/src/main.py"?'),
        ("b.text", 'did you mean "/b.txt" or "/a.txt"?'),
        ("quite-different", '"/quite-different": not found in the build context'),
        ("../quite-different", "leads out of the build context"),
        ("a.txt/below", '"/a.txt/below": not found'),
        ("dangling", 'it is a symbolic link to "../outside"'),
        ("up", 'it is a symbolic link to "../../../../../../../../../etc/passwd"'),
    ],
)
def test_near_matches_are_named(tree: Path, pattern: str, message: str) -> None:
    (tree / "dangling").symlink_to("../outside")
    (tree.parent / "outside").write_text("canary")
    (tree / "up").symlink_to("../" * 9 + "etc/passwd")
    with pytest.raises(NotFound) as caught:
        chosen(tree, pattern)
    assert message in str(caught.value)
    assert ("did you mean" in str(caught.value)) is ("did you mean" in message)


def test_a_source_that_is_a_link_is_followed_inside_its_root(tree: Path) -> None:
    (tree / "inside").symlink_to("/src/main.py")
    (tree / "dir").symlink_to("src/lib")
    (tree / "src" / "loop").symlink_to("..")
    with pytest.raises(NotFound, match="left out by"):
        chosen(tree, "inside", ignore="inside")
    with pytest.raises(NotFound, match="left out by"):
        chosen(tree, "inside", ignore="src")
    assert chosen(tree, "inside") == {"src/main.py": [""]}
    assert chosen(tree, "dir") == {"src/lib": ["notes.md", "util.py"]}
    assert chosen(tree, "src")["src"] == ["lib", "lib/notes.md", "lib/util.py", "loop", "main.py"]


def test_several_sources_need_a_directory(tree: Path) -> None:
    with pytest.raises(InvalidArgument, match="the destination must be a directory"):
        chosen(tree, "a.txt", "b.txt", to="/name")
    assert len(chosen(tree, "a.txt", "b.txt", to=".")) == 2


def test_deep_trees_are_refused(tree: Path) -> None:
    top = tree
    for _ in range(300):
        top = top / "d"
        top.mkdir()
    with pytest.raises(LimitExceeded, match="256 directories"):
        chosen(tree, ".")


# -- the digest ----------------------------------------------------------------------------


def digest(root: Path, *patterns: str, **fields: object) -> str:
    keeps = bool(fields.pop("keeps_owner", False))
    source = CopySource(root=root, patterns=patterns, shown="it", keeps_owner=keeps)
    return take([source], CopyOptions(destination="/to/", **fields)).digest  # type: ignore[arg-type]


def test_the_digest_is_of_content_names_and_modes_never_of_times(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one"), fill(tmp_path / "two")
    os.utime(one / "a.txt", ns=(5, 5))
    os.utime(two / "src", ns=(7, 7))
    assert digest(one, ".") == digest(two, ".")
    assert digest(one, "a.txt") != digest(one, "b.txt")
    before = digest(two, ".")
    (two / "a.txt").chmod(0o600)
    assert digest(two, ".") != before
    assert digest(one, ".", mode="644") == digest(two, ".", mode="644")
    (two / "a.txt").write_text("A")
    assert digest(one, ".", mode="644") != digest(two, ".", mode="644")


def test_each_difference_changes_the_digest(tmp_path: Path) -> None:
    changes = {
        "a name": lambda root: (root / "a.txt").rename(root / "aa.txt"),
        "an empty directory": lambda root: (root / "empty").mkdir(),
        "a link": lambda root: (root / "link").symlink_to("a.txt"),
        "a target": lambda root: (root / "link").symlink_to("b.txt"),
        "a file for a directory": lambda root: (root / "empty").write_text(""),
        "a fifo": lambda root: os.mkfifo(root / "empty"),
        "an attribute": lambda root: os.setxattr(root / "a.txt", "user.x", b"1"),
    }
    seen = {digest(fill(tmp_path / "plain"), "."): "nothing"}
    for name, change in changes.items():
        root = fill(tmp_path / name)
        change(root)
        assert seen.setdefault(digest(root, "."), name) == name


def test_owners_count_where_they_are_kept(tmp_path: Path) -> None:
    root = fill(tmp_path / "one")
    assert digest(root, ".") != digest(root, ".", keeps_owner=True)


def test_large_files_and_hard_links_have_their_content(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "large").write_bytes(os.urandom(3 << 20))
    os.link(root / "large", root / "same")
    (root / "small").write_bytes(b"x")
    os.link(root / "small", root / "too")
    taken = take([CopySource(root=root, patterns=(".",), shown="it")], CopyOptions(destination="/"))
    content = {entry.path: entry.content for entry in taken.selected[0].entries}
    assert content["large"] == content["same"] != content["small"] == content["too"]
    assert all(len(each) == 64 for each in content.values())


def test_the_files_are_told_with_short_digests(tree: Path) -> None:
    source = CopySource(root=tree, patterns=("src",), shown="it")
    files = take([source], CopyOptions(destination="/")).files
    assert list(files) == ["src/lib", "src/lib/notes.md", "src/lib/util.py", "src/main.py"]
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in files.values())


# -- archives ------------------------------------------------------------------------------


def archive(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        info = tarfile.TarInfo("member")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    return buffer.getvalue()


# Named, as gzip writes down when it was made: no two processes would collect the same tests.
@pytest.mark.parametrize(
    ("data", "form"),
    [
        pytest.param(archive("w:"), Form.ARCHIVE, id="tar"),
        pytest.param(archive("w:gz"), Form.ARCHIVE, id="gzip"),
        pytest.param(archive("w:bz2"), Form.ARCHIVE, id="bzip2"),
        pytest.param(archive("w:xz"), Form.ARCHIVE, id="xz"),
        pytest.param(b"", Form.FILE, id="empty"),
        pytest.param(bytes(10240), Form.FILE, id="zeros"),
        pytest.param(b"\x1f\x8b\x08 looks like gzip", Form.FILE, id="like gzip"),
        pytest.param(archive("w:gz")[:30], Form.FILE, id="cut gzip"),
        pytest.param(b"BZh9 but no", Form.FILE, id="like bzip2"),
    ],
)
def test_archives_are_known_by_their_content(tmp_path: Path, data: bytes, form: Form) -> None:
    (tmp_path / "it.tar").write_bytes(data)
    source = CopySource(root=tmp_path, patterns=("it.tar",), shown="it")
    options = CopyOptions(destination="/", unpacks=True)
    assert take([source], options).selected[0].form is form
    assert take([source], CopyOptions(destination="/")).selected[0].form is Form.FILE
    remote = CopySource(root=tmp_path, patterns=("it.tar",), shown="it", is_remote_file=True)
    assert take([remote], options).selected[0].form is Form.FILE
