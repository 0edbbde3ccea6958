"""Layers from registries: each fetched once, however many pulls wait for it.

A blob is hashed, decompressed and unpacked as it comes. Beside that its bytes go to a partial
file, so that a later attempt, also of another process, replays them and goes on from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from estiba.distribution.blobs import BlobStream
from estiba.distribution.cancel import CancelToken
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.kernel import failpoint
from estiba.kernel.files import write_all
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import Cancelled, DataLoss, EstibaError, Unavailable
from estiba.model.image import Descriptor
from estiba.storage.compress import Decompressed
from estiba.storage.encoding import Blob, Probe
from estiba.storage.hashing import Hashing
from estiba.storage.layers import LayerInfo

_CHUNK = 1 << 18
_POLL_S = 0.1
_KEEP_BYTES = 1 << 20
"""Blobs smaller than this come again from the start."""

WAITING, DOWNLOADING, EXTRACTING, DONE = "waiting", "downloading", "extracting", "done"

OpenBlob = Callable[[CancelToken, int, Hashing], BlobStream]
"""Opens the blob from an offset on; the stream ends with the token.

It adds what it reads to the digest, which has taken what stands before the offset."""


@dataclass(slots=True)
class Fetch:
    """One layer on its way. Waiters look at the numbers whenever they like.

    It ends when it is done, fails, or the last waiter has left.
    """

    descriptor: Descriptor
    diff_id: Digest
    place: str
    """The repository that it comes from."""

    state: str = WAITING
    offset: int = 0
    waiters: list[threading.Event] = field(default_factory=list)
    """Set whenever the state changes."""

    cancel: CancelToken = field(default_factory=CancelToken)
    finished: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Fetches:
    """At most `parallel` layers at a time, in the order in which they were asked for."""

    def __init__(self, images: Images, parallel: int) -> None:
        self._images = images
        self._slots = threading.Semaphore(parallel)
        self._lock = threading.Lock()
        self._under_way: dict[Digest, Fetch] = {}

    def join(
        self,
        wanted: Fetch,
        open_blob: OpenBlob,
        wake: threading.Event,
        *,
        only_same_place: bool = False,
    ) -> Fetch:
        """`wanted`, begun, or the same layer's fetch that is under way; the caller leaves it."""
        with self._lock:
            fetch = self._under_way.get(wanted.diff_id)
            if fetch is not None and only_same_place and fetch.place != wanted.place:
                fetch = None
            if fetch is None or fetch.cancel.cancelled:
                fetch = wanted
                threading.Thread(
                    target=self._run, args=(fetch, open_blob), name="layer-fetch", daemon=True
                ).start()
                # Not before: of one that nobody works at others would wait for ever.
                self._under_way[wanted.diff_id] = fetch
            fetch.waiters.append(wake)
            return fetch

    def leave(self, fetch: Fetch, wake: threading.Event) -> bool:
        """The last one out ends what is not done; True for that one."""
        with self._lock:
            fetch.waiters.remove(wake)
            is_last = not fetch.waiters
            if is_last and not fetch.finished.is_set():
                # Within the lock, or somebody joins what is about to end.
                fetch.cancel.cancel()
        return is_last

    def _enter(self, fetch: Fetch, state: str) -> None:
        with self._lock:
            fetch.state = state
            for wake in fetch.waiters:
                wake.set()

    def _run(self, fetch: Fetch, open_blob: OpenBlob) -> None:
        held: LayerInfo | None = None
        try:
            while not self._slots.acquire(timeout=0.1):
                fetch.cancel.check()
            try:
                fetch.cancel.check()
                held = self._fetch(fetch, open_blob)
            finally:
                self._slots.release()
            fetch.state = DONE
        except Exception as error:
            fetch.error = error
        if held is not None:
            # Whoever waits has a lease of his own; who has given up collects after this.
            self._images.leases.release([held.diff_id])
        with self._lock:
            if self._under_way.get(fetch.diff_id) is fetch:
                del self._under_way[fetch.diff_id]
            fetch.finished.set()
            for wake in fetch.waiters:
                wake.set()

    def _fetch(self, fetch: Fetch, open_blob: OpenBlob) -> LayerInfo:
        while (done := self._unpack(fetch, open_blob)) is None:
            fetch.cancel.check()
        info, blob = done
        try:
            self._images.layers.note_blob(
                info.diff_id, msgspec.structs.replace(blob, places=[fetch.place])
            )
            failpoint.hit("pull.layer")
            self._images.content.remove_partial(fetch.descriptor.digest)
        except BaseException:
            self._images.leases.release([info.diff_id])
            raise
        return info

    def _unpack(self, fetch: Fetch, open_blob: OpenBlob) -> tuple[LayerInfo, Blob] | None:
        """None when what a former attempt kept was damaged, as a power cut may leave it, or when
        a mirror lied, which is not asked again.

        The partial file stays only if a later attempt can go on from it.
        """
        fetch.offset = 0
        self._enter(fetch, DOWNLOADING)
        incoming = _Incoming(self._images, fetch, open_blob)
        try:
            info = self._images.ingest(incoming, expected=fetch.diff_id, check=incoming.check_whole)
            return info, incoming.blob()
        except (Cancelled, Unavailable):
            raise
        except (EstibaError, OSError) as error:
            self._images.content.remove_partial(fetch.descriptor.digest)
            if isinstance(error, OSError) or not incoming.may_be_better():
                raise
            return None
        finally:
            incoming.close()


