"""Layers: unpacked once, shared by all images and containers that stand on them.

    layers/<DiffID>/diff        the layer's tree, in overlay's own form
    layers/<DiffID>/recipe      all bytes of its tar that are not file content, zstd
    layers/<DiffID>/layer.json  DiffID and sizes
    layers/<DiffID>/blobs.json  the blobs that the layer is known as elsewhere
    ingest/<random>/            a layer under way; whatever is left of it is swept at start

A layer appears by rename when it is whole. A tree in overlay's form depends on nothing below
it, so a layer exists once whatever it stands on, and layers are unpacked in any order. The
recipe with the files gives back the very tar that came in, so an image is saved with the
digests that it was loaded with, without a second copy of its content on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.allocator import give_back
from estiba.kernel.blocking import start_clearing
from estiba.kernel.confined import opened_root
from estiba.kernel.files import write_atomic
from estiba.kernel.inode_flags import spread_subdirectories
from estiba.kernel.trees import discard_tree
from estiba.model.decoding import from_json
from estiba.model.digest import Digest, hex_of, parse_diff_id
from estiba.model.errors import DataLoss, InvalidArgument, NotFound
from estiba.storage.encoding import Blob
from estiba.storage.hashing import Hashing
from estiba.storage.recipe import RecipeWriter, read_recipe
from estiba.storage.tar import Source, TarReader
from estiba.storage.unpack import Limits, Unpacker, UnpackOptions

_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 20
_QUEUE_BATCHES = 8
_MAX_BLOBS = 32


class LayerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one layer; `size_bytes` is the content of its files, `tar_bytes` its tar's."""

    diff_id: Digest
    size_bytes: int
    tar_bytes: int


