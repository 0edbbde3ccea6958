"""Steps that are discarded, that fail, and that a crash cuts off: a whole layer or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kernel.storage.steps import assert_nothing_left, ignored, names, step
from tests.support.daemon import wait_until

from estiba.kernel.mounts import is_mounted
from estiba.model.errors import (
    Cancelled,
    InvalidArgument,
    LimitExceeded,
    NotFound,
)
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces

pytestmark = pytest.mark.kernel


def test_discard(spaces: Workspaces) -> None:
    spaces.prepare("one", [])
    with spaces.mounted("one") as root:
        (root / "file").write_text("x")
        spaces.discard("one")
        assert not is_mounted(root)
    spaces.discard("one")
    step(spaces, "two", [], "echo 1 > a")
    frozen = spaces.freeze("two")
    with spaces.view([frozen]) as root:
        spaces.discard("two")
        assert (root / "a").read_text() == "1\n"
        with pytest.raises(NotFound, match="discarded"), spaces.view([frozen]):
            pass
    with pytest.raises(NotFound, match="discarded"):
        spaces.commit(frozen, ignored)
    assert_nothing_left(spaces)


def test_a_discard_ends_the_commit_under_way(spaces: Workspaces, layers: LayerStore) -> None:
    step(spaces, "one", [], "truncate -s 20M a")
    frozen = spaces.freeze("one")
    with pytest.raises(Cancelled, match="discarded"):
        spaces.commit(frozen, lambda _: spaces.discard("one"))
    step(spaces, "two", [], "truncate -s 100G a")
    endless = spaces.freeze("two")
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(spaces.commit, endless, ignored)
        wait_until(lambda: bool(list((layers.root / "ingest").iterdir())), what="it to begin")
        spaces.discard("two")
        with pytest.raises(Cancelled, match="discarded"):
            commit.result()
    assert_nothing_left(spaces)
    assert list(layers.diff_ids()) == []


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("mkdir d; echo 1 > d/.wh.x", InvalidArgument, "'d/.wh.x': names that begin"),
        ("mkdir -p $(seq -s / 300)", LimitExceeded, "too deep"),
        ("truncate -s 10T big", LimitExceeded, "bytes"),
    ],
)
def test_what_no_layer_can_hold(
    spaces: Workspaces, layers: LayerStore, script: str, error: type[Exception], words: str
) -> None:
    step(spaces, "one", [], script)
    with pytest.raises(error, match=words):
        spaces.commit(spaces.freeze("one"), ignored)
    spaces.discard("one")
    assert list(layers.diff_ids()) == []
    assert_nothing_left(spaces)


@pytest.mark.parametrize("point", ["workspace.packed", "workspace.moved", "workspace.frozen"])
def test_a_failure_leaves_the_step_as_it_was(
    spaces: Workspaces, layers: LayerStore, failing: dict[str, tuple[int, str]], point: str
) -> None:
    step(spaces, "one", [], "echo 1 > a")
    failing[point] = (1, "error")
    with pytest.raises(OSError, match=point):
        spaces.commit(spaces.freeze("one"), ignored)
    assert list(layers.diff_ids()) == []
    frozen = spaces.freeze("one")
    assert frozen.diff_id is None
    assert names(spaces, [frozen]) == ["a"]
    diff_id = spaces.commit(frozen, ignored).diff_id
    assert list(layers.diff_ids()) == [diff_id]
    assert_nothing_left(spaces)


def test_a_failure_after_the_layer_appeared(
    spaces: Workspaces, layers: LayerStore, failing: dict[str, tuple[int, str]]
) -> None:
    step(spaces, "one", [], "echo 1 > a")
    failing["workspace.renamed"] = (1, "error")
    frozen = spaces.freeze("one")
    with pytest.raises(OSError, match=r"workspace\.renamed"):
        spaces.commit(frozen, ignored)
    assert list(layers.diff_ids()) == [frozen.diff_id]
    spaces.discard("one")
    assert names(spaces, [frozen]) == ["a"]
    assert_nothing_left(spaces)


_STEP = """
import sys
from pathlib import Path
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces
layers = LayerStore(Path(sys.argv[1]), Limits())
spaces = Workspaces(Path(sys.argv[2]), layers)
spaces.prepare("one", [])
with spaces.mounted("one") as root:
    (root / "a").write_text("1")
spaces.commit(spaces.freeze("one", newest_ns=0), lambda _: None)
"""


@pytest.mark.parametrize(
    ("point", "appears"),
    [("frozen", False), ("packed", False), ("moved", False), ("renamed", True)],
)
def test_a_kill_leaves_a_whole_layer_or_none(
    spaces: Workspaces, layers: LayerStore, point: str, appears: bool
) -> None:
    program = [sys.executable, "-c", _STEP, layers.root, spaces.root]
    points = {"ESTIBA_FAILPOINTS": f"workspace.{point}=kill"}
    died = subprocess.run(program, env={**os.environ, **points}, check=False)
    assert died.returncode == -signal.SIGKILL
    layers.open()
    spaces.open()
    assert_nothing_left(spaces)
    found = list(layers.diff_ids())
    assert bool(found) == appears
    for diff_id in found:
        assert sum(map(len, layers.tar(diff_id))) == 512 * 4
    subprocess.run(program, check=True)
    assert len(list(layers.diff_ids())) == 1


def test_no_space_left_for_the_recipe(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", place], check=True)
    try:
        layers = LayerStore(place / "images", Limits())
        spaces = Workspaces(place / "build", layers)
        layers.open()
        spaces.open()
        step(spaces, "one", [], "for i in $(seq 30); do mkdir d$i; done; cp /bin/true d1/a")
        filler = place / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        frozen = spaces.freeze("one")
        with pytest.raises(OSError, match="No space"):
            spaces.commit(frozen, ignored)
        assert list(layers.diff_ids()) == list((layers.root / "ingest").iterdir()) == []
        filler.unlink()
        info = spaces.commit(frozen, ignored)
        assert sum(map(len, layers.tar(info.diff_id))) == info.tar_bytes
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_a_crash_left_is_swept(spaces: Workspaces, tmp_path: Path) -> None:
    spaces.prepare("one", [])
    with spaces.mounted("one") as root, spaces.view([]) as view:
        (root / "inside").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", root / "inside"], check=True)
        after = Workspaces(spaces.root, spaces.layers)
        after.open()
        assert not (is_mounted(root) or is_mounted(root / "inside") or is_mounted(view))
        assert_nothing_left(after)
        view.mkdir()  # for this one's end
