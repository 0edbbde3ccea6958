"""Containers that stand still while their files are read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from estiba.containers.actor import Actor
from estiba.model.errors import Conflict, EstibaError, FailedPrecondition, NotFound
from estiba.model.state import ContainerState

_log = logging.getLogger(__name__)


@asynccontextmanager
async def paused(actors: Iterable[Actor]) -> AsyncIterator[None]:
    """Those that run are paused meanwhile; the others are left as they are.

    Raises what keeps one of them from going on, once all others do.
    """
    stopped: list[Actor] = []
    try:
        for actor in actors:
            if await _pause(actor):
                stopped.append(actor)
        yield
    except BaseException:
        await _unpause(stopped)
        raise
    for error in await _unpause(stopped):
        raise error


async def _unpause(actors: Iterable[Actor]) -> list[Exception]:
    """Lets all go on; what kept some of them from it."""
    failures: list[Exception] = []
    for actor in actors:
        try:
            await actor.unpause()
        except Conflict:
            continue  # it has ended meanwhile
        except (EstibaError, OSError) as error:
            _log.exception("container %s stays paused", actor.record.name)
            failures.append(error)
    return failures


async def _pause(actor: Actor) -> bool:
    """Whether it was running and is paused now. One that ends just then needs no pause."""
    if actor.record.state != ContainerState.RUNNING:
        return False
    try:
        await actor.pause(briefly=True)
    except (Conflict, FailedPrecondition, NotFound):
        return False
    return True
