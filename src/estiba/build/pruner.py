"""Pruning the cache, and keeping it within its budget: steps and the files of cache mounts."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estiba.build.cache import Cache
from estiba.build.prune import PruneOptions, Sizes, Usage, decide_prune, unreachable
from estiba.build.record import CacheRecord
from estiba.build.running.cache_mounts import CacheMounts
from estiba.images import removal
from estiba.images.images import Images
from estiba.kernel.blocking import run_apart
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, NotFound

_log = logging.getLogger(__name__)

_DISK_SHARE = 10
"""The cache may take one part in so many of the disk, unless the daemon is told otherwise."""

_LEAST_BYTES = 2 << 30
_PAUSE_S = 60.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(slots=True)
class Pruner:
    """`spawn` owns what runs in the background. A budget of 0 is a share of the disk, None no
    limit."""

    images: Images
    cache: Cache
    mounts: CacheMounts
    root: Path
    spawn: Spawn
    budget_bytes: int | None = 0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last_s: float = float("-inf")

    async def records(self) -> tuple[list[CacheRecord], set[str]]:
        """Steps and cache mounts, and the ids of those in use."""
        mounts, busy = await self._mount_records()
        return [*self.cache.records(), *mounts], self.cache.in_use() | busy

    async def _mount_records(self) -> tuple[list[CacheRecord], set[str]]:
        records, busy = [], set()
        for info in await self.mounts.list():
            record = CacheRecord(
                id=info.path.name,
                type="exec.cachemount",
                description=f"cache mount {info.id}",
                mount=info.id,
                size_bytes=await self.mounts.size_bytes(info.id),
                created_ns=info.created_ns,
                last_used_ns=info.last_used_ns,
            )
            records.append(record)
            if info.in_use:
                busy.add(record.id)
        return records, busy

    def shared(self) -> set[Digest]:
        """Layers that some image stands on."""
        return {layer for record in self.images.list_all() for layer in record.layers}

    async def prune(self, options: PruneOptions) -> tuple[list[CacheRecord], int]:
        """What went, and how many bytes that freed. Raises InvalidArgument."""
        async with self._lock:
            records, busy = await self.records()
            shared = self.shared()
            usage = Usage(busy, shared, _free_bytes(self.root), time.time_ns())
            chosen = decide_prune(records, options, usage)
            gone = []
            for record in chosen:
                if record.mount and await self._remove_mount(record):
                    gone.append(record)
            steps = [record.id for record in chosen if not record.mount]
            gone += await run_apart(self._remove, steps)
        sizes = Sizes(records, shared)
        return gone, sum(sizes.take(record) for record in gone)

    async def _remove_mount(self, record: CacheRecord) -> bool:
        """False when a step took it meanwhile, or another prune did."""
        try:
            await self.mounts.remove(record.mount)
        except (Conflict, NotFound):
            return False
        return True

    def _remove(self, record_ids: list[str]) -> list[CacheRecord]:
        gone = self.cache.remove(record_ids)
        left = unreachable(self.cache.records(), self.cache.in_use())
        gone += self.cache.remove([record.id for record in left])
        removal.collect(self.images)
        return gone

    def start_collection(self) -> None:
        """Brings the cache below its budget, in the background."""
        now = time.monotonic()
        if self.budget_bytes is not None and now > self._last_s + _PAUSE_S:
            self._last_s = now
            self.spawn(self._collect())

    async def _collect(self) -> None:
        budget = self.budget_bytes or max(_LEAST_BYTES, _disk_bytes(self.root) // _DISK_SHARE)
        records, _ = await self.records()
        if Sizes(records, self.shared()).total_bytes <= budget:
            return
        try:
            await self.prune(PruneOptions(everything=True, max_used_bytes=budget))
        except OSError:
            _log.exception("the build cache could not be brought below its budget")


def _free_bytes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def _disk_bytes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_blocks * status.f_frsize
