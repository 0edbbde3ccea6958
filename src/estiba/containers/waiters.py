"""Whoever waits for the next end of a run, or for the removal."""

from __future__ import annotations

import asyncio

from estiba.containers.ports import Exit


class Waiters:
    """Futures of one thing to come; each `resolve` settles those that wait then."""

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[Exit]] = []

    def future(self) -> asyncio.Future[Exit]:
        """Registered at once, so nothing that follows is missed."""
        made: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._futures = [future for future in self._futures if not future.done()]
        self._futures.append(made)
        return made

    def resolve(self, outcome: Exit) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(outcome)
        self._futures.clear()
