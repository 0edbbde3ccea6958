"""Layers that go."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.support.daemon import wait_until

from estiba.kernel.trees import discard_tree
from estiba.storage import layers
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits

CHAIN = "sha256:" + "ab" * 32


def test_who_removes_a_layer_does_not_wait_for_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of images is locked meanwhile, and the event loop reads it."""
    store = LayerStore(tmp_path, Limits())
    store.open()
    go_on, done = threading.Event(), threading.Semaphore(0)

    def slow(path: Path) -> None:
        assert go_on.wait(5)
        discard_tree(path)
        done.release()

    monkeypatch.setattr(layers, "discard_tree", slow)
    for _ in range(2):
        (store.diff_path(CHAIN) / "etc").mkdir(parents=True)
        store.remove(CHAIN)
        assert list(store.diff_ids()) == []
    store.remove(CHAIN)
    go_on.set()
    assert done.acquire(timeout=5) and done.acquire(timeout=5)
    assert not list((tmp_path / "ingest").iterdir())


def test_several_layers_go_at_once_but_no_other(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, Limits())
    store.open()
    several = ["sha256:" + f"{number:064x}" for number in range(20)]
    for diff_id in several:
        (store.diff_path(diff_id) / "etc").mkdir(parents=True)
    store.remove(*several[1:], CHAIN)
    assert list(store.diff_ids()) == several[:1]
    wait_until(lambda: not list((tmp_path / "ingest").iterdir()), what="their files to be gone")
