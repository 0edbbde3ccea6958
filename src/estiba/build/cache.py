"""The records of finished steps: found by key, in use, pruned.

Owns the records; layers belong to the storage package and are kept as long as a record names
them. May be called from any thread; what changes a record blocks.
"""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)

_TOUCH_NS = 60 * 10**9
"""The row of a record is not written more often than that for a use alone."""

_MAX_KEYS = 16
"""What is copied from a stage that is built again and again has a new key each time."""


@dataclass(slots=True)
class Cache:
    """`open` it once."""

    store: Store
    layers: LayerStore
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _records: dict[str, CacheRecord] = field(default_factory=dict)
    _by_key: dict[str, str] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)
    _written_use_ns: dict[str, int] = field(default_factory=dict)
    """The last use that a record's row tells."""

    def open(self) -> None:
        unreadable = []
        for row in self.store.load(KIND):
            try:
                record = decode(row.body)
                self._index(record)
                self._written_use_ns[record.id] = record.last_used_ns
            except msgspec.DecodeError:
                unreadable.append(row.id)
        if unreadable:
            _log.warning(
                "%d records of the build cache are of another form: dropped", len(unreadable)
            )
            self._write(unreadable)

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
                    self._hold(record.id)
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
                self._hold(record.id)
        try:
            self._write([record.id for record in records])
        except BaseException:
            with self._lock:
                for record in records:
                    self._forget(record)
            self._release([record.id for record in records])
            raise
        failpoint.hit("cache.written")

    def touch(self, records: Iterable[CacheRecord]) -> None:
        """They were used just now. Blocks."""
        now = time.time_ns()
        changed = []
        with self._lock:
            for record in records:
                known = self._records.get(record.id)
                if known is None:
                    continue
                new = msgspec.structs.replace(known, last_used_ns=now, uses=known.uses + 1)
                self._records[record.id] = new
                if self._written_use_ns.get(record.id, now) < now - _TOUCH_NS:
                    changed.append(record.id)
        if changed:
            self._write(changed)

    def add_keys(self, record: CacheRecord, keys: Collection[str]) -> None:
        """Another way to find a record. Of very many the oldest are forgotten. Blocks."""
        with self._lock:
            known = self._records.get(record.id)
            if known is None or all(key in known.keys for key in keys):
                return
            joined = [*(key for key in known.keys if key not in keys), *keys][-_MAX_KEYS:]
            self._forget(known)
            self._index(msgspec.structs.replace(known, keys=joined))
        self._write([record.id])

    def remove(self, record_ids: Collection[str]) -> list[CacheRecord]:
        """Those that nobody uses; returns them. Their layers go when images are collected."""
        gone = []
        with self._lock:
            for record_id in record_ids:
                record = self._records.get(record_id)
                if record is not None and not self._used.get(record_id):
                    self._forget(record)
                    gone.append(record)
        if gone:
            self._write([record.id for record in gone])
        return gone

    def in_use(self) -> set[str]:
        with self._lock:
            return set(self._used)

    def _index(self, record: CacheRecord) -> None:
        self._records[record.id] = record
        for key in record.keys:
            other = self._records.get(self._by_key.get(key, ""))
            if other is None or _age(other) <= _age(record) or not self._is_whole(other):
                self._by_key[key] = record.id

    def _forget(self, record: CacheRecord) -> None:
        self._records.pop(record.id, None)
        self._written_use_ns.pop(record.id, None)
        for key in record.keys:
            if self._by_key.get(key) == record.id:
                del self._by_key[key]

    def _hold(self, record_id: str) -> None:
        self._used[record_id] = self._used.get(record_id, 0) + 1

    def _write(self, record_ids: Collection[str]) -> None:
        """Rows become what their records are when their turn comes, whoever changed them since."""

        def work(tx: Transaction) -> None:
            with self._lock:
                known = [(one, self._records.get(one)) for one in record_ids]
                for record_id, record in known:
                    if record is not None:
                        self._written_use_ns[record_id] = record.last_used_ns
            for record_id, record in known:
                if record is None:
                    tx.delete(KIND, record_id)
                else:
                    tx.put(KIND, record_id, encode(record))

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


def _age(record: CacheRecord) -> tuple[int, str]:
    return record.created_ns, record.id
