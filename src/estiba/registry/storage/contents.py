"""The bytes of blobs, whichever repositories hold them.

A blob that nothing refers to is taken out of use by moving it to `estiba/doomed`, and deleted a
grace period later. Whoever reaches it through a link meanwhile, because the link came while
the collection was on its way, brings it back: so no push loses a blob, even one through another
instance that shares no locks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from estiba.kernel import failpoint
from estiba.model.digest import Digest
from estiba.registry.storage import keys
from estiba.registry.storage.errors import BlobUnknown
from estiba.registry.storage.ports import Driver, Opened
from estiba.registry.storage.quota import Usage

log = logging.getLogger(__name__)

_STRIPES = 256
DEFAULT_GRACE_SECONDS = 24 * 3600.0
MAX_LINK_BYTES = 200


@dataclass(slots=True)
class Contents:
    """Blobs by digest. `grace` in seconds; `clock` is time since 1970."""

    driver: Driver
    usage: Usage
    grace: float = DEFAULT_GRACE_SECONDS
    clock: Callable[[], float] = time.time
    _locks: list[threading.RLock] = field(
        default_factory=lambda: [threading.RLock() for _ in range(_STRIPES)]
    )

    @contextlib.contextmanager
    def locked(self, digest: Digest) -> Iterator[None]:
        """Holds off whoever adds, links, unlinks or dooms this digest in this process."""
        with self._locks[zlib.crc32(digest.encode()) % _STRIPES]:
            yield

    def open(self, digest: Digest, offset: int = 0) -> Opened:
        """Raises BlobUnknown."""
        try:
            return self.driver.open(keys.blob(digest), offset)
        except FileNotFoundError:
            self._revive(digest)
        try:
            return self.driver.open(keys.blob(digest), offset)
        except FileNotFoundError as error:
            raise unknown_blob(digest) from error

    def size(self, digest: Digest) -> int:
        """Raises BlobUnknown."""
        try:
            return self.driver.stat(keys.blob(digest)).size
        except FileNotFoundError:
            self._revive(digest)
        try:
            return self.driver.stat(keys.blob(digest)).size
        except FileNotFoundError as error:
            raise unknown_blob(digest) from error

    def read(self, digest: Digest) -> bytes:
        """A small one, a manifest. Raises BlobUnknown."""
        self.size(digest)
        return self.driver.read(keys.blob(digest))

    def add_object(self, digest: Digest, source: str, size: int) -> None:
        """Makes the object `source`, whose bytes were checked, the blob. Hold its lock."""
        self.driver.move(source, keys.blob(digest))
        self.usage.blob_stored(digest, size)
        failpoint.hit("registry.stored")

    def add_bytes(self, digest: Digest, data: bytes) -> None:
        """Hold its lock."""
        with contextlib.suppress(FileNotFoundError):
            if self.driver.stat(keys.blob(digest)).size == len(data):
                return
        self.driver.write(keys.blob(digest), data)
        self.usage.blob_stored(digest, len(data))
        failpoint.hit("registry.stored")

    def link(self, key: str, digest: Digest) -> None:
        """Writes the link; the blob is there when this returns. Hold its lock.

        Raises BlobUnknown.
        """
        self.driver.write(key, digest.encode())
        failpoint.hit("registry.linked")
        # Another instance's collection may have doomed it before it could see the link.
        self.size(digest)

    def renew(self, key: str, digest: Digest) -> bool:
        """Whether the link is there; an old one becomes young, so that collection spares it.

        Where nothing can be written nobody pushes either, so that is no error.
        """
        try:
            if self.clock() - self.driver.stat(key).mtime > self.grace / 2:
                with self.locked(digest):
                    self.driver.write(key, self.driver.read(key, limit=MAX_LINK_BYTES))
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("the link %s cannot be renewed: %s", key, error)
        return True

    def doom(self, digest: Digest) -> None:
        """Takes the blob out of use. Hold its lock."""
        with contextlib.suppress(FileNotFoundError):
            since = str(int(self.clock())).encode()
            self.driver.write(keys.doomed_since(digest), since, durable=False)
            self.driver.move(keys.blob(digest), keys.doomed(digest))
            failpoint.hit("registry.doomed")
            self.usage.blob_removed(digest)

    def _revive(self, digest: Digest) -> None:
        """Brings a doomed blob back, if there is one."""
        with self.locked(digest), contextlib.suppress(FileNotFoundError):
            size = self.driver.stat(keys.doomed(digest)).size
            self.driver.move(keys.doomed(digest), keys.blob(digest))
            self.usage.blob_stored(digest, size)
            self.driver.delete(keys.doomed_since(digest))


def unknown_blob(digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"blob {digest} is not known to the registry", digest=digest)
