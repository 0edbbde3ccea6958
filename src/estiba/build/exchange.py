"""What one build has from elsewhere and gives away: caches in and out, pushes, outputs.

Everything that was asked for is checked before anything is built.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from estiba.build import outputs
from estiba.build.cache import Session
from estiba.build.effects import settled_or_cancelled
from estiba.build.failure import under_way
from estiba.build.outputs import Output, Parts
from estiba.build.platform import Built, Find
from estiba.build.progress import STDERR, Log, Status, Tell, Vertex
from estiba.build.record import CacheRecord
from estiba.build.request import BuildRequest
from estiba.build.transfer import specs
from estiba.build.transfer.exports import cache_layout, push_cache
from estiba.build.transfer.imports import Hub, import_caches
from estiba.build.transfer.remote import RemoteCaches
from estiba.build.transfer.specs import CacheFrom, CacheTo, parse_cache_from, parse_cache_to
from estiba.build.transfer.wire import with_inline_cache
from estiba.distribution.cancel import CancelToken
from estiba.distribution.settings import RegistrySettings
from estiba.images.fetching import Fetches
from estiba.images.images import Images
from estiba.images.progress import Progress
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError
from estiba.model.reference import Reference
from estiba.storage.snapshots import SnapshotStore

_FIRST_ID = 2_000_000_000
_CACHE = "cache"


@dataclass(frozen=True, slots=True)
class ForClient:
    """A tar that the client fetches. `index` is its place among the outputs that were asked for;
    of type `cache`, among the caches. It stands on what it `needs`, layers and content."""

    index: int
    type: str
    make: Callable[[], Iterator[bytes]]
    needs: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What exchanges need of the engine."""

    images: Images
    snapshots: SnapshotStore
    settings: RegistrySettings
    fetches: Callable[[], Fetches]


@dataclass(slots=True)
class Exchange:
    """Of one build. Making it raises InvalidArgument for what cannot be."""

    engine: Elsewhere
    request: BuildRequest
    tell: Tell
    cancel: CancelToken = field(default_factory=CancelToken)
    outputs: list[Output] = field(init=False)
    cache_from: list[CacheFrom] = field(init=False)
    cache_to: list[CacheTo] = field(init=False)
    _session: Session | None = None
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(_FIRST_ID))

    def __post_init__(self) -> None:
        self.outputs = outputs.parse_outputs(self.request.outputs, self.request.tags)
        self.cache_from = parse_cache_from(self.request.cache_from)
        self.cache_to = parse_cache_to(self.request.cache_to, self.request.build_args)

    @property
    def keeps(self) -> bool:
        """Whether the images stay in the store."""
        return not self.outputs or any(output.keeps for output in self.outputs)

    def names(self, tags: tuple[Reference, ...]) -> tuple[Reference, ...]:
        """What the images are called in the store."""
        if not self.outputs:
            return tags
        return tuple(
            dict.fromkeys(name for output in self.outputs if output.keeps for name in output.names)
        )

    # -- caches ----------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self, session: Session) -> AsyncIterator[Find | None]:
        """The imported caches, to look steps up in."""
        self._session = session
        if not self.cache_from:
            yield None
            return
        vertex = self._vertex("[internal] import caches")

        def warn(text: str) -> None:
            self.tell(Log(vertex, STDERR, f"warning: {text}\n".encode()))

        with under_way(self.tell, vertex):
            caches = await settled_or_cancelled(
                self.cancel,
                import_caches,
                self._hub(),
                self.cache_from,
                self.request.platforms or (self.engine.images.host,),
                self.request.caches,
                warn,
            )
        remote = RemoteCaches(self._hub(), session, caches, warn)
        try:
            yield remote.find
        finally:
            remote.close()

    def inline(self, config_json: bytes, built: Sequence[CacheRecord]) -> bytes:
        """The image's config, with the records of its own steps where that was asked for."""
        if not any(target.type == specs.INLINE for target in self.cache_to):
            return config_json
        vertex = self._vertex("[internal] put the cache into the image's config")
        with contextlib.suppress(EstibaError), under_way(self.tell, vertex):
            return with_inline_cache(config_json, built)
        return config_json

    def _records(self, target: CacheTo, built: Sequence[Built]) -> list[CacheRecord]:
        assert self._session is not None
        found: dict[str, CacheRecord] = {}
        for one in built:
            states = one.states.values() if target.mode == specs.MAX else [one.state]
            for state in states:
                for record_id in state.record_ids:
                    record = self._session.cache.get(record_id)
                    if record is not None:
                        found[record.id] = record
        return list(found.values())

    async def _export(self, target: CacheTo, records: list[CacheRecord]) -> None:
        vertex = self._vertex(f"[internal] export cache to {target}")
        assert target.reference is not None
        try:
            with under_way(self.tell, vertex):
                await settled_or_cancelled(
                    self.cancel,
                    push_cache,
                    self._hub(),
                    target.reference,
                    records,
                    self._teller(vertex),
                )
        except EstibaError:
            if not target.ignores_errors:
                raise

    # -- outputs ---------------------------------------------------------------------------

    async def put_out(
        self, built: Sequence[Built]
    ) -> tuple[list[tuple[str, str]], list[ForClient]]:
        """Pushes; gives names with the digests that went there, and what the client fetches."""
        images = [one.image for one in built]
        pushed: list[tuple[str, str]] = []
        for_client: list[ForClient] = []
        for output in self.outputs:
            if output.pushes:
                pushed += await self._push(output, images)
            if output.streams:
                for_client.append(self._streamed(output, built))
        for target in self.cache_to:
            records = self._records(target, built)
            if target.type == specs.REGISTRY:
                await self._export(target, records)
            elif target.type == specs.LOCAL:
                for_client.append(self._layout(target, records))
        return pushed, for_client

    async def _push(self, output: Output, images: list[ImageRecord]) -> list[tuple[str, str]]:
        names = ", ".join(name.familiar for name in output.names)
        vertex = self._vertex(f"[internal] push {names}")
        with under_way(self.tell, vertex):
            sent = await settled_or_cancelled(
                self.cancel, outputs.push, self._hub(), output, images, self._teller(vertex)
            )
        return [(one.reference.familiar, one.digest) for one in sent]

    def _streamed(self, output: Output, built: Sequence[Built]) -> ForClient:
        # With what is stated of them, because they may be gone when the client comes.
        images = outputs.current(self.engine.images, [one.image for one in built])
        epoch_s = built[0].epoch_s
        parts = Parts(
            self.engine.images,
            self.engine.snapshots,
            None if epoch_s is None else epoch_s * 10**9,
        )
        return ForClient(
            output.index,
            output.type,
            lambda: outputs.stream(parts, output, images),
            tuple(digest for image in images for digest in image.needed()),
        )

    def _layout(self, target: CacheTo, records: list[CacheRecord]) -> ForClient:
        return ForClient(
            target.index,
            _CACHE,
            lambda: cache_layout(self.engine.images, records),
            tuple(record.layer for record in records if record.layer),
        )

    # -- small things ----------------------------------------------------------------------

    def _hub(self) -> Hub:
        return Hub(
            self.engine.images,
            self.engine.settings,
            lambda reference: self.request.credentials(reference.domain),
            self.cancel,
            fetches=self.engine.fetches(),
        )

    def _vertex(self, name: str) -> Vertex:
        return Vertex(next(self._ids), name)

    def _teller(self, vertex: Vertex) -> Callable[[Progress], None]:
        def tell(one: Progress) -> None:
            current, total = max(one.current, 0), max(one.total, 0)
            self.tell(Status(vertex, one.id, one.status, current, total))

        return tell
