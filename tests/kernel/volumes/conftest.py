from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.leaks import HostState, assert_clean
from tests.support.stored import opened

from estiba.store import Store
from estiba.store.events import EventBus
from estiba.volumes.volumes import Volumes


@pytest.fixture(autouse=True)
def no_leaks(tmp_path: Path) -> Iterator[None]:
    before = HostState.read(only=str(tmp_path))
    yield
    assert_clean(before, only=str(tmp_path))


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    with opened(tmp_path) as volumes:
        yield volumes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "estiba.db", EventBus())
    yield store
    store.close()
