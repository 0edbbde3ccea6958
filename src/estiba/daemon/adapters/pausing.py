"""Containers that stand still while their files are read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from estiba.containers.actor import Actor
from estiba.model.errors import Conflict, FailedPrecondition, NotFound
from estiba.model.state import ContainerState


@asynccontextmanager
async def paused(actors: Iterable[Actor]) -> AsyncIterator[None]:
    """Those that run are paused meanwhile; the others are left as they are."""
    stopped: list[Actor] = []
    try:
        for actor in actors:
            if await _pause(actor):
                stopped.append(actor)
        yield
    finally:
        for actor in stopped:
            with contextlib.suppress(Conflict):
                await actor.unpause()


async def _pause(actor: Actor) -> bool:
    """Whether it was running and is paused now. One that ends just then needs no pause."""
    if actor.record.state != ContainerState.RUNNING:
        return False
    try:
        await actor.pause(briefly=True)
    except (Conflict, FailedPrecondition, NotFound):
        return False
    return True
