"""The same step wanted by several stages or builds at once is done by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Flights(Generic[T]):
    """Lives in one event loop."""

    _under_way: dict[str, asyncio.Future[T | None]] = field(default_factory=dict)

    async def join(
        self,
        key: str,
        work: Callable[[], Awaitable[T]],
        *,
        until: Callable[[T], asyncio.Future[Any] | None] = lambda _: None,
    ) -> tuple[T, bool]:
        """The result, and whether this caller did the work.

        Whoever waits does it himself when the other fails or is cancelled. A result can be joined
        until the future that `until` gives for it is done: what is found elsewhere from then on
        is not done twice in between.
        """
        while (flight := self._under_way.get(key)) is not None:
            found = await asyncio.shield(flight)
            if found is not None:
                return found, False
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        result: T | None = None
        lasting: asyncio.Future[Any] | None = None
        try:
            result = await work()
            lasting = until(result)
            return result, True
        finally:
            if lasting is None or lasting.done():
                del self._under_way[key]
            else:
                lasting.add_done_callback(lambda _: self._under_way.pop(key))
            future.set_result(result)
