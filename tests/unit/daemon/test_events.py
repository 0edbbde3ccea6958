"""Events until a moment that comes while the client takes its time."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from estiba.daemon.adapters import system as system_module
from estiba.daemon.adapters.system import System
from estiba.model.errors import InvalidArgument
from estiba.model.event import Event, EventType
from estiba.store import EventBus


def system(bus: EventBus, *meanwhile: Event) -> System:
    """`meanwhile` is what happens while the earlier events are read: there are none."""

    async def events_since(*_: object) -> list[Event]:
        bus.publish(meanwhile)
        await asyncio.sleep(0)
        return []

    parts: dict[str, Any] = dict.fromkeys(System.__dataclass_fields__)
    store = SimpleNamespace(events_since=events_since)
    return System(**{**parts, "bus": bus, "store": cast(Any, store)})


async def test_the_end_does_not_hit_who_writes_to_a_slow_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus = EventBus(asyncio.get_running_loop())
    both = [
        Event(EventType.NETWORK, name, "1", {}, sequence=n) for n, name in ((1, "one"), (2, "two"))
    ]
    now_ns = time.time_ns()
    # However long this takes, the end is so far away when the events come.
    monkeypatch.setattr(system_module, "time", SimpleNamespace(time_ns=lambda: now_ns))
    actions = []
    events = system(bus, *both).events(since_ns=0, until_ns=now_ns + 100_000_000, filters={})
    async for event in events:
        actions.append(event["Action"])
        await asyncio.sleep(0.2)
    assert actions == ["one", "two"]
    assert bus.subscriber_count == 0


async def test_an_unknown_filter_is_told_at_once() -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        system(EventBus()).events(since_ns=0, until_ns=0, filters={"colour": ["red"]})
