"""The caches that a build asks for (`--cache-from`): which there are, and where each is.

    caches = import_caches(hub, specs, platforms, layouts, warn)
    for cache in caches:
        cache.records                    # look a key up
        cache.fetch_layer(diff_id)       # on a hit; leased for the caller
        cache.close()

A cache that is missing, broken or out of reach is a warning and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from estiba.build.record import CacheRecord
from estiba.build.transfer.layouts import LayoutSource
from estiba.build.transfer.sources import CacheSource, ImageSource, Moved, RegistrySource
from estiba.build.transfer.specs import CacheFrom
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.images.fetching import Fetches
from estiba.images.images import Images
from estiba.model.digest import Digest
from estiba.model.errors import Cancelled, EstibaError, NotFound
from estiba.model.image import Platform
from estiba.model.reference import Reference
from estiba.storage.layers import LayerInfo


@dataclass(frozen=True, slots=True)
class Hub:
    """What exports and imports of one build need; `cancel` ends all of them."""

    images: Images
    settings: RegistrySettings
    credentials: Callable[[Reference], Credentials]
    cancel: CancelToken
    parallel: int = 3
    fetches: Fetches | None = None
    """Of the engine's pulls, so that a layer that both want is fetched once."""


@dataclass(frozen=True, slots=True)
class ImportedCache:
    """One cache that was found; `name` for what is told of it."""

    name: str
    records: list[CacheRecord]
    source: CacheSource

    def fetch_layer(self, diff_id: Digest, moved: Moved | None = None) -> LayerInfo:
        """Leased for the caller, who ends that with `Images.leases.release([diff_id])`. Blocks.

        Raises NotFound, Unauthorized, Unavailable, InvalidArgument, LimitExceeded, DataLoss,
        Cancelled. Whatever it is but the last: the step is a miss.
        """
        return self.source.fetch_layer(diff_id, moved)

    def close(self) -> None:
        self.source.close()


def import_caches(
    hub: Hub,
    specs: Sequence[CacheFrom],
    platforms: Sequence[Platform],
    layouts: Mapping[int, Path],
    warn: Callable[[str], None],
) -> list[ImportedCache]:
    """Loads the records of all; `layouts` are the directories of those that the client sent, by
    their index in `specs`. Blocks. Raises Cancelled.
    """
    found: list[ImportedCache] = []
    try:
        for number, spec in enumerate(specs):
            try:
                source, records = _load(hub, spec, platforms, layouts.get(number))
            except Cancelled:
                raise
            except EstibaError as error:
                warn(f"cache from {spec}: {error}")
                continue
            found.append(ImportedCache(source.name, records, source))
    except BaseException:
        for cache in found:
            cache.close()
        raise
    return found


def _load(
    hub: Hub, spec: CacheFrom, platforms: Sequence[Platform], layout: Path | None
) -> tuple[CacheSource, list[CacheRecord]]:
    failure: EstibaError | None = None
    for source in _sources(hub, spec, platforms, layout):
        try:
            return source, source.load()
        except BaseException as error:
            source.close()
            if not isinstance(error, EstibaError) or isinstance(error, Cancelled):
                raise
            failure = failure or error
    raise failure or NotFound("there is none")


def _sources(
    hub: Hub, spec: CacheFrom, platforms: Sequence[Platform], layout: Path | None
) -> list[CacheSource]:
    """In the order in which they are tried."""
    if spec.reference is None:
        if layout is None:
            raise NotFound("the client sent no such directory")
        return [LayoutSource(hub.images, layout, platforms, hub.cancel)]
    here: list[CacheSource] = [
        ImageSource(hub.images, record, spec.reference.familiar)
        for record in hub.images.named(spec.reference.tagged)
        if any(record.platform.serves(wanted) for wanted in platforms)
    ]
    remote = RegistrySource(
        hub.images,
        spec.reference,
        hub.settings,
        hub.credentials(spec.reference),
        platforms,
        hub.cancel,
        hub.fetches,
    )
    return [*here, remote] if spec.prefers_images else [remote, *here]
