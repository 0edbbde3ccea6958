"""Manifests of another registry, kept as they are asked for: `Manifests` of a cache.

A tag is believed for a time, then the other registry is asked again; while that is down the
tag is served as it was. What a digest stands for never changes and is asked for once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from estiba.model.digest import Digest
from estiba.model.errors import DeadlineExceeded, NotFound, Unavailable
from estiba.registry.storage.cached_blobs import refuse
from estiba.registry.storage.errors import ManifestUnknown, NameUnknown, QuotaExceeded
from estiba.registry.storage.manifests import StoredManifests
from estiba.registry.storage.ports import Page, StoredManifest
from estiba.registry.storage.upstream import UpstreamClient

log = logging.getLogger(__name__)

_STALE_SECONDS = 10.0
"""How long a registry that is down is left alone for a tag."""

_REMEMBERED = 10_000
_STRIPES = 64


@dataclass(slots=True)
class CachedManifests:
    """`Manifests`; `clock` is monotonic."""

    local: StoredManifests
    client: UpstreamClient
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _believed: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    _asking: list[threading.Lock] = field(
        default_factory=lambda: [threading.Lock() for _ in range(_STRIPES)]
    )

    def get(self, repository: str, reference: str) -> StoredManifest:
        """Raises ManifestUnknown, and Unavailable when nothing can be said."""
        if (held := self._held(repository, reference)) is not None:
            return held
        # One client asks; the others find the answer.
        with self._asking[zlib.crc32(f"{repository}:{reference}".encode()) % _STRIPES]:
            if (held := self._held(repository, reference)) is not None:
                return held
            if ":" in reference:
                return self._fetch(repository, reference, None)
            return self._ask(repository, reference)

    def _held(self, repository: str, reference: str) -> StoredManifest | None:
        """What needs no question."""
        if ":" not in reference:
            with self._lock:
                until = self._believed.get((repository, reference), 0.0)
            if self.clock() >= until:
                return None
        with contextlib.suppress(ManifestUnknown):
            return self.local.get(repository, reference)
        return None

    def _ask(self, repository: str, tag: str) -> StoredManifest:
        held = None
        with contextlib.suppress(ManifestUnknown):
            held = self.local.get(repository, tag)
        try:
            digest = self.client.digest(repository, tag)
            if held is None or held.digest != digest:
                held = self._fetch(repository, digest, tag)
            self._believe(repository, tag, self.client.upstream.ttl)
        except ManifestUnknown as error:
            # Refused is not gone: with other credentials it may come back.
            if isinstance(error.__cause__, NotFound):
                with contextlib.suppress(ManifestUnknown):
                    self.local.delete(repository, tag)
            raise
        except (Unavailable, DeadlineExceeded, OSError) as error:
            if held is None:
                raise
            log.warning("%s:%s is served as it was: %s", repository, tag, error)
            self._believe(repository, tag, min(_STALE_SECONDS, self.client.upstream.ttl))
        return held

    def _believe(self, repository: str, tag: str, seconds: float) -> None:
        with self._lock:
            self._believed[repository, tag] = self.clock() + seconds
            self._believed.move_to_end((repository, tag))
            if len(self._believed) > _REMEMBERED:
                self._believed.popitem(last=False)

    def _fetch(self, repository: str, digest: Digest, tag: str | None) -> StoredManifest:
        try:
            manifest = self.local.get(repository, digest)
        except ManifestUnknown:
            manifest = self.client.manifest(repository, digest)
        try:
            self.local.keep(repository, manifest, tag=tag)
        except QuotaExceeded as error:
            log.warning("manifest %s of %s is not kept: %s", digest, repository, error)
        return manifest

    def put(
        self,
        repository: str,
        body: bytes,
        media_type: str,
        *,
        tag: str | None = None,
        digest: Digest | None = None,
    ) -> NoReturn:
        refuse()

    def delete(self, repository: str, reference: str) -> NoReturn:
        refuse()

    def tags(self, repository: str, *, limit: int | None = None, last: str = "") -> Page:
        """Those of the other registry; while it is down, those that are kept."""
        try:
            names = self.client.tags(repository)
        except (Unavailable, DeadlineExceeded, OSError):
            return self.local.tags(repository, limit=limit, last=last)
        names = sorted(name for name in set(names) if name > last)
        if limit is None or len(names) <= limit:
            return Page(names)
        return Page(names[:limit], more=True)

    def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Those of the other registry; while it is down, those that are kept."""
        try:
            return self.client.referrers(repository, subject)
        except NameUnknown:
            return []
        except (Unavailable, DeadlineExceeded, OSError):
            return self.local.referrers(repository, subject)
