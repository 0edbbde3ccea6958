"""Steps found in imported caches: looked up by key, fetched, and made records of one's own.

    policy = CachePolicy(ignored, remote=RemoteCaches(hub, session, caches, warn).find)

A record that is adopted keeps its id, because the keys of the steps above are made of it; it never
takes the place of another record that has the id here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from estiba.build.cache import Session
from estiba.build.effects import settled_or_cancelled
from estiba.build.record import CacheRecord
from estiba.build.transfer.imports import Hub, ImportedCache
from estiba.model.errors import Cancelled, EstibaError


@dataclass(slots=True)
class RemoteCaches:
    """Of one build. `warn` is called from other threads too."""

    hub: Hub
    session: Session
    caches: Sequence[ImportedCache]
    warn: Callable[[str], None]
    _by_key: dict[str, list[tuple[ImportedCache, CacheRecord]]] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for cache in self.caches:
            for record in cache.records:
                for key in record.keys:
                    self._by_key.setdefault(key, []).append((cache, record))

    async def find(self, keys: Sequence[str]) -> CacheRecord | None:
        """A record that the session holds, its layer in the store; None without one.

        A cancelled caller ends the fetch, by the hub's token. Raises Cancelled.
        """
        if not any(key in self._by_key for key in keys):
            return None
        return await settled_or_cancelled(self.hub.cancel, self._find, keys)

    def _find(self, keys: Sequence[str]) -> CacheRecord | None:
        for cache, record in self._known(keys):
            try:
                return self._adopt(cache, record, keys)
            except Cancelled:
                raise
            except EstibaError as error:
                self._tell(cache, error)
        return None

    def _known(self, keys: Sequence[str]) -> Iterator[tuple[ImportedCache, CacheRecord]]:
        for key in keys:
            for cache, record in self._by_key.get(key, ()):
                here = self.session.cache.get(record.id)
                if here is None or here.layer == record.layer:
                    yield cache, record

    def _adopt(
        self, cache: ImportedCache, record: CacheRecord, asked: Sequence[str]
    ) -> CacheRecord:
        """The layer is leased until the record keeps it. Found by nothing but what was `asked`:
        of steps that no build here has come to a cache from elsewhere says nothing.
        """
        here = self.session.cache.get(record.id)
        own_keys = [key for key in record.keys if key in asked]
        now = time.time_ns()
        size = here.size_bytes if here is not None else 0
        if record.layer:
            size = cache.fetch_layer(record.layer).size_bytes
        try:
            own = msgspec.structs.replace(
                here or record,
                keys=list(dict.fromkeys([*(here.keys if here else ()), *own_keys])),
                size_bytes=size,
                created_ns=here.created_ns if here else _made_before(record, now),
                last_used_ns=now,
            )
            self.session.add(own)
        finally:
            if record.layer:
                self.hub.images.leases.release([record.layer])
        return own

    def _tell(self, cache: ImportedCache, error: EstibaError) -> None:
        """Once a cache: what is wrong with it is wrong for many steps."""
        if cache.name not in self._warned:
            self._warned.add(cache.name)
            self.warn(f"cache from {cache.name}: {error}")

    def close(self) -> None:
        for cache in self.caches:
            cache.close()


def _made_before(record: CacheRecord, now_ns: int) -> int:
    """When its step was done, and never in the future: the newest record of a key counts."""
    return min(record.created_ns, now_ns) or now_ns
