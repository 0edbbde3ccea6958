"""Snapshots that go."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.support.daemon import wait_until

from estiba.kernel.blocking import run_blocking
from estiba.kernel.trees import discard_tree
from estiba.storage import layers, snapshots
from estiba.storage.layers import LayerStore
from estiba.storage.snapshots import SnapshotStore
from estiba.storage.unpack import Limits

MANY = 50


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set no tree is deleted."""
    may_go = threading.Event()

    def slow(path: Path) -> None:
        assert may_go.wait(30)
        discard_tree(path)

    for module in (layers, snapshots):
        monkeypatch.setattr(module, "discard_tree", slow)
    return may_go


async def test_many_that_go_take_one_thread_and_none_of_the_pool(
    tmp_path: Path, go_on: threading.Event
) -> None:
    store = SnapshotStore(tmp_path / "snapshots", LayerStore(tmp_path, Limits()))
    for one in (store.layers, store):
        one.open()
    digests = [f"sha256:{number:064x}" for number in range(MANY)]
    before = set(threading.enumerate())
    for digest in digests:
        store.prepare(digest[7:], [])
        store.remove(digest[7:])
        (store.layers.diff_path(digest) / "etc").mkdir(parents=True)
        store.layers.remove(digest)
    assert store.list_keys() == []
    assert len(set(threading.enumerate()) - before) <= 1
    async with asyncio.timeout(10):
        assert await run_blocking(lambda: "done") == "done"
    go_on.set()
    trash, ingest = tmp_path / "snapshots" / "trash", tmp_path / "ingest"
    wait_until(lambda: not [*trash.iterdir(), *ingest.iterdir()], what="their files to be gone")


def test_what_a_crash_left_does_not_hold_up_the_start(
    tmp_path: Path, go_on: threading.Event
) -> None:
    leftovers = [tmp_path / "snapshots" / "trash" / "left", tmp_path / "ingest" / "left"]
    for leftover in leftovers:
        leftover.mkdir(parents=True)
    store = SnapshotStore(tmp_path / "snapshots", LayerStore(tmp_path, Limits()))
    for one in (store.layers, store):
        one.open()
    assert all(leftover.exists() for leftover in leftovers)
    go_on.set()
    wait_until(lambda: not any(map(Path.exists, leftovers)), what="them to be gone")