class _Incoming:
    """A blob as it comes: first what a former attempt kept, then the registry's bytes."""

    def __init__(self, images: Images, fetch: Fetch, open_blob: OpenBlob) -> None:
        self._fetch = fetch
        self._open_blob = open_blob
        self._size = fetch.descriptor.size
        self._hashing = Hashing(fetch.descriptor.digest.partition(":")[0])
        self._probe = Probe()
        self._stream: BlobStream | None = None
        self._file: BinaryIO | None = None
        self._replay_bytes = 0
        if self._size >= _KEEP_BYTES:
            path = images.content.partial_path(fetch.descriptor.digest)
            self._file = path.open("a+b", buffering=0)
            kept = os.fstat(self._file.fileno()).st_size
            self._replay_bytes = kept if kept <= self._size else 0
            if not self._replay_bytes:
                self._file.truncate(0)
            self._file.seek(0)
        self._was_resumed = self._replay_bytes > 0
        self._tar: Decompressed | None = None

    def read(self, size: int = _CHUNK, /) -> bytes:
        """The layer's tar."""
        if self._tar is None:
            self._tar = Decompressed(_Raw(self))
        piece = self._tar.read(size)
        self._probe.plain(piece)
        if not piece:
            self._fetch.state = EXTRACTING
        return piece

    def raw(self, size: int) -> bytes:
        """The blob's next bytes. Raises Cancelled, Unavailable, DataLoss."""
        self._fetch.cancel.check()
        piece = self._replayed(size) or self._received(size)
        self._probe.raw(piece)
        self._fetch.offset += len(piece)
        return piece

    def _replayed(self, size: int) -> bytes:
        if not self._replay_bytes or self._file is None:
            return b""
        piece = self._file.read(min(size, self._replay_bytes))
        self._replay_bytes -= len(piece)
        self._hashing.update(piece)
        return piece

    def _received(self, size: int) -> bytes:
        if self._fetch.offset >= self._size:
            return b""
        if self._stream is None:
            self._stream = self._open_blob(self._fetch.cancel, self._fetch.offset, self._hashing)
        piece = self._stream.read(size)
        if self._file is not None and piece:
            write_all(self._file, piece)
        return piece

    def check_whole(self) -> None:
        """Before the layer appears. Raises DataLoss."""
        while self.raw(_CHUNK):
            pass
        descriptor = self._fetch.descriptor
        if self._fetch.offset != descriptor.size:
            raise DataLoss(
                f"layer {descriptor.digest} has {self._fetch.offset} bytes instead of "
                f"{descriptor.size}"
            )
        if self._hashing.hexdigest() != hex_of(descriptor.digest):
            raise DataLoss(f"layer {descriptor.digest} came with another digest")

    def may_be_better(self) -> bool:
        """Whether another attempt could bring other bytes."""
        was_mirrored = self._stream is not None and self._stream.blame()
        return was_mirrored or self._was_resumed

    def blob(self) -> Blob:
        return Blob(
            digest=self._fetch.descriptor.digest,
            size=self._size,
            media_type=self._fetch.descriptor.media_type,
            encoding=self._probe.encoding(),
        )

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._file is not None:
            self._file.close()
        self._hashing.close()


class _Raw:
    def __init__(self, incoming: _Incoming) -> None:
        self._incoming = incoming

    def read(self, size: int, /) -> bytes:
        return self._incoming.raw(size)


def watch(reports: list[tuple[str, Fetch]], wake: threading.Event) -> Iterator[Progress]:
    """What the fetches do, until all are done. Raises what one of them failed with."""
    shown: dict[str, tuple[str, int]] = {}
    waiting = list(reports)
    while waiting:
        wake.clear()
        for name, fetch in list(waiting):
            is_over = fetch.finished.is_set()
            if is_over and fetch.error is not None:
                raise fetch.error
            yield from _changes(name, fetch, shown)
            if is_over:
                waiting.remove((name, fetch))
        if waiting:
            wake.wait(_POLL_S)


def _changes(name: str, fetch: Fetch, shown: dict[str, tuple[str, int]]) -> Iterator[Progress]:
    state, offset, total = fetch.state, fetch.offset, fetch.descriptor.size
    before = shown.get(name, ("", -1))
    if before == (state, offset):
        return
    shown[name] = (state, offset)
    if state == WAITING:
        yield Progress("Waiting", name)
    elif state == DOWNLOADING:
        yield Progress("Downloading", name, offset, total)
    else:
        if before[0] not in (EXTRACTING, DONE):
            yield Progress("Verifying Checksum", name)
            yield Progress("Download complete", name)
        if state == EXTRACTING:
            yield Progress("Extracting", name, total, total)
        if state == DONE:
            yield Progress("Pull complete", name)
