"""How many steps are carried out at once; one that only waits for another counts for none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Slot:
    """One step's place among `places`, taken by `async with`."""

    places: asyncio.Semaphore
    _has_place: bool = False

    async def __aenter__(self) -> Slot:
        await self.places.acquire()
        self._has_place = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._has_place:
            self._has_place = False
            self.places.release()

    @asynccontextmanager
    async def given_up(self) -> AsyncIterator[None]:
        """Others have the place meanwhile. Whoever is cancelled has none afterwards."""
        await self.__aexit__()
        yield
        await self.__aenter__()
