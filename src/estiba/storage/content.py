"""Content by digest: manifests, indexes, and blobs that are kept as they came.

    blobs/<algorithm>/<hex>    whole and checked
    partial/<algorithm>-<hex>  as much of a blob as has come; a later attempt goes on there

Layers are not here: they are kept unpacked, see `layers.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.files import sync_directory, write_all, write_atomic
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import DataLoss, LimitExceeded, NotFound
from estiba.storage.tar import Source

_CHUNK = 1 << 20
_ALGORITHMS = ("sha256", "sha512")


@dataclass(slots=True)
class ContentStore:
    """All methods block. Digests were checked by `parse_digest`, so they are safe as names."""

    root: Path

    def open(self) -> None:
        """Makes the directories and sweeps what a crash left."""
        (self.root / "partial").mkdir(mode=0o700, parents=True, exist_ok=True)
        for algorithm in _ALGORITHMS:
            directory = self.root / "blobs" / algorithm
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in directory.glob(".*"):
                leftover.unlink(missing_ok=True)

    def path(self, digest: Digest) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.root / "blobs" / algorithm / encoded

    def partial_path(self, digest: Digest) -> Path:
        return self.root / "partial" / digest.replace(":", "-")

    def has(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def put(self, data: bytes, digest: Digest) -> None:
        """Raises DataLoss when `digest` is not that of `data`."""
        _check(hashlib.new(digest.partition(":")[0], data).hexdigest(), digest)
        if not self.has(digest):
            write_atomic(self.path(digest), data)
        failpoint.hit("content.written")

    def read(self, digest: Digest) -> bytes:
        """Raises NotFound, or DataLoss when the file was changed."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"content {digest} is not here: pull or load the image again") from None
        _check(hashlib.new(digest.partition(":")[0], data).hexdigest(), digest)
        return data

    def ingest(self, source: Source, digest: Digest, size_bytes: int) -> None:
        """Keeps what `source` gives, unless it is here.

        Raises DataLoss for another digest or size; nothing stays.
        """
        if self.has(digest):
            _check_size(self.size(digest), size_bytes, digest)
            return
        path = self.path(digest)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        state = hashlib.new(digest.partition(":")[0])
        try:
            with temporary.open("xb", buffering=0) as file:
                written = 0
                while piece := source.read(_CHUNK):
                    written += len(piece)
                    if written > size_bytes:
                        raise LimitExceeded(f"blob {digest} is longer than its {size_bytes} bytes")
                    state.update(piece)
                    write_all(file, piece)
                _check(state.hexdigest(), digest)
                _check_size(written, size_bytes, digest)
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
        failpoint.hit("content.written")

    def size(self, digest: Digest) -> int:
        """Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"content {digest} is not here: pull or load the image again") from None

    def remove(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[Digest]:
        """What is whole."""
        for algorithm in _ALGORITHMS:
            for entry in (self.root / "blobs" / algorithm).iterdir():
                if not entry.name.startswith("."):
                    yield f"{algorithm}:{entry.name}"

    def partials(self) -> Iterator[Digest]:
        for entry in (self.root / "partial").iterdir():
            algorithm, _, encoded = entry.name.partition("-")
            yield f"{algorithm}:{encoded}"

    def remove_partial(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.partial_path(digest).unlink()


def _check(actual_hex: str, digest: Digest) -> None:
    if actual_hex != hex_of(digest):
        raise DataLoss(f"content digest mismatch: expected {digest}, got {actual_hex}")


def _check_size(actual_bytes: int, size_bytes: int, digest: Digest) -> None:
    if actual_bytes != size_bytes:
        raise DataLoss(f"blob {digest} has {actual_bytes} bytes instead of {size_bytes}")
