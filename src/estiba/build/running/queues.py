"""Who uses what at this moment: shared by many or locked by one, in the order of their coming."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from estiba.build.ports import Waiting


@dataclass(slots=True)
class Gate:
    """Many sharers or one holder. Nobody overtakes: a sharer waits behind a holder that waits."""

    sharers: int = 0
    held: bool = False
    _waiting: deque[tuple[bool, asyncio.Future[None]]] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        return not (self.sharers or self.held or self._waiting)

    @asynccontextmanager
    async def entered(self, *, alone: bool, waiting: Waiting = nullcontext) -> AsyncIterator[None]:
        """Waits for its turn, within `waiting`; a cancelled caller leaves the queue."""
        if not self._waiting and self._has_room(alone):
            self._admit(alone)
        else:
            await self._wait(alone, waiting)
        try:
            yield
        finally:
            self._leave(alone)

    async def _wait(self, alone: bool, waiting: Waiting) -> None:
        is_admitted = False
        try:
            async with waiting():
                await self._queue(alone)
                is_admitted = True
        except BaseException:
            if is_admitted:
                self._leave(alone)
            raise

    async def _queue(self, alone: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (alone, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(alone)  # its turn had come in the same moment
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._next()
            raise

    def _has_room(self, alone: bool) -> bool:
        return not self.held and (not alone or self.sharers == 0)

    def _admit(self, alone: bool) -> None:
        if alone:
            self.held = True
        else:
            self.sharers += 1

    def _leave(self, alone: bool) -> None:
        if alone:
            self.held = False
        else:
            self.sharers -= 1
        self._next()

    def _next(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][0]):
            alone, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._admit(alone)
            turn.set_result(None)
