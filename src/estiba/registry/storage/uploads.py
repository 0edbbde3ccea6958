"""Uploads under way: `Uploads` over a driver.

`_uploads/<uuid>/startedat` makes an upload, `data` beside it grows. While one process sees all
bytes it hashes them as they come; what came before a restart or through another instance is
read again at the end. A blob appears by moving the checked data, then by its link.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from estiba.kernel import failpoint
from estiba.model.digest import Digest
from estiba.registry.storage import keys
from estiba.registry.storage.blobs import StoredBlobs
from estiba.registry.storage.errors import (
    DigestInvalid,
    OffsetInvalid,
    QuotaExceeded,
    UploadInvalid,
    UploadUnknown,
)
from estiba.registry.storage.ports import Appender, BlobInfo

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1 << 20
_MAX_HASHES = 4096
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(slots=True)
class _Running:
    """The sha256 of the first `size` bytes."""

    hash: _Hash = field(default_factory=hashlib.sha256)
    size: int = 0


@dataclass(slots=True)
class StoredUploads:
    """`Uploads`; one request at a time works on an upload."""

    blobs: StoredBlobs
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: set[str] = field(default_factory=set)
    _running: OrderedDict[str, _Running] = field(default_factory=OrderedDict)

    def begin(self, repository: str) -> str:
        upload = str(uuid.uuid4())
        self.blobs.contents.usage.claim(upload, repository, 0)
        self.blobs.contents.usage.release(upload)
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        driver = self.blobs.contents.driver
        driver.write(keys.upload_started(repository, upload), started, durable=False)
        self._keep(upload, _Running())
        return upload

    def _keep(self, upload: str, running: _Running) -> None:
        with self._lock:
            self._running[upload] = running
            while len(self._running) > _MAX_HASHES:
                self._running.popitem(last=False)

    def offset(self, repository: str, upload: str) -> int:
        self._check(repository, upload)
        return self.blobs.contents.driver.upload_size(keys.upload_data(repository, upload))

    def _check(self, repository: str, upload: str) -> None:
        if _ID.fullmatch(upload):
            with contextlib.suppress(FileNotFoundError):
                self.blobs.contents.driver.stat(keys.upload_started(repository, upload))
                return
        raise UploadUnknown(f"no upload {upload[:64]} in the repository {repository}: begin anew")

    def append(self, repository: str, upload: str, *, offset: int | None = None) -> Writer:
        self._check(repository, upload)
        self._take(upload)
        try:
            appender = self.blobs.contents.driver.append(keys.upload_data(repository, upload))
            if offset is not None and offset != appender.size:
                appender.close()
                raise OffsetInvalid(
                    f"the chunk begins at {offset}, the upload ends at {appender.size}",
                    offset=appender.size,
                )
            with self._lock:
                running = self._running.pop(upload, None)
        except BaseException:
            self._give_back(upload)
            raise
        if running is None and appender.size == 0:
            running = _Running()
        if running is not None and running.size != appender.size:
            running = None
        return Writer(self, repository, upload, appender, running)

    def _take(self, upload: str) -> None:
        with self._lock:
            if upload in self._busy:
                raise UploadInvalid(f"another request is working on the upload {upload}")
            self._busy.add(upload)

    def _give_back(self, upload: str) -> None:
        with self._lock:
            self._busy.discard(upload)

    def end_append(self, writer: Writer) -> None:
        """Called by the writer when its request is over."""
        if writer.running is not None:
            self._keep(writer.upload, writer.running)
        self._give_back(writer.upload)

    def finish(self, repository: str, upload: str, digest: Digest) -> BlobInfo:
        self._check(repository, upload)
        self._take(upload)
        try:
            return self._finish(repository, upload, digest)
        finally:
            self._give_back(upload)

    def _finish(self, repository: str, upload: str, digest: Digest) -> BlobInfo:
        contents = self.blobs.contents
        data = keys.upload_data(repository, upload)
        contents.driver.seal(data)
        size, actual = self._hash(upload, data, digest.partition(":")[0])
        if actual != digest:
            self._discard(repository, upload)
            raise DigestInvalid(
                f"the blob is {actual}, not {digest} as promised: send it again", digest=digest
            )
        failpoint.hit("registry.checked")
        with contents.locked(digest):
            try:
                contents.usage.check_link(repository, digest, size, owner=upload)
            except QuotaExceeded:
                self._discard(repository, upload)
                raise
            contents.add_object(digest, data, size)
            self.blobs.hold(repository, digest, size)
        self._discard(repository, upload)
        return BlobInfo(digest, size)

    def _hash(self, upload: str, data: str, algorithm: str) -> tuple[int, Digest]:
        driver = self.blobs.contents.driver
        with contextlib.closing(driver.open(data)) as opened:
            running = self._running.get(upload)
            if algorithm == "sha256" and running is not None and running.size == opened.size:
                return running.size, f"sha256:{running.hash.hexdigest()}"
            state = hashlib.new(algorithm)
            while piece := opened.read(_CHUNK):
                state.update(piece)
            return opened.size, f"{algorithm}:{state.hexdigest()}"

    def cancel(self, repository: str, upload: str) -> None:
        self._check(repository, upload)
        self._take(upload)
        try:
            self._discard(repository, upload)
        finally:
            self._give_back(upload)

    def _discard(self, repository: str, upload: str) -> None:
        with self._lock:
            self._running.pop(upload, None)
        self.blobs.contents.usage.release(upload)
        self.blobs.contents.driver.delete_tree(keys.upload(repository, upload))

    def expire(self, repository: str, upload: str, is_idle: Callable[[], bool]) -> bool:
        """Removes an upload if nobody works on it and it still `is_idle`."""
        try:
            self._take(upload)
        except UploadInvalid:
            return False
        try:
            if not is_idle():
                return False
            self._discard(repository, upload)
        finally:
            self._give_back(upload)
        return True

    def over_quota(self, writer: Writer) -> None:
        """The upload of `writer` is not to grow and goes."""
        writer.running = None
        writer.appender.abandon()
        self._discard(writer.repository, writer.upload)


@dataclass(slots=True)
class Writer:
    """`UploadWriter` of one request."""

    uploads: StoredUploads
    repository: str
    upload: str
    appender: Appender
    running: _Running | None

    @property
    def offset(self) -> int:
        return self.appender.size

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        usage = self.uploads.blobs.contents.usage
        if usage.counts:
            try:
                usage.claim(self.upload, self.repository, self.appender.size + len(data))
            except QuotaExceeded:
                self.uploads.over_quota(self)
                raise
        if self.running is None:
            self.appender.write(data)
            return
        # Whatever breaks off in between, a hash that does not fit the size is of no use later.
        self.running.hash.update(data)
        self.running.size += len(data)
        self.appender.write(data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.appender.close()
        finally:
            self.uploads.end_append(self)
