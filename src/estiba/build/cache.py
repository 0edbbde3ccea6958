"""The records of finished steps: found by key, in use, pruned.

Owns the records; layers belong to the storage package and are kept
as long as a record names them. May be called from any thread; what changes a record blocks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from estiba.build.record import KIND, CacheRecord, decode, encode
from estiba.kernel import failpoint
from estiba.model.digest import Digest
from estiba.storage.layers import LayerStore
from estiba.store import Store, Transaction

_TOUCH_NS = 60 * 10**9
"""A record's last use is not written more often than that."""


@dataclass(slots=True)
class Cache:
    """`open` it once."""

    store: Store
    layers: LayerStore
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _records: dict[str, CacheRecord] = field(default_factory=dict)
    _by_key: dict[str, str] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)

    def open(self) -> None:
        for row in self.store.load(KIND):
            self._index(decode(row.body))

    # -- finding ---------------------------------------------------------------------------

    def records(self) -> list[CacheRecord]:
        with self._lock:
            return list(self._records.values())

    def layers_kept(self) -> set[Digest]:
        """DiffIDs that some record names: they are not collected."""
        with self._lock:
            return {record.layer for record in self._records.values() if record.layer}

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A build's use of the cache: what it finds stays until the end."""
        session = Session(self)
        try:
            yield session
        finally:
            self._release(session.held)

    def take(self, keys: Iterable[str]) -> CacheRecord | None:
        """The record of the first key that has one, whole and held for the caller."""
        with self._lock:
            for key in keys:
                record = self._records.get(self._by_key.get(key, ""))
                if record is not None and self._is_whole(record):
                    self._used[record.id] = self._used.get(record.id, 0) + 1
                    return record
        return None

    def get(self, record_id: str) -> CacheRecord | None:
        with self._lock:
            return self._records.get(record_id)

    def _is_whole(self, record: CacheRecord) -> bool:
        return not record.layer or self.layers.info(record.layer) is not None

    # -- changing --------------------------------------------------------------------------

    def add(self, records: Collection[CacheRecord]) -> None:
        """New ones, held for the caller; a key leads to its newest record. Blocks."""
        with self._lock:
            for record in records:
                self._index(record)
                self._used[record.id] = self._used.get(record.id, 0) + 1
        self._write(records)
        failpoint.hit("cache.written")

    def touch(self, records: Iterable[CacheRecord]) -> None:
        """They were used just now. Blocks."""
        now = time.time_ns()
        changed = []
        with self._lock:
            for record in records:
                known = self._records.get(record.id)
                if known is not None and known.last_used_ns < now - _TOUCH_NS:
                    new = msgspec.structs.replace(known, last_used_ns=now, uses=known.uses + 1)
                    self._records[record.id] = new
                    changed.append(new)
        if changed:
            self._write(changed)

    def add_keys(self, record: CacheRecord, keys: Collection[str]) -> None:
        """Another way to find a record. Blocks."""
        with self._lock:
            known = self._records.get(record.id)
            new = [key for key in keys if known is not None and key not in known.keys]
            if known is None or not new:
                return
            joined = msgspec.structs.replace(known, keys=[*known.keys, *new])
            self._index(joined)
        self._write([joined])

    def remove(self, record_ids: Collection[str]) -> list[CacheRecord]:
        """Those that nobody uses; returns them. Their layers go when images are collected."""
        gone = []
        with self._lock:
            for record_id in record_ids:
                record = self._records.get(record_id)
                if record is None or self._used.get(record_id):
                    continue
                del self._records[record_id]
                for key in record.keys:
                    if self._by_key.get(key) == record_id:
                        del self._by_key[key]
                gone.append(record)

        def work(tx: Transaction) -> None:
            for record in gone:
                tx.delete(KIND, record.id)

        if gone:
            self.store.commit_blocking(work, durable=False)
        return gone

    def in_use(self) -> set[str]:
        with self._lock:
            return set(self._used)

    def _index(self, record: CacheRecord) -> None:
        self._records[record.id] = record
        for key in record.keys:
            self._by_key[key] = record.id

    def _write(self, records: Iterable[CacheRecord]) -> None:
        rows = [(record.id, encode(record)) for record in records]

        def work(tx: Transaction) -> None:
            for record_id, body in rows:
                tx.put(KIND, record_id, body)

        # A power cut may take the newest records; then those steps are done again.
        self.store.commit_blocking(work, durable=False)

    def _release(self, held: Iterable[str]) -> None:
        with self._lock:
            for record_id in held:
                left = self._used.get(record_id, 0) - 1
                if left > 0:
                    self._used[record_id] = left
                else:
                    self._used.pop(record_id, None)


@dataclass(slots=True)
class Session:
    """What one build holds."""

    cache: Cache
    held: list[str] = field(default_factory=list)

    def find(self, keys: Iterable[str]) -> CacheRecord | None:
        record = self.cache.take(keys)
        if record is not None:
            self.held.append(record.id)
        return record

    def add(self, record: CacheRecord) -> None:
        """Blocks."""
        self.cache.add([record])
        self.held.append(record.id)
