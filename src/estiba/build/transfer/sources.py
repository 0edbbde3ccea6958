"""Where a cache comes from: an image here, or a registry.

A source is loaded once: that fetches records. A layer is fetched when a step hits, and is leased
for the caller then. Nothing that a source says is trusted: digests and limits hold for all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from estiba.build.record import CacheRecord
from estiba.build.transfer.content import Content, join, read_content, some
from estiba.build.transfer.wire import inline_cache
from estiba.distribution.blobs import BlobStream
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images import removal
from estiba.images.fetching import Fetch, Fetches
from estiba.images.images import Images
from estiba.images.manifests import MAX_INDEX_DEPTH, choose_platform, parse
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.errors import LimitExceeded, NotFound
from estiba.model.image import Descriptor, Manifest, Platform
from estiba.model.reference import Reference
from estiba.storage.hashing import Hashing
from estiba.storage.layers import LayerInfo

Moved = Callable[[int, int], None]
"""Bytes of a layer that have come, and all of them."""

_POLL_S = 0.1
_GIVE_UP_S = 10.0
_PARALLEL = 3


class CacheSource(Protocol):
    """All methods block; `fetch_layer` may be called from several threads."""

    @property
    def name(self) -> str:
        """For what is told of it."""

    def load(self) -> list[CacheRecord]:
        """Raises NotFound without a cache, Unauthorized, Unavailable, InvalidArgument,
        LimitExceeded, DataLoss."""

    def fetch_layer(self, diff_id: Digest, moved: Moved | None = None) -> LayerInfo:
        """The layer of a loaded record, leased for the caller (`Images.leases.release`).

        Raises as `load`, Cancelled.
        """

    def close(self) -> None: ...


@dataclass(slots=True)
class ImageSource:
    """An inline cache of an image that is here, whose layers are."""

    images: Images
    record: ImageRecord
    name: str

    def load(self) -> list[CacheRecord]:
        return some(inline_cache(self.record.config_json), self.name)

    def fetch_layer(self, diff_id: Digest, moved: Moved | None = None) -> LayerInfo:
        held = self.images.held_layer(diff_id)
        if held is None:
            raise NotFound(f"layer {diff_id} of {self.name} is gone")
        return held

    def close(self) -> None: ...


@dataclass(slots=True)
class RegistrySource:
    """`close` it: it keeps connections."""

    images: Images
    reference: Reference
    settings: RegistrySettings
    credentials: Credentials
    platforms: Sequence[Platform]
    cancel: CancelToken
    fetches: Fetches | None = None
    """Shared with pulls, if given, so that a layer that both want is fetched once."""

    _repository: Repository = field(init=False)
    _layers: dict[Digest, Descriptor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._repository = Repository(
            self.reference, self.settings, self.credentials, cancel=self.cancel
        )
        if self.fetches is None:
            self.fetches = Fetches(self.images, _PARALLEL)

    @property
    def name(self) -> str:
        return self.reference.familiar

    def load(self) -> list[CacheRecord]:
        target = self.reference.tagged
        top = target.digest or target.tag or ""
        found: dict[Digest, Content] = {}
        for platform in self.platforms:
            digest, manifest = self._manifest(top, platform)
            if digest not in found:
                found[digest] = read_content(manifest, self._read, self.name)
        content = join(list(found.values()))
        self._layers = content.layers
        return content.records

    def _manifest(self, target: str, platform: Platform) -> tuple[Digest, Manifest]:
        for _ in range(MAX_INDEX_DEPTH):
            fetched = self._repository.manifest(target)
            content = fetched.content
            document = parse(fetched.body, content.digest, content.media_type)
            if isinstance(document.value, Manifest):
                return document.digest, document.value
            target = choose_platform(document.value, platform, self.name).digest
        raise LimitExceeded(f"the indexes of {self.name} are nested too deeply")

    def _read(self, blob: Descriptor, limit: int) -> bytes:
        if blob.size > limit:
            raise LimitExceeded(f"the build cache {self.name} has more than {limit >> 20} MiB")
        return self._repository.read_blob(blob.digest, blob.size)

    def fetch_layer(self, diff_id: Digest, moved: Moved | None = None) -> LayerInfo:
        descriptor = self._layers.get(diff_id)
        if descriptor is None:
            raise NotFound(f"layer {diff_id} is not in the build cache {self.name}")
        leases = self.images.leases
        leases.take([diff_id])
        try:
            with leases.held([descriptor.digest]):
                info = self.images.layers.info(diff_id)
                if info is None:
                    self._fetch(descriptor, diff_id, moved)
                    info = self.images.layer_info(diff_id)
            return info
        except BaseException:
            leases.release([diff_id])
            removal.collect(self.images)
            raise

    def _fetch(self, descriptor: Descriptor, diff_id: Digest, moved: Moved | None) -> None:
        def open_blob(token: CancelToken, offset: int, hashing: Hashing) -> BlobStream:
            part = self._repository.fork(token)
            return part.blob(descriptor.digest, descriptor.size, offset=offset, hasher=hashing)

        assert self.fetches is not None
        wake = threading.Event()
        wanted = Fetch(descriptor, diff_id, self.reference.repository)
        fetch = self.fetches.join(wanted, open_blob, wake)
        try:
            while not fetch.finished.wait(_POLL_S):
                self.cancel.check()
                if moved is not None:
                    moved(fetch.offset, descriptor.size)
        finally:
            if self.fetches.leave(fetch, wake):
                fetch.finished.wait(_GIVE_UP_S)
        if fetch.error is not None:
            raise fetch.error

    def close(self) -> None:
        self._repository.close()
