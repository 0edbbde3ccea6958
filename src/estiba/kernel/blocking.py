"""From the event loop to calls that may block: the shared pool, or a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_THREADS = 16
_executor = ThreadPoolExecutor(max_workers=_MAX_THREADS, thread_name_prefix="blocking")


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function` in the shared thread pool and returns its result.

    A cancelled caller stops waiting; the call itself runs to its end, because a system call
    that has begun cannot be taken back.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_executor, functools.partial(function, *args, **kwargs))


async def run_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`run_blocking` in a thread of its own, for a call that waits for a client.

    In the pool a few clients that send nothing would take all threads from everybody else.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(T, result))

    def work() -> None:
        result, failure = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=f"apart {function}", daemon=True).start()
    return await done


def start_blocking(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Runs `function` in the shared thread pool; nobody waits for it, and it must not fail."""
    _executor.submit(functools.partial(function, *args, **kwargs))


class _Clearing:
    """One thread, while there is something to do; what it has not got to ends with the process."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._is_at_work = False

    def add(self, job: Callable[[], object]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._is_at_work:
                return
            with contextlib.suppress(RuntimeError):  # no thread is left: the next one does it
                threading.Thread(target=self._run, name="clearing", daemon=True).start()
                self._is_at_work = True

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_at_work = False
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                _log.exception("cannot clear away")


_clearing = _Clearing()


def start_clearing(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Deletes with `function` what nobody waits for and the next start finds anyway.

    One after the other: a thousand removals at once are not to be a thousand threads, and in the
    shared pool all others would wait until they are done, the end of the process too.
    """
    _clearing.add(functools.partial(function, *args, **kwargs))
