"""The event bus: order, late subscribers, and readers that do not keep up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from estiba.model.errors import Unavailable
from estiba.model.event import Event, EventType
from estiba.store import EventBus, Subscription, events


@pytest.fixture
async def bus() -> EventBus:
    return EventBus(asyncio.get_running_loop())


def numbered(first: int, last: int) -> list[Event]:
    return [Event(EventType.CONTAINER, str(n), "c1", sequence=n) for n in range(first, last + 1)]


async def collected(subscription: Subscription) -> list[int]:
    return [event.sequence async for event in subscription]


async def test_subscribers_see_what_comes_after_them_in_order(bus: EventBus) -> None:
    first = bus.subscribe()
    bus.publish(numbered(1, 2))
    await asyncio.sleep(0)
    second = bus.subscribe()
    thread = threading.Thread(target=bus.publish, args=(numbered(3, 5),))
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert bus.subscriber_count == 2
    first.close()
    second.close()
    assert await collected(first) == [1, 2, 3, 4, 5]
    assert await collected(second) == [3, 4, 5]
    assert bus.subscriber_count == 0


async def test_a_reader_that_waits_is_woken(bus: EventBus) -> None:
    with bus.subscribe() as subscription:
        reader = asyncio.create_task(anext(subscription.__aiter__()))
        await asyncio.sleep(0)
        bus.publish(numbered(7, 7))
        async with asyncio.timeout(5):
            assert (await reader).sequence == 7
    assert bus.subscriber_count == 0


async def test_a_slow_reader_gets_its_backlog_and_is_dropped_and_the_others_go_on(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MAX_BACKLOG", 10)
    slow, quick = bus.subscribe(), bus.subscribe()
    seen: list[int] = []
    reader = quick.__aiter__()
    for number in range(1, 31):
        bus.publish(numbered(number, number))
        await asyncio.sleep(0)
        seen.append((await anext(reader)).sequence)
    assert seen == list(range(1, 31))
    assert bus.subscriber_count == 1
    backlog: list[int] = []
    with pytest.raises(Unavailable, match=r"fell more than 10 events behind.*subscribe again"):
        async for event in slow:
            backlog.append(event.sequence)
    assert backlog == list(range(1, 11))


async def test_a_bus_without_a_loop_drops_events() -> None:
    EventBus().publish(numbered(1, 1))
