"""Containers that stand still for a while, and go on whatever happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from estiba.containers.actor import Actor
from estiba.daemon.adapters.pausing import paused
from estiba.model.errors import Conflict, Unavailable
from estiba.model.state import ContainerState


class Paused:
    """An actor that runs; `failure` is what its going on raises."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.record = SimpleNamespace(state=ContainerState.RUNNING, name="web")
        self.failure = failure

    async def pause(self, *, briefly: bool) -> None:
        assert briefly
        self.record.state = ContainerState.PAUSED

    async def unpause(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.record.state = ContainerState.RUNNING


def actors(*found: Paused) -> list[Actor]:
    return cast(Any, list(found))


async def test_one_that_cannot_go_on_holds_no_other() -> None:
    stuck, other, ended = Paused(Unavailable("no space")), Paused(), Paused(Conflict("ended"))
    with pytest.raises(Unavailable, match="no space"):
        async with paused(actors(ended, stuck, other)):
            assert other.record.state == ContainerState.PAUSED
    assert other.record.state == ContainerState.RUNNING


async def test_what_went_wrong_meanwhile_is_what_is_told() -> None:
    stuck, other = Paused(OSError("too many processes")), Paused()
    with pytest.raises(ValueError, match="the archive"):
        async with paused(actors(stuck, other)):
            raise ValueError("the archive")
    assert other.record.state == ContainerState.RUNNING
