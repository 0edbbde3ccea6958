"""A lab for steps; what one leaves on the host fails its test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import (
    Lab,
    descriptors,
    discard,
    make_engine,
    make_lab,
    make_networks,
    remove_networks,
    unpack_busybox,
)
from tests.support.daemon import wait_until

from estiba.kernel.procfs import processes_naming
from estiba.network.networks import Networks

_PARENT = f"/estiba-test-build-{os.getpid()}"


@pytest.fixture(scope="session")
def busybox_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("busybox")
    root.chmod(0o755)
    unpack_busybox(root)
    return root


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    made = make_networks(tmp_path_factory.mktemp("networks"), f"estb{os.getpid() % 10**6}")
    try:
        yield made
    finally:
        remove_networks(made)


@pytest.fixture
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, busybox_tree: Path, networks: Networks
) -> AsyncIterator[Lab]:
    """With crun, or the runtime that is the fixture's parameter."""
    runtime = getattr(request, "param", "crun")
    engine = make_engine(tmp_path, networks, parent=_PARENT, runtime=runtime)
    lab = make_lab(tmp_path, busybox_tree, engine)
    open_before = descriptors()
    try:
        yield lab
        assert lab.leftovers() == []
        assert not list(processes_naming([str(tmp_path)]))
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("build")]
        # The move that `expect_move` begins may be under way after a step that ended at once.
        wait_until(lambda: descriptors() <= open_before, what="descriptors to be closed")
    finally:
        await lab.again().sweep()
        engine.hierarchies.remove(_PARENT)
        discard(tmp_path)
