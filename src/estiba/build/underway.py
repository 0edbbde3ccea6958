"""The builds of an engine that are under way, so that it can end them before it goes itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from estiba.model.errors import Unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ENDING_S = 60.0
"""A step hangs no longer than ten seconds in what can hang; a loaded host is slow in the rest."""


@dataclass(slots=True)
class UnderWay:
    """Lives in one event loop; `start` any number, then `close`."""

    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _is_closed: bool = False

    def start(self, build: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task's end is the end of all that the build holds. Raises Unavailable when closed."""
        if self._is_closed:
            build.close()
            raise Unavailable("the engine is about to end: build again when it is back")
        task = asyncio.create_task(build, name="build")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, patience_s: float = _ENDING_S) -> None:
        """Ends them all and waits for it, whether anybody else does or not."""
        self._is_closed = True
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=patience_s)
        if left:
            _log.error(
                "%d builds have not ended within %g s: what is left of them goes when the engine "
                "starts again", len(left), patience_s,
            )  # fmt: skip
