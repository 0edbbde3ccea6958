"""The records of volumes, and the events that go with a change of one.

Whoever changes a record holds the lock of its volume (`Volumes.locked`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from estiba.model.errors import NotFound
from estiba.model.event import EventType, prune_event
from estiba.store import Store, Transaction
from estiba.volumes.record import KIND, VolumeRecord, decode, encode, volume_event


class Catalog:
    """In memory what the store has. All methods but `find`, `get` and `all` block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._records: dict[str, VolumeRecord] = {}

    def load(self) -> None:
        """Reads what an earlier engine left."""
        stored = (decode(record.body) for record in self._store.load(KIND))
        self._records = {record.name: record for record in stored}

    def find(self, name: str) -> VolumeRecord | None:
        return self._records.get(name)

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def all(self) -> list[VolumeRecord]:
        """All, by name."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.name)

    def put(self, record: VolumeRecord, action: str = "") -> None:
        """Stores a record, with the event `action`."""

        def write(tx: Transaction) -> None:
            tx.put(KIND, record.name, encode(record), record.name)
            if action:
                tx.add_event(volume_event(record, action))

        self._store.commit_blocking(write, durable=True)
        with self._lock:
            self._records[record.name] = record

    def rename(self, record: VolumeRecord, other: VolumeRecord) -> None:
        """Puts `other` in the place of `record`, in one commit."""

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.name)
            tx.put(KIND, other.name, encode(other), other.name)
            tx.add_event(volume_event(other, "rename", {"oldName": record.name}))

        self._store.commit_blocking(write, durable=True)
        with self._lock:
            del self._records[record.name]
            self._records[other.name] = other

    def delete(self, name: str) -> None:
        record = self._records[name]

        def write(tx: Transaction) -> None:
            tx.delete(KIND, name)
            tx.add_event(volume_event(record, "destroy"))

        self._store.commit_blocking(write, durable=True)
        with self._lock:
            del self._records[name]

    def announce(self, name: str, action: str, attributes: Mapping[str, str]) -> None:
        """An event of the volume. Raises NotFound."""
        event = volume_event(self.get(name), action, attributes)
        self._store.commit_blocking(lambda tx: tx.add_event(event))

    def announce_prune(self, reclaimed: int) -> None:
        """The event of a prune that gave back that many bytes."""
        event = prune_event(EventType.VOLUME, reclaimed)
        self._store.commit_blocking(lambda tx: tx.add_event(event))
