"""How many bytes are stored, in all and below prefixes of repositories, and how many may be.

The registry's usage is the bytes of its blobs, manifests among them, each once. A prefix's is
the bytes of the distinct blobs and manifests that the repositories below it hold; the same
blob below two prefixes counts in both. Bytes of uploads under way count where they go.

The numbers live in memory only: they are counted from the storage when the store is opened and
at each collection, so a crash cannot falsify them. Every note is idempotent, which lets
counting go on beside pushes. Without limits nothing is counted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from estiba.model.digest import Digest
from estiba.registry.storage.errors import QuotaExceeded


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; `prefixes` maps `team/app` to its limit: itself and `team/app/…`."""

    total: int | None = None
    prefixes: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.total is not None or bool(self.prefixes)


@dataclass(slots=True)
class _Held:
    """Blobs of one limit; `holders` empties when the last repository lets go."""

    limit: int
    bytes: int = 0
    sizes: dict[Digest, int] = field(default_factory=dict)
    holders: dict[Digest, set[str]] = field(default_factory=dict)

    def add(self, digest: Digest, size: int, holder: str) -> None:
        holders = self.holders.setdefault(digest, set())
        holders.add(holder)
        self.bytes += size - self.sizes.get(digest, 0)
        self.sizes[digest] = size

    def remove(self, digest: Digest, holder: str) -> None:
        holders = self.holders.get(digest)
        if holders is None:
            return
        holders.discard(holder)
        if not holders:
            del self.holders[digest]
            self.bytes -= self.sizes.pop(digest)


@dataclass(slots=True)
class Count:
    """A count under way; what is removed meanwhile is not counted although it was seen."""

    held: dict[str, _Held]
    removed: set[tuple[str, Digest, str]] = field(default_factory=set)


_ALL = ""
"""The key of the whole registry's limit; its one holder is the storage."""


class Usage:
    """Thread-safe."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._held = self._nothing()
        self._pending: dict[str, tuple[str, int]] = {}
        self._count: Count | None = None

    def _nothing(self) -> dict[str, _Held]:
        held = {prefix.strip("/"): _Held(limit) for prefix, limit in self._limits.prefixes.items()}
        if self._limits.total is not None:
            held[_ALL] = _Held(self._limits.total)
        return held

    @property
    def counts(self) -> bool:
        """Whether there is any limit."""
        return bool(self._held)

    @property
    def prefixes(self) -> list[str]:
        """Those with a limit."""
        return [prefix for prefix in self._held if prefix != _ALL]

    def used(self, prefix: str = "") -> int | None:
        """Bytes stored, without uploads under way; None where no limit is."""
        with self._lock:
            held = self._held.get(prefix.strip("/"))
            return held.bytes if held else None

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Numbers begin at nothing; those of before hold until the block has ended well."""
        with self._lock:
            self._count = Count(self._nothing())
        try:
            yield
            with self._lock:
                self._held = self._count.held
        finally:
            with self._lock:
                self._count = None

    def found_blob(self, digest: Digest, size: int) -> None:
        """A count came by this blob."""
        self._found(_ALL, digest, size, _ALL)

    def found_link(self, repository: str, digest: Digest, size: int) -> None:
        """A count came by this link."""
        for prefix in self.prefixes:
            if _is_below(repository, prefix):
                self._found(prefix, digest, size, repository)

    def _found(self, prefix: str, digest: Digest, size: int, holder: str) -> None:
        with self._lock:
            if self._count is None or (prefix, digest, holder) in self._count.removed:
                return
            if held := self._count.held.get(prefix):
                held.add(digest, size, holder)

    def _note(self, prefix: str, digest: Digest, size: int | None, holder: str) -> None:
        """`size` None: it is gone. Hold the lock."""
        if prefix not in self._held:
            return
        every = [self._held] if self._count is None else [self._held, self._count.held]
        for held in every:
            if size is None:
                held[prefix].remove(digest, holder)
            else:
                held[prefix].add(digest, size, holder)
        if self._count is not None:
            change = self._count.removed.add if size is None else self._count.removed.discard
            change((prefix, digest, holder))

    def blob_stored(self, digest: Digest, size: int) -> None:
        with self._lock:
            self._note(_ALL, digest, size, _ALL)

    def blob_removed(self, digest: Digest) -> None:
        with self._lock:
            self._note(_ALL, digest, None, _ALL)

    def linked(self, repository: str, digest: Digest, size: int) -> None:
        self._note_link(repository, digest, size)

    def unlinked(self, repository: str, digest: Digest) -> None:
        self._note_link(repository, digest, None)

    def _note_link(self, repository: str, digest: Digest, size: int | None) -> None:
        with self._lock:
            for prefix in self.prefixes:
                if _is_below(repository, prefix):
                    self._note(prefix, digest, size, repository)

    def claim(self, owner: str, repository: str, size: int) -> None:
        """The upload `owner` is `size` bytes now. Raises QuotaExceeded; the claim is void then."""
        if not self._held:
            return
        with self._lock:
            self._pending[owner] = (repository, size)
            try:
                for prefix, held in self._of(repository):
                    self._check(prefix, held, 0)
            except QuotaExceeded:
                del self._pending[owner]
                raise

    def release(self, owner: str) -> None:
        """The upload has ended, one way or the other."""
        with self._lock:
            self._pending.pop(owner, None)

    def check_link(self, repository: str, digest: Digest, size: int, *, owner: str = "") -> None:
        """Whether the repository may hold the blob too; `owner`'s claim becomes it.

        Raises QuotaExceeded.
        """
        if not self._held:
            return
        with self._lock:
            for prefix, held in self._of(repository):
                if digest not in held.sizes:
                    self._check(prefix, held, size, besides=owner)

    def _of(self, repository: str) -> Iterator[tuple[str, _Held]]:
        for prefix, held in self._held.items():
            if _is_below(repository, prefix):
                yield prefix, held

    def _check(self, prefix: str, held: _Held, size: int, *, besides: str = "") -> None:
        pending = sum(
            claimed
            for owner, (repository, claimed) in self._pending.items()
            if owner != besides and _is_below(repository, prefix)
        )
        if held.bytes + pending + size <= held.limit:
            return
        where = f"repositories below {prefix}" if prefix else "the registry"
        raise QuotaExceeded(
            f"quota exceeded: {where} may hold {held.limit} bytes and holds {held.bytes}; "
            "delete images and let the registry collect garbage, or raise the limit",
            limit=held.limit,
            used=held.bytes,
        )


def _is_below(repository: str, prefix: str) -> bool:
    return prefix in (_ALL, repository) or repository.startswith(f"{prefix}/")
