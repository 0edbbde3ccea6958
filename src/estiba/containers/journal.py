"""The record of one container and the one way to change it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from estiba.containers.record import KIND, ContainerRecord, encode
from estiba.containers.world import World
from estiba.model.errors import NotFound
from estiba.model.event import Event, EventType
from estiba.store import Intent, Transaction


class Journal:
    """Begins with an intent, ends with one commit of record, events and the intent's end.

    Readers see `record`. It is replaced once the new one is written, or by `hold`.
    """

    def __init__(self, record: ContainerRecord, world: World) -> None:
        self.record = record
        self._world = world

    def hold(self, record: ContainerRecord) -> None:
        """Shows what an unfinished change has made; recovery finds that by the intent alone."""
        self.record = record

    async def begin(self, verb: str, body: bytes = b"{}") -> None:
        """Notes the intent that a later `commit` ends by naming the verb."""
        record = self.record
        intent = Intent(f"{verb} {record.id}", KIND, record.id, verb, body)
        await self._world.store.commit(lambda tx: tx.add_intent(intent))

    async def commit(
        self,
        record: ContainerRecord,
        action: str | None,
        *,
        ends: str | None = None,
        begins: Intent | None = None,
        attributes: dict[str, str] | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        """The one commit of a change; `action` is its event, `ends` the verb of its intent.

        `events` are those of what it has brought up or down, and come before its own.

        Raises NotFound when the container was removed while the change waited for its turn. Who is
        cancelled meanwhile hears of it once `record` shows whether it was written.
        """
        if self._world.is_gone(record.id):
            raise NotFound(f"No such container: {record.id}")

        def write(tx: Transaction) -> None:
            tx.put(KIND, record.id, encode(record), record.name)
            if begins is not None:
                tx.add_intent(begins)
            if ends is not None:
                tx.delete_intent(f"{ends} {record.id}")
            for event in events:
                tx.add_event(event)
            if action is not None:
                tx.add_event(container_event(record, action, attributes))

        writing = asyncio.ensure_future(self._world.store.commit(write, durable=True))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            if writing.exception() is None:
                self.record = record
            raise
        self.record = record

    async def erase(self) -> None:
        """Ends a removal: record, intent and the event, and the engine forgets it."""
        record = self.record

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            tx.delete_intent(f"remove {record.id}")
            tx.add_event(container_event(record, "destroy"))

        await self._world.store.commit(write, durable=True)
        self._world.forget(record.id)

    async def announce(self, action: str, attributes: dict[str, str] | None = None) -> None:
        """Records an event that changes no state."""
        event = container_event(self.record, action, attributes)
        await self._world.store.commit(lambda tx: tx.add_event(event))


def container_event(
    record: ContainerRecord, action: str, attributes: dict[str, str] | None = None
) -> Event:
    """An event with the attributes that every container's event has."""
    facts = {**record.config.labels, "image": record.image_name, "name": record.name}
    return Event(EventType.CONTAINER, action, record.id, {**facts, **(attributes or {})})


def events_up(record: ContainerRecord) -> list[Event]:
    """What a start has mounted and connected."""
    mounted = [
        Event(
            EventType.VOLUME,
            "mount",
            plan.name,
            {
                "container": record.id,
                "destination": plan.destination,
                "driver": plan.driver,
                "propagation": plan.propagation,
                "read/write": str(plan.rw).lower(),
            },
        )
        for plan in record.mounts
        if plan.type == "volume"
    ]
    return [*mounted, *network_events(record, "connect")]


def events_down(record: ContainerRecord) -> list[Event]:
    """What the end of a run has disconnected and unmounted."""
    unmounted = [
        Event(
            EventType.VOLUME,
            "unmount",
            plan.name,
            {"container": record.id, "driver": plan.driver},
        )
        for plan in record.mounts
        if plan.type == "volume"
    ]
    return [*network_events(record, "disconnect"), *unmounted]


def network_events(record: ContainerRecord, action: str) -> list[Event]:
    """`connect` or `disconnect` of every network that the container is or was on."""
    return [
        Event(
            EventType.NETWORK,
            action,
            net.endpoint.network_id,
            {
                "container": record.id,
                "name": net.endpoint.network_name,
                "type": net.endpoint.driver,
            },
        )
        for net in record.networks
        if net.endpoint is not None
    ]
