"""The one way from the event loop to a call that may block."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MAX_THREADS = 16
_executor = ThreadPoolExecutor(max_workers=_MAX_THREADS, thread_name_prefix="blocking")


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function` in the shared thread pool and returns its result.

    A cancelled caller stops waiting; the call itself runs to its end, because a system call
    that has begun cannot be taken back.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_executor, functools.partial(function, *args, **kwargs))


def start_blocking(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Runs `function` in the shared thread pool; nobody waits for it, and it must not fail."""
    _executor.submit(functools.partial(function, *args, **kwargs))
