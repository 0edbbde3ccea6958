"""Blobs of another registry, kept as they are asked for: `Blobs` and `Uploads` of a cache."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from estiba.distribution.blobs import BlobStream
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError, Unavailable
from estiba.registry.storage.blobs import StoredBlobs
from estiba.registry.storage.errors import BlobUnknown, QuotaExceeded, ReadOnly
from estiba.registry.storage.flight import Flight, Landed
from estiba.registry.storage.ports import BlobInfo, Opened, UploadWriter
from estiba.registry.storage.uploads import StoredUploads
from estiba.registry.storage.upstream import UpstreamClient

log = logging.getLogger(__name__)

_CHUNK = 256 << 10
_REMEMBERED = 10_000
_ATTEMPTS = 3
_STRIPES = 256


@dataclass(slots=True)
class PassedOn:
    """`Opened` of what is not kept."""

    stack: contextlib.ExitStack
    stream: BlobStream
    size: int
    fd: int | None = None

    def read(self, limit: int, /) -> bytes:
        return self.stream.read(limit)

    def close(self) -> None:
        self.stack.close()


@dataclass(slots=True)
class CachedBlobs:
    """`Blobs`; a blob is downloaded once, however many ask for it meanwhile.

    `spool` is a directory for what is under way to a bucket.
    """

    local: StoredBlobs
    uploads: StoredUploads
    client: UpstreamClient
    spool: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _flights: dict[tuple[str, Digest], Flight] = field(default_factory=dict)
    _starting: list[threading.Lock] = field(
        default_factory=lambda: [threading.Lock() for _ in range(_STRIPES)]
    )
    _sizes: OrderedDict[tuple[str, Digest], int] = field(default_factory=OrderedDict)
    _threads: set[threading.Thread] = field(default_factory=set)

    def stat(self, repository: str, digest: Digest) -> BlobInfo:
        try:
            return self.local.stat(repository, digest)
        except BlobUnknown:
            return BlobInfo(digest, self._size(repository, digest))

    def _size(self, repository: str, digest: Digest) -> int:
        """Raises BlobUnknown, Unavailable."""
        key = repository, digest
        with self._lock:
            if key in self._sizes:
                return self._sizes[key]
        size = self.client.blob_size(repository, digest)
        with self._lock:
            self._sizes[key] = size
            if len(self._sizes) > _REMEMBERED:
                self._sizes.popitem(last=False)
        return size

    def open(self, repository: str, digest: Digest, offset: int = 0) -> Opened:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(BlobUnknown):
                return self.local.open(repository, digest, offset)
            with contextlib.suppress(Landed):
                return self._fly(repository, digest, offset)
        raise Unavailable(f"blob {digest} does not come: try again")

    def _fly(self, repository: str, digest: Digest, offset: int) -> Opened:
        """Raises Landed when it is there now, BlobUnknown, Unavailable, OSError."""
        key = repository, digest
        with self._starting[zlib.crc32(f"{repository}@{digest}".encode()) % _STRIPES]:
            with self._lock:
                flight = self._flights.get(key)
            if flight is None:
                size = self._size(repository, digest)
                if self._adopt(repository, digest, size):
                    raise Landed
                try:
                    self.local.contents.usage.check_link(repository, digest, size)
                except QuotaExceeded:
                    return self._pass_on(repository, digest, size, offset)
                flight = self._start(repository, digest, size)
            return flight.board(offset)

    def _adopt(self, repository: str, digest: Digest, size: int) -> bool:
        """Whether another repository brought it already: the other registry has it in both."""
        contents = self.local.contents
        with contents.locked(digest):
            try:
                if contents.size(digest) != size:
                    return False
                contents.usage.check_link(repository, digest, size)
                self.local.hold(repository, digest, size)
            except (BlobUnknown, QuotaExceeded):
                return False
        return True

    def _pass_on(self, repository: str, digest: Digest, size: int, offset: int) -> Opened:
        log.warning("the cache is full: blob %s of %s is not kept", digest, repository)
        stack = contextlib.ExitStack()
        try:
            remote = stack.enter_context(self.client.repository(repository, quick=False))
            stream = stack.enter_context(remote.blob(digest, size, offset=offset))
        except BaseException:
            stack.close()
            raise
        return PassedOn(stack, stream, size)

    def _start(self, repository: str, digest: Digest, size: int) -> Flight:
        upload = self.uploads.begin(repository)
        try:
            writer = self.uploads.append(repository, upload)
            grown = writer.appender.fd
            spool = None
            if grown is None:
                # A bucket gives nothing back before an upload is whole.
                grown = spool = _unnamed_file(self.spool)
            flight = Flight(size, os.dup(grown))
        except BaseException:
            self.uploads.cancel(repository, upload)
            raise
        download = _Download(self, repository, digest, upload, writer, flight, spool)
        thread = threading.Thread(target=download.run, name=f"download {digest}", daemon=True)
        with self._lock:
            self._flights[repository, digest] = flight
            self._threads.add(thread)
        thread.start()
        return flight

    def ended(self, repository: str, digest: Digest) -> None:
        """The download's last word."""
        with self._lock:
            self._flights.pop((repository, digest), None)
            self._threads.discard(threading.current_thread())

    def location(self, repository: str, digest: Digest, *, method: str = "GET") -> str | None:
        try:
            return self.local.location(repository, digest, method=method)
        except BlobUnknown:
            return None

    def mount(self, repository: str, digest: Digest, *, source: str) -> NoReturn:
        refuse()

    def delete(self, repository: str, digest: Digest) -> NoReturn:
        refuse()

    def close(self) -> None:
        """Downloads under way break off and leave nothing."""
        self.client.cancel.cancel()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()


def _unnamed_file(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.dup(file.fileno())


@dataclass(slots=True)
class _Download:
    """One thread's work: from the other registry into an upload, and to whoever reads along."""

    blobs: CachedBlobs
    repository: str
    digest: Digest
    upload: str
    writer: UploadWriter
    flight: Flight
    spool: int | None

    def run(self) -> None:
        failure: Exception | None = Unavailable("the download was given up")
        try:
            with self.writer:
                self._receive()
            self.blobs.uploads.finish(self.repository, self.upload, self.digest)
            failure = None
        except (EstibaError, OSError) as error:
            failure = error
            log.warning("download of %s for %s: %s", self.digest, self.repository, error)
            with contextlib.suppress(EstibaError, OSError):
                self.blobs.uploads.cancel(self.repository, self.upload)
        finally:
            self.flight.land(failure)
            if self.spool is not None:
                os.close(self.spool)
            self.blobs.ended(self.repository, self.digest)

    def _receive(self) -> None:
        client = self.blobs.client
        with (
            client.repository(self.repository, quick=False) as remote,
            remote.blob(self.digest, self.flight.size) as stream,
        ):
            while piece := stream.read(_CHUNK):
                self.writer.write(piece)
                rest = memoryview(piece)
                while self.spool is not None and rest:
                    rest = rest[os.write(self.spool, rest) :]
                self.flight.advance(len(piece))


def refuse() -> NoReturn:
    raise ReadOnly("this registry is a cache of another one: push and delete there")


class NoUploads:
    """`Uploads` of a cache."""

    def begin(self, repository: str) -> NoReturn:
        refuse()

    def offset(self, repository: str, upload: str) -> NoReturn:
        refuse()

    def append(self, repository: str, upload: str, *, offset: int | None = None) -> NoReturn:
        refuse()

    def finish(self, repository: str, upload: str, digest: Digest) -> NoReturn:
        refuse()

    def cancel(self, repository: str, upload: str) -> NoReturn:
        refuse()
