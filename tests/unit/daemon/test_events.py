"""Events until a moment that comes while the client takes its time."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from estiba.daemon.adapters.system import System
from estiba.model.errors import InvalidArgument
from estiba.model.event import Event, EventType
from estiba.store import EventBus


def system(bus: EventBus) -> System:
    async def events_since(*_: object) -> list[Event]:
        return []

    parts: dict[str, Any] = dict.fromkeys(System.__dataclass_fields__)
    store = SimpleNamespace(events_since=events_since)
    return System(**{**parts, "bus": bus, "store": cast(Any, store)})


async def test_the_end_does_not_hit_who_writes_to_a_slow_client() -> None:
    bus = EventBus(asyncio.get_running_loop())
    until_ns = time.time_ns() + 200_000_000
    actions = []
    events = system(bus).events(since_ns=0, until_ns=until_ns, filters={})
    asyncio.get_running_loop().call_later(
        0.05,
        bus.publish,
        [
            Event(EventType.NETWORK, name, "1", {}, sequence=n)
            for n, name in ((1, "one"), (2, "two"))
        ],
    )
    async for event in events:
        actions.append(event["Action"])
        await asyncio.sleep(0.4)
    assert actions == ["one", "two"]
    assert bus.subscriber_count == 0


async def test_an_unknown_filter_is_told_at_once() -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        system(EventBus()).events(since_ns=0, until_ns=0, filters={"colour": ["red"]})
