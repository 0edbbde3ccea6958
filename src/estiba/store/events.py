"""The event bus: hands committed events to live subscribers, in commit order.

A subscriber that does not keep up is dropped, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from estiba.model.errors import Unavailable
from estiba.model.event import Event

_MAX_BACKLOG = 4096


class Subscription:
    """Events from the moment of subscribing on; iterate it, then `close`."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(_MAX_BACKLOG)
        self._dropped = False

    def offer(self, event: Event) -> None:
        if self._dropped:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._dropped = True
            self._bus.unsubscribe(self)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yields until closed. Raises Unavailable when this reader was too slow."""
        while not (self._dropped and self._queue.empty()):
            event = await self._queue.get()
            if event is None:
                return
            yield event
        raise Unavailable(
            f"this subscriber fell more than {_MAX_BACKLOG} events behind and was dropped; "
            "subscribe again with `since`"
        )

    def close(self) -> None:
        self._bus.unsubscribe(self)
        if not self._queue.full():
            self._queue.put_nowait(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventBus:
    """One per engine; `publish` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    @property
    def subscriber_count(self) -> int:
        return len(self._subscriptions)

    def publish(self, events: list[Event]) -> None:
        """Hands `events` to the loop's subscribers; called by the store after a commit."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for subscription in list(self._subscriptions):
            for event in events:
                subscription.offer(event)
