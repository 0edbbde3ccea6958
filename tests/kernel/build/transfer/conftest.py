"""An image store of its own, and registries: ours and Debian's docker-registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.build.transfer.transfer_lab import Shop
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry

from estiba.images.images import Images


@pytest.fixture
async def shop(tmp_path: Path) -> Any:
    made = Shop(tmp_path)
    yield made
    for store in made.stores:
        store.close()


@pytest.fixture
def images(shop: Shop) -> Images:
    return shop.images()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def genuine(tmp_path: Path) -> Iterator[GenuineRegistry]:
    if not GenuineRegistry.is_installed():
        pytest.skip("docker-registry is not installed")
    with genuine_registry(tmp_path / "genuine") as registry:
        yield registry