@dataclass(slots=True)
class LayerStore:
    """All methods block."""

    root: Path
    limits: Limits
    _blobs_lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Makes the directories and sweeps what a crash left."""
        for name in ("layers", "ingest"):
            (self.root / name).mkdir(mode=0o710, parents=True, exist_ok=True)
        spread_subdirectories(self.root / "ingest")
        start_clearing(_discard, list((self.root / "ingest").iterdir()))

    def diff_path(self, diff_id: Digest) -> Path:
        return self._path(diff_id) / "diff"

    def _path(self, diff_id: Digest) -> Path:
        """Raises InvalidArgument for what is no DiffID: a name of a client never gets here."""
        return self.root / "layers" / hex_of(parse_diff_id(diff_id))

    def info(self, diff_id: Digest) -> LayerInfo | None:
        """None when there is no such layer."""
        try:
            body = (self._path(diff_id) / "layer.json").read_bytes()
        except FileNotFoundError:
            return None
        return from_json(body, LayerInfo)

    def diff_ids(self) -> Iterator[Digest]:
        for entry in (self.root / "layers").iterdir():
            with contextlib.suppress(InvalidArgument):  # nothing of ours
                yield parse_diff_id(f"sha256:{entry.name}")

    def ingest(
        self,
        source: Source,
        *,
        expected: Digest | None = None,
        keep: Callable[[Digest], None] | None = None,
    ) -> LayerInfo:
        """Unpacks an uncompressed layer tar; hashes it on the way.

        `keep` is told the DiffID before the layer appears, to protect it from collection.

        Raises InvalidArgument or LimitExceeded for a bad archive, DataLoss when its digest is
        not `expected`; nothing is left then.
        """
        try:
            with self.staged() as work:
                info = self._unpack(work, source)
                if expected is not None and info.diff_id != expected:
                    got = info.diff_id
                    raise DataLoss(f"layer digest mismatch: expected {expected}, got {got}")
                self.note(work, info)
                failpoint.hit("layer.unpacked")
                if keep is not None:
                    keep(info.diff_id)
                if not self.publish(work, info):
                    # Nobody need wait until the second one is gone.
                    start_clearing(discard_tree, work)
                failpoint.hit("layer.renamed")
                return info
        finally:
            give_back()

    @contextlib.contextmanager
    def staged(self) -> Iterator[Path]:
        """A directory for a layer under way: `diff` and `recipe` go in, then `note`, `publish`.

        After an error nothing is left of it.
        """
        work = self.root / "ingest" / secrets.token_hex(8)
        work.mkdir(mode=0o710)
        try:
            yield work
        except BaseException:
            discard_tree(work)
            raise

    def note(self, work: Path, info: LayerInfo) -> None:
        (work / "layer.json").write_bytes(msgspec.json.encode(info))

    def publish(self, work: Path, info: LayerInfo) -> bool:
        """The layer appears, whole. False, and nothing is done, when it is here already."""
        target = self._path(info.diff_id)
        try:
            os.rename(work, target)
        except OSError:
            if not target.exists():
                raise
            return False
        return True

    def _unpack(self, work: Path, source: Source) -> LayerInfo:
        diff = work / "diff"
        diff.mkdir(mode=0o755)
        hashing = _ReadAhead(source)
        try:
            reader = TarReader(hashing)
            with opened_root(diff) as root, RecipeWriter(work / "recipe") as recipe:
                unpacker = Unpacker(root, UnpackOptions(layer=True, limits=self.limits))
                try:
                    for entry in reader:
                        path = unpacker.apply(entry, recipe.tee(entry, reader))
                        recipe.add(entry, path)
                    unpacker.finish()
                finally:
                    unpacker.close()
                recipe.finish(reader.trailer)
            diff_id, tar_bytes = hashing.finish()
        finally:
            hashing.close()
        return LayerInfo(
            diff_id=diff_id,
            size_bytes=unpacker.bytes_written,
            tar_bytes=tar_bytes,
        )

    def tar(self, diff_id: Digest) -> Iterator[bytes]:
        """The layer's tar, bit for bit. Raises NotFound, DataLoss when files were changed."""
        info = self.info(diff_id)
        if info is None:
            raise NotFound(f"no such layer: {diff_id}")
        digest = hashlib.sha256()
        with opened_root(self.diff_path(diff_id)) as root:
            for piece in read_recipe(self._path(diff_id) / "recipe", root):
                digest.update(piece)
                yield piece
        if f"sha256:{digest.hexdigest()}" != info.diff_id:
            raise DataLoss(f"layer {diff_id} no longer gives its digest: its files were changed")

    def blobs(self, diff_id: Digest) -> list[Blob]:
        """The forms in which registries and archives had the layer; newest last."""
        try:
            body = (self._path(diff_id) / "blobs.json").read_bytes()
        except FileNotFoundError:
            return []
        return from_json(body, list[Blob])

    def note_blob(self, diff_id: Digest, blob: Blob) -> None:
        """Remembers a form of the layer, beside what is known of it already.

        It is lost with the layer, or in a power cut.
        """
        with self._blobs_lock, contextlib.suppress(FileNotFoundError):
            known = {other.digest: other for other in self.blobs(diff_id)}
            before = known.pop(blob.digest, None)
            joined = before.joined(blob) if before else blob
            if joined != before:
                self._write_blobs(diff_id, [*known.values(), joined])

    def settle_blob(self, diff_id: Digest, digest: Digest, *, is_same: bool) -> None:
        """Remembers whether a form that was made again came out as it was."""
        with self._blobs_lock, contextlib.suppress(FileNotFoundError):
            self._write_blobs(
                diff_id,
                [
                    blob.settled(is_same=is_same) if blob.digest == digest else blob
                    for blob in self.blobs(diff_id)
                ],
            )

    def _write_blobs(self, diff_id: Digest, blobs: list[Blob]) -> None:
        body = msgspec.json.encode(blobs[-_MAX_BLOBS:])
        write_atomic(self._path(diff_id) / "blobs.json", body, durable=False)

    def remove(self, *diff_ids: Digest) -> None:
        """Removes them at once; the files go in the background. Harmless for one that is gone."""
        doomed = []
        for diff_id in diff_ids:
            away = self.root / "ingest" / f"removed-{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path(diff_id), away)
                doomed.append(away)
        if doomed:
            # In one thread: many would keep those from the disk that the caller waits for.
            start_clearing(_discard, doomed)


def _discard(trees: list[Path]) -> None:
    for tree in trees:
        discard_tree(tree)


class _ReadAhead:
    """Reads in a thread of its own, and hashes in another, beside the unpacking.

    Pieces are handed over many at a time while the unpacking lags: each hand-over makes the two
    threads wait for the interpreter's lock.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queue: queue.Queue[list[bytes] | BaseException] = queue.Queue(_QUEUE_BATCHES)
        self._taken: list[bytes] = []
        self._hashing = Hashing()
        self._stop = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="layer-read", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        batch: list[bytes] = []
        size = 0
        try:
            while not self._stop and (piece := self._source.read(_CHUNK)):
                self._hashing.update(piece, is_awaited=self._queue.empty())
                batch.append(piece)
                size += len(piece)
                if size >= _BATCH_BYTES or self._queue.empty():
                    self._queue.put(batch[::-1])
                    batch, size = [], 0
            self._queue.put([b"", *batch[::-1]])
        except BaseException as error:
            self._queue.put(batch[::-1])
            self._queue.put(error)

    def read(self, _size: int, /) -> bytes:
        if self._ended:
            return b""
        while not self._taken:
            batch = self._queue.get()
            if isinstance(batch, BaseException):
                self._ended = True
                raise batch
            self._taken = batch
        piece = self._taken.pop()
        self._ended = not piece
        return piece

    def finish(self) -> tuple[Digest, int]:
        while self.read(_CHUNK):
            pass
        self._thread.join()
        return f"sha256:{self._hashing.hexdigest()}", self._hashing.size

    def close(self) -> None:
        self._stop = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()
        self._hashing.close()
