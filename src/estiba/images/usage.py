"""When each image was last used: a container was made of it, or it was pulled, loaded or saved.

Kept apart from the images' records, and written without a wait, because it stands on the path
of `run`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from estiba.model.digest import Digest
from estiba.store import Store

KIND = "image-usage"
_GRAIN_NS = 60 * 10**9
"""A use this soon after another is not written down."""


class Usage:
    """May be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._times_ns: dict[Digest, int] = {}

    def open(self) -> None:
        for row in self._store.load(KIND):
            self._times_ns[row.id] = int(row.body)

    def note(self, image: Digest) -> None:
        """Never blocks on the disk."""
        now = time.time_ns()
        with self._lock:
            is_fresh = now - self._times_ns.get(image, 0) < _GRAIN_NS
            if not is_fresh:
                self._times_ns[image] = now
        if not is_fresh:
            self._store.start_commit(lambda tx: tx.put(KIND, image, str(now).encode()))

    def forget_others(self, images: Collection[Digest]) -> None:
        """All but those of `images`: a crash may come between an image's end and its use's."""
        for image in [known for known in self._times_ns if known not in images]:
            self.forget(image)

    def forget(self, image: Digest) -> None:
        with self._lock:
            known = self._times_ns.pop(image, None)
        if known is not None:
            self._store.start_commit(lambda tx: tx.delete(KIND, image))

    def last_ns(self, image: Digest) -> int:
        """Nanoseconds since the epoch; 0 when it was never used."""
        with self._lock:
            return self._times_ns.get(image, 0)
