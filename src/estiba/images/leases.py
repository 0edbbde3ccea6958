"""What work under way needs: layers, content and partial blobs that nothing may collect.

A lease in memory ends with the process; a pull has one in the database too, so that what it has
fetched outlives a crash and the next attempt goes on from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from estiba.kernel import failpoint
from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.store import Store, Transaction

KIND = "pull-lease"
_LIFETIME_NS = 24 * 3600 * 10**9
"""How long the beginning of a pull that nobody finishes takes room."""


class PullLease(msgspec.Struct, frozen=True, kw_only=True):
    """`id` says what is pulled: the next pull of the same takes it over."""

    id: str
    digests: list[Digest]
    time_ns: int


class Leases:
    """May be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._counts: dict[Digest, int] = {}
        self._pulls: dict[str, PullLease] = {}
        self._is_closed = False

    def open(self) -> None:
        for row in self._store.load(KIND):
            lease = from_json(row.body, PullLease)
            self._pulls[lease.id] = lease

    def close(self) -> None:
        """The engine stops: who loses his connection by that has not given his pull up."""
        self._is_closed = True

    def take(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._counts[digest] = self._counts.get(digest, 0) + 1

    def release(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._counts[digest] -= 1
                if not self._counts[digest]:
                    del self._counts[digest]

    @contextmanager
    def held(self, digests: Iterable[Digest]) -> Iterator[None]:
        kept = list(digests)
        self.take(kept)
        try:
            yield
        finally:
            self.release(kept)

    def begin_pull(self, pull: str, digests: Iterable[Digest]) -> None:
        """Notes what a pull is about to fetch. A power cut may take it back, nothing else."""
        lease = PullLease(id=pull, digests=list(digests), time_ns=time.time_ns())
        with self._lock:
            self._pulls[pull] = lease
        self._store.commit_blocking(lambda tx: tx.put(KIND, pull, msgspec.json.encode(lease)))
        failpoint.hit("lease.written")

    def give_up_pull(self, pull: str) -> None:
        """Nobody needs what it fetched."""
        if self._is_closed:
            return
        with self._lock:
            is_known = self._pulls.pop(pull, None) is not None
        if is_known:
            self._store.commit_blocking(lambda tx: _forget(tx, [pull]))

    def finish_pull(self, pull: str, tx: Transaction) -> None:
        """What it fetched is an image's, by the same commit."""
        _forget(tx, [pull])

    def pull_finished(self, pull: str) -> None:
        """After that commit."""
        with self._lock:
            self._pulls.pop(pull, None)

    def forget_pulls(self) -> None:
        """Those that broke off; one under way holds what it needs in memory too."""
        with self._lock:
            pulls = list(self._pulls)
            self._pulls.clear()
        self._store.commit_blocking(lambda tx: _forget(tx, pulls))
        failpoint.hit("leases.forgotten")

    @contextmanager
    def frozen(self) -> Iterator[set[Digest]]:
        """All that is leased. Until the block ends nobody takes or gives up a lease: what a lease
        is taken of is there then or it is not, and is not being collected.

        Pulls that nobody finished within a day are forgotten here.
        """
        limit = time.time_ns() - _LIFETIME_NS
        with self._lock:
            stale = [pull for pull, lease in self._pulls.items() if lease.time_ns < limit]
            for pull in stale:
                del self._pulls[pull]
            needed = set(self._counts)
            for lease in self._pulls.values():
                needed.update(lease.digests)
            yield needed
        if stale:
            self._store.commit_blocking(lambda tx: _forget(tx, stale))


def _forget(tx: Transaction, pulls: list[str]) -> None:
    for pull in pulls:
        tx.delete(KIND, pull)
