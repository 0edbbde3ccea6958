"""Workspaces on the kernel: what a step leaves becomes a layer, whoever stands on it meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kernel.storage.steps import assert_nothing_left, done, ignored, names, step
from tests.support.trees import describe

from estiba.model.errors import (
    Conflict,
    FailedPrecondition,
    NotFound,
)
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces

pytestmark = pytest.mark.kernel


EVERYTHING = """
mkdir -p dir/sub "dir/$(printf 'n%.0s' $(seq 150))"
printf content > file; chmod 4755 file; chown 1000:2000 file
ln file dir/hard; ln -s ../file dir/sub/soft; ln dir/sub/soft dir/other-soft
mkfifo fifo; mknod null c 1 3; mknod disk b 7 200
head -c 3000000 /dev/urandom > big; truncate -s 5M sparse; : > empty
head -c 513 /dev/zero > odd; head -c 512 /dev/zero > even
printf long > "dir/$(printf 'n%.0s' $(seq 150))/$(printf 'f%.0s' $(seq 200))"
printf bytes > "$(printf 'not-utf8-\\377')"; chown 3000000:4000000000 empty
touch -d @-5.5 old 2>/dev/null || : > old; touch -d 2400-01-01 future; chmod 1777 dir
"""


def test_an_upper_directory_is_its_layer(
    layers: LayerStore, spaces: Workspaces, tmp_path: Path
) -> None:
    spaces.prepare("one", [])
    with spaces.mounted("one") as root:
        subprocess.run(["sh", "-ec", EVERYTHING], cwd=root, check=True)
        os.setxattr(root / "file", "user.note", b"a\0b=\n")
        os.setxattr(root / "dir", "user.note", b"kept")
        os.setxattr(root / "odd", "security.capability", bytes.fromhex("01000002" + "00" * 16))
        os.setxattr(root / "even", "trusted.note", b"not kept")
        expected = describe(root)
    del expected["even"]
    inode = (spaces.root / "work/one/upper/big").stat().st_ino
    info = spaces.commit(spaces.freeze("one"), ignored)
    tar = b"".join(layers.tar(info.diff_id))
    assert info.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert (info.tar_bytes, layers.info(info.diff_id)) == (len(tar), info)
    assert (layers.diff_path(info.diff_id) / "big").stat().st_ino == inode
    there = LayerStore(tmp_path / "other", Limits())
    there.open()
    assert there.ingest(io.BytesIO(tar)) == info
    found = describe(there.diff_path(info.diff_id))
    del found["even"]
    assert found == expected
    listed = subprocess.run(["tar", "t"], input=tar, capture_output=True, check=True)
    assert (listed.stderr, len(listed.stdout.splitlines())) == (b"", len(expected) + 1)


def test_sockets_and_foreign_attributes_stay_out(layers: LayerStore, spaces: Workspaces) -> None:
    spaces.prepare("one", [])
    with spaces.mounted("one") as root, socket.socket(socket.AF_UNIX) as made:
        here = os.open(root, os.O_PATH)
        made.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        (root / "file").write_text("x")
        os.setxattr(root / "file", "trusted.note", b"x")
    info = spaces.commit(spaces.freeze("one"), ignored)
    tar = b"".join(layers.tar(info.diff_id))
    assert (b"socket" in tar, b"trusted" in tar, info.tar_bytes) == (False, False, 512 * 4)


def test_the_same_tree_gives_the_same_digest(spaces: Workspaces) -> None:
    script = "mkdir a; echo 1 > a/b; echo 2 > c; touch -d @1000000000.123 a/b c a"
    assert done(spaces, "one", [], script) == done(spaces, "two", [], f"touch z; rm z; {script}")
    assert_nothing_left(spaces)


def test_no_time_is_later_than_asked(spaces: Workspaces, layers: LayerStore) -> None:
    base = done(spaces, "base", [], "mkdir old; touch old/a gone; touch -d @500 old/a gone old")
    step(spaces, "one", [base], "rm gone; mkdir d; echo 1 > d/f; ln -s f d/l; ln d/f g; "
         "touch -d @800 early; chmod 700 old/a")  # fmt: skip
    frozen = spaces.freeze("one", newest_ns=900 * 10**9)
    diff = layers.diff_path(spaces.commit(frozen, ignored).diff_id)
    times = {path.name: path.lstat().st_mtime_ns // 10**9 for path in [diff, *diff.rglob("*")]}
    assert times.pop("gone") > 900
    assert times == {
        "diff": 900, "d": 900, "f": 900, "l": 900, "g": 900, "early": 800, "old": 500, "a": 500,
    }  # fmt: skip


def test_the_roots_owner_and_mode_go_from_step_to_step(spaces: Workspaces) -> None:
    base = done(spaces, "base", [], "chmod 1770 .; chown 5:6 .")
    step(spaces, "one", [base])
    assert not spaces.is_changed("one")
    with spaces.mounted("one") as root:
        assert (root.stat().st_uid, stat.S_IMODE(root.stat().st_mode)) == (5, 0o1770)
        root.chmod(0o700)
    assert spaces.is_changed("one")
    info = spaces.commit(spaces.freeze("one"), ignored)
    assert b"".join(spaces.layers.tar(info.diff_id)).startswith(b"./\0")


def test_what_changed_nothing_says_so(spaces: Workspaces) -> None:
    base = done(spaces, "base", [], "echo 1 > a")
    step(spaces, "one", [base], "cat a; touch b; rm b")
    assert not spaces.is_changed("one")
    step(spaces, "two", [base], "rm a")
    assert spaces.is_changed("two")
    frozen = spaces.freeze("two")
    assert spaces.freeze("two") is frozen
    assert spaces.is_changed("two")
    spaces.discard("one")
    spaces.discard("two")
    assert_nothing_left(spaces)


def test_a_workspace_is_mounted_again_and_once_at_a_time(spaces: Workspaces) -> None:
    step(spaces, "one", [], "echo 1 > a")
    step(spaces, "one", [], "echo 2 >> a")
    with spaces.mounted("one") as root:
        assert (root / "a").read_text() == "1\n2\n"
        with pytest.raises(Conflict, match="mounted"), spaces.mounted("one"):
            pass
        with pytest.raises(FailedPrecondition, match="mounted"):
            spaces.freeze("one")
    spaces.freeze("one")
    with pytest.raises(Conflict, match="over"), spaces.mounted("one"):
        pass


def test_a_missing_layer_is_a_clear_error(spaces: Workspaces) -> None:
    missing = "sha256:" + "1" * 64
    with pytest.raises(NotFound, match="missing"):
        spaces.prepare("one", [missing])
    with pytest.raises(NotFound, match="missing"), spaces.view([missing]):
        pass
    with pytest.raises(NotFound, match="no such workspace"):
        spaces.freeze("one")


def test_views_are_read_only_and_hide_what_was_deleted(spaces: Workspaces) -> None:
    base = done(spaces, "base", [], "mkdir d; echo 1 > d/a; echo 1 > b")
    step(spaces, "one", [base], "rm b; rm -r d; mkdir d; echo 2 > d/c")
    frozen = spaces.freeze("one")
    with (
        spaces.view([]) as empty,
        spaces.view([base]) as below,
        spaces.view([base, frozen]) as all_,
    ):
        assert (os.listdir(empty), sorted(os.listdir(below))) == ([], ["b", "d"])
        assert [sorted(files) for _, _, files in os.walk(all_)] == [[], ["c"]]
        for root in (empty, below, all_):
            with pytest.raises(OSError, match="Read-only"):
                (root / "x").write_text("x")
        spaces.commit(frozen, ignored)
        assert (all_ / "d/c").read_text() == "2\n"
    assert names(spaces, [base, frozen]) == ["d", "d/c"]


def test_a_layer_that_is_there_already(spaces: Workspaces, layers: LayerStore) -> None:
    """The one beside it goes only when nobody stands on it."""
    script = "mkdir d; echo 1 > d/a; touch -d @1 d/a d"
    step(spaces, "one", [], script)
    step(spaces, "two", [], script)
    one, two = spaces.freeze("one"), spaces.freeze("two")
    kept: list[str] = []
    with spaces.view([two]) as root:
        first = spaces.commit(one, kept.append)
        assert spaces.commit(two, kept.append) == first
        assert spaces.commit(two, kept.append) == first
        assert (root / "d/a").read_text() == "1\n"
        assert spaces.used_layers() == {first.diff_id}
    assert kept == [first.diff_id] * 3
    assert one.diff_id == two.diff_id == first.diff_id
    assert names(spaces, [one, two, first.diff_id]) == ["d", "d/a"]
    spaces.discard("one")
    spaces.discard("two")
    assert list(layers.diff_ids()) == [first.diff_id]
    assert spaces.used_layers() == set()
    assert_nothing_left(spaces)


def test_a_chain_of_steps_upon_what_is_still_being_hashed(spaces: Workspaces) -> None:
    stack: list = [done(spaces, "base", [], "mkdir common; echo base > common/file")]
    with ThreadPoolExecutor(4) as pool:
        commits = []
        for number in range(100):
            key = f"step{number}"
            spaces.prepare(key, stack)
            with spaces.mounted(key) as root:
                assert len(list((root / "common").iterdir())) == number + 1
                (root / "common" / f"f{number}").write_bytes(os.urandom(50_000))
                (root / "common" / "file").write_text(str(number))
            stack.append(spaces.freeze(key))
            commits.append(pool.submit(spaces.commit, stack[-1], ignored))
        infos = [commit.result() for commit in commits]
    assert [frozen.diff_id for frozen in stack[1:]] == [info.diff_id for info in infos]
    found = names(spaces, [stack[0], *(info.diff_id for info in infos)])
    assert found == names(spaces, stack)
    assert len(found) == 102
    for info in infos:
        assert sum(map(len, spaces.layers.tar(info.diff_id))) == info.tar_bytes
    assert_nothing_left(spaces)


def test_many_threads_view_what_is_committed(spaces: Workspaces) -> None:
    stop = threading.Event()
    stack: list = [done(spaces, "base", [], "echo 1 > f0")]

    def look() -> int:
        count = 0
        while not stop.is_set():
            whole = list(stack)
            with spaces.view(whole) as root:
                assert len(list(root.iterdir())) == len(whole)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        watchers = [pool.submit(look) for _ in range(3)]
        for number in range(1, 25):
            step(spaces, f"s{number}", stack, f"echo {number} > f{number}")
            stack.append(spaces.freeze(f"s{number}"))
            spaces.commit(stack[-1], ignored)
        stop.set()
        assert all(watcher.result() for watcher in watchers)
    assert_nothing_left(spaces)


def test_several_layers_as_one(spaces: Workspaces, layers: LayerStore) -> None:
    base = done(spaces, "base", [], "mkdir d e k; touch d/x d/y e/x f g k/x; echo 0 > h")
    scripts = [
        "mkdir -p p/q; touch p/q/1 p/q/2 v",
        "rm p/q/1 v; rm f; echo 1 > d/new; rm d/x; "
        " rm -r e; mkdir e; echo 1 > e/own; ln d/new hard; rm -r k",
        "rm d/y; rm -r e; echo 2 > e; rm g; mkdir g; echo 2 > g/x; chmod 711 d; mkdir k; "
        "touch k/z; chown 7:8 d/new; ln -s d link; mkfifo pipe; touch w; rm h",
        "rm hard; rm e; mkdir e; touch e/last; rm g/x; touch h; mknod n c 1 3; rm w; touch d/y",
    ]
    stack = [base]
    for number, script in enumerate(scripts):
        stack.append(done(spaces, f"s{number}", stack, script))
    merged = spaces.merged(stack[1:], "merged", below=[base])
    with spaces.view(stack) as many, spaces.view([base, merged]) as one:
        assert describe(one) == describe(many)
    whole = spaces.commit(spaces.merged(stack, "whole", below=[]), ignored)
    alone = spaces.commit(merged, ignored)
    with spaces.view(stack) as many, spaces.view([whole.diff_id]) as one:
        assert describe(one) == describe(many)
    with spaces.view([base, alone.diff_id]) as one, spaces.view(stack) as many:
        assert describe(one) == describe(many)
    hidden = {path.name for path in layers.diff_path(alone.diff_id).iterdir()}
    assert (hidden & {"f", "w", "v"}) == {"f"}  # the others do not lie below
    with pytest.raises(NotFound, match="missing"):
        spaces.merged([base, "sha256:" + "2" * 64], "bad", below=[])
    assert_nothing_left(spaces)
