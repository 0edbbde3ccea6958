"""A cache out of an OCI layout: a directory that the client sent."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from estiba.build.record import CacheRecord
from estiba.build.transfer.content import Content, join, read_content
from estiba.build.transfer.sources import Moved
from estiba.build.transfer.wire import CONFIG
from estiba.distribution.cancel import CancelToken
from estiba.images.images import Images
from estiba.images.manifests import MAX_INDEX_DEPTH, choose_platform, parse
from estiba.kernel.confined import Resolve, openat2, opened_root
from estiba.model.digest import Digest, hex_of
from estiba.model.errors import DataLoss, LimitExceeded, NotFound
from estiba.model.image import Descriptor, Index, Manifest, Platform
from estiba.storage.compress import Decompressed
from estiba.storage.encoding import Blob, Probe
from estiba.storage.layers import LayerInfo

_BELOW = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_CHUNK = 1 << 18
_MAX_JSON_BYTES = 4 << 20


@dataclass(slots=True)
class LayoutSource:
    """An OCI layout in a directory whose content is the client's."""

    images: Images
    path: Path
    platforms: Sequence[Platform]
    cancel: CancelToken
    name: str = "the local build cache"
    _layers: dict[Digest, Descriptor] = field(default_factory=dict)

    def load(self) -> list[CacheRecord]:
        body = self._file("index.json", _MAX_JSON_BYTES)
        found: dict[Digest, Content] = {}
        for platform in self.platforms:
            digest, manifest = self._manifest(body, platform)
            if digest not in found:
                found[digest] = read_content(manifest, self._read, self.name)
        content = join(list(found.values()))
        self._layers = content.layers
        return content.records

    def _manifest(self, body: bytes, platform: Platform) -> tuple[Digest, Manifest]:
        """The last of our own caches that the layout has, or the image for `platform`."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for _ in range(MAX_INDEX_DEPTH):
            document = parse(body, digest)
            if isinstance(document.value, Manifest):
                return document.digest, document.value
            chosen = _newest_cache(document.value) or choose_platform(
                document.value, platform, self.name
            )
            digest, body = chosen.digest, self._read(chosen, _MAX_JSON_BYTES)
        raise LimitExceeded(f"the indexes of {self.name} are nested too deeply")

    def _read(self, blob: Descriptor, limit: int) -> bytes:
        algorithm, _, encoded = blob.digest.partition(":")
        data = self._file(f"blobs/{algorithm}/{encoded}", limit)
        if hashlib.new(algorithm, data).hexdigest() != encoded:
            raise DataLoss(f"blob {blob.digest} of {self.name} has another digest")
        return data

    def _open(self, name: str) -> int:
        """A regular file of the layout. Raises NotFound."""
        try:
            with opened_root(self.path) as root:
                fd = openat2(root, name, os.O_PATH, 0, _BELOW)
        except OSError as error:
            raise NotFound(f"{self.name} has no {name[:200]}: {error.strerror}") from error
        try:
            # To open a device or a FIFO may do something.
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotFound(f"{name[:200]} of {self.name} is no file")
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(fd)

    def _file(self, name: str, limit: int) -> bytes:
        with os.fdopen(self._open(name), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceeded(f"{name[:200]} of {self.name} is over {limit} bytes")
        return data

    def fetch_layer(self, diff_id: Digest, moved: Moved | None = None) -> LayerInfo:
        held = self.images.held_layer(diff_id)
        if held is not None:
            return held
        descriptor = self._layers.get(diff_id)
        if descriptor is None:
            raise NotFound(f"layer {diff_id} is not in {self.name}")
        algorithm, _, encoded = descriptor.digest.partition(":")
        fd = self._open(f"blobs/{algorithm}/{encoded}")
        with closing(_BlobFile(fd, descriptor, self.cancel, moved)) as blob:
            info = self.images.ingest(blob, expected=diff_id, check=blob.check)
            self.images.layers.note_blob(diff_id, blob.noted())
        return info

    def close(self) -> None: ...


def _newest_cache(index: Index) -> Descriptor | None:
    caches = [one for one in index.manifests if one.artifact_type == CONFIG]
    return caches[-1] if caches else None


class _BlobFile:
    """A layer's tar out of a file, whose digest and size are checked on the way."""

    def __init__(
        self, fd: int, descriptor: Descriptor, cancel: CancelToken, moved: Moved | None
    ) -> None:
        self._file = os.fdopen(fd, "rb", buffering=0)
        self._descriptor = descriptor
        self._cancel, self._moved = cancel, moved
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._size = 0
        self._probe = Probe()
        self._tar: Decompressed | None = None

    def read(self, size: int, /) -> bytes:
        if self._tar is None:
            self._tar = Decompressed(_Raw(self))
        piece = self._tar.read(size)
        self._probe.plain(piece)
        return piece

    def raw(self, size: int) -> bytes:
        self._cancel.check()
        piece = self._file.read(size)
        self._hash.update(piece)
        self._probe.raw(piece)
        self._size += len(piece)
        if self._moved is not None:
            self._moved(self._size, self._descriptor.size)
        return piece

    def check(self) -> None:
        """Before the layer appears. Raises DataLoss."""
        while self.raw(_CHUNK):
            pass
        wanted = self._descriptor
        if (self._hash.hexdigest(), self._size) != (hex_of(wanted.digest), wanted.size):
            raise DataLoss(f"the cached layer {wanted.digest} came with another digest or size")

    def noted(self) -> Blob:
        return Blob(
            digest=self._descriptor.digest,
            size=self._size,
            media_type=self._descriptor.media_type,
            encoding=self._probe.encoding(),
        )

    def close(self) -> None:
        self._file.close()


class _Raw:
    def __init__(self, blob: _BlobFile) -> None:
        self._blob = blob

    def read(self, size: int, /) -> bytes:
        return self._blob.raw(size)
