"""Layers and workspaces of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.leaks import HostState, assert_clean

from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces


@pytest.fixture
def layers(tmp_path: Path) -> LayerStore:
    store = LayerStore(tmp_path / "images", Limits())
    store.open()
    return store


@pytest.fixture
def spaces(tmp_path: Path, layers: LayerStore) -> Iterator[Workspaces]:
    before = HostState.read(only=str(tmp_path))
    made = Workspaces(tmp_path / "build", layers)
    made.open()
    yield made
    assert_clean(before, only=str(tmp_path))
