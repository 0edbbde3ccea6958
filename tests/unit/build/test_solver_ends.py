"""A build that is given up: what it holds is given back, and what others stand on goes on."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from estiba.build.ops import Plan
from estiba.build.solver import Shared, Solver
from estiba.build.state import Layer, State, StepResult
from estiba.storage.layers import LayerInfo

LAYER = "sha256:" + "1" * 64
INFO = LayerInfo(diff_id=LAYER, size_bytes=1, tar_bytes=1)


class Images:
    """A layer store that takes its time; counts the leases."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.leases = self
        self.held: list[str] = []

    def held_layer(self, layer: str) -> LayerInfo:
        self.begun.set()
        assert self.go.wait(10)
        self.held.append(layer)
        return INFO

    def release(self, layers: list[str]) -> None:
        for layer in layers:
            self.held.remove(layer)


def solver(images: Images) -> Solver:
    shared = Shared(cast(Any, images), cast(Any, None), cast(Any, None), cast(Any, None))
    stage = SimpleNamespace(index=0)
    return Solver(
        shared=shared,
        plan=Plan((cast(Any, stage),), 0),
        session=cast(Any, None),
        work=cast(Any, None),
        trees=cast(Any, None),
        bases={},
        policy=cast(Any, None),
        tell=lambda _: None,
        vertices={},
        keep_failed=cast(Any, None),
    )


async def test_a_lease_that_is_taken_while_its_build_is_given_up() -> None:
    images = Images()
    one = solver(images)
    task = asyncio.create_task(one.held(LAYER))
    assert await asyncio.to_thread(images.begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    images.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    one.release()
    assert images.held == []


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_given_up_while_its_last_layer_is_hashed(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Another build may stand on that layer."""
    hashed = asyncio.Event()

    async def commit() -> LayerInfo:
        await hashed.wait()
        return INFO

    info = asyncio.create_task(commit())

    async def stage(self: Solver, _: object) -> State:
        self._commits.add(info)
        layer = Layer(LAYER, info)
        return State("r", done=((cast(Any, None), StepResult("r", layer, 0)),))

    monkeypatch.setattr(Solver, "_stage", stage)
    task = asyncio.create_task(solver(Images()).solve())
    for _ in range(times):
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    hashed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert info.result() == INFO
