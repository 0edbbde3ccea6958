"""Blocking effects awaited so that a cancellation never leaves one half done behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

from estiba.distribution.cancel import CancelToken
from estiba.kernel.blocking import run_apart, run_blocking

P = ParamSpec("P")
T = TypeVar("T")


async def finished(work: Awaitable[T]) -> T:
    """Awaits `work` to its end, even when the caller is cancelled meanwhile; then raises that."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody else will look
        raise cancelled
    return task.result()


async def settled(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`run_blocking`, but a cancelled caller waits for the call's end before it goes."""
    return await finished(run_blocking(function, *args, **kwargs))


async def settled_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same in a thread of its own, for work that takes long."""
    return await finished(run_apart(function, *args, **kwargs))


async def settled_or_cancelled(
    stop: CancelToken, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """`settled_apart` of a call that `stop` ends early."""
    task = asyncio.ensure_future(settled_apart(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.cancel()
        await finished(asyncio.wait([task]))
        if not task.cancelled():
            task.exception()  # nobody else will look
        raise


@asynccontextmanager
async def entered(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A blocking context manager; what was entered is always left again."""
    opening = asyncio.ensure_future(run_blocking(manager.__enter__))
    try:
        value = await finished(opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:
            await settled(manager.__exit__, None, None, None)
        raise
    try:
        yield value
    finally:
        await settled(manager.__exit__, None, None, None)
