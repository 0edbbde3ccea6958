"""The cache of a build, out (`--cache-to`).

    inline:    config_json = with_inline_cache(config_json, records)    (wire.py)
    registry:  digest = push_cache(hub, target.reference, records, tell)
    local:     tar = cache_layout(hub.images, records)

All of it blocks, and holds leases on the layers meanwhile; a record whose layer has gone is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from estiba.build.record import CacheRecord
from estiba.build.transfer.imports import Hub
from estiba.build.transfer.wire import CONFIG, encode_cache, layers_of, portable
from estiba.distribution.cancel import CancelToken
from estiba.distribution.repository import Repository
from estiba.images.forms import Part, gzip_part, open_part
from estiba.images.images import Images
from estiba.images.importing import IteratorSource
from estiba.images.layout import LayoutWriter
from estiba.images.progress import Progress
from estiba.images.uploading import send_layers
from estiba.model.digest import Digest, digest_of
from estiba.model.image import MEDIA_MANIFEST, Descriptor, Manifest, encode_manifest
from estiba.model.reference import Reference


@contextmanager
def _held(images: Images, records: Sequence[CacheRecord]) -> Iterator[list[CacheRecord]]:
    """Those whose layers are here, leased."""
    wanted = layers_of(records)
    with images.leases.held(wanted):
        here = {layer for layer in wanted if images.layers.info(layer) is not None}
        yield [one for one in portable(records) if not one.layer or one.layer in here]


def _manifest(
    records: Sequence[CacheRecord], layers: dict[Digest, Descriptor]
) -> tuple[bytes, bytes]:
    """The config and the manifest."""
    config = encode_cache(records, layers)
    about = Descriptor(media_type=CONFIG, digest=digest_of(config), size=len(config))
    manifest = Manifest(
        schema_version=2,
        media_type=MEDIA_MANIFEST,
        artifact_type=CONFIG,
        config=about,
        layers=list(layers.values()),
    )
    return config, encode_manifest(manifest)


def push_cache(
    hub: Hub,
    reference: Reference,
    records: Sequence[CacheRecord],
    tell: Callable[[Progress], None],
) -> Digest:
    """Stores it under the tag; layers go as ordinary blobs, those that are there stay.

    Raises Unauthorized, Forbidden, Unavailable, InvalidArgument, LimitExceeded, Cancelled.
    """
    credentials, token = hub.credentials(reference), CancelToken()
    with (
        _held(hub.images, records) as kept,
        hub.cancel.ending_with(token.cancel),
        Repository(reference, hub.settings, credentials, push=True, cancel=token) as repository,
    ):
        try:
            diff_ids = layers_of(kept)
            sending = send_layers(
                hub.images, repository, hub.settings, credentials, diff_ids, hub.parallel
            )
            sent = _told(tell, sending)
            config, body = _manifest(kept, dict(zip(diff_ids, sent, strict=True)))
            repository.upload_blob(
                IteratorSource(iter([config])),
                size=len(config),
                digest=digest_of(config),
                reopen=lambda: IteratorSource(iter([config])),
            )
            tag = reference.tagged.tag or ""
            return repository.put_manifest(tag, body, MEDIA_MANIFEST).digest
        except BaseException:
            token.cancel()
            raise


def _told(
    tell: Callable[[Progress], None], steps: Generator[Progress, None, list[Descriptor]]
) -> list[Descriptor]:
    """Tells every step; returns what the generator does."""
    while True:
        try:
            tell(next(steps))
        except StopIteration as end:
            return list(end.value)


def cache_layout(images: Images, records: Sequence[CacheRecord]) -> Iterator[bytes]:
    """An OCI layout, as tar. Raises NotFound, DataLoss, LimitExceeded."""
    with _held(images, records) as kept:
        parts: dict[Digest, Part] = {one: gzip_part(images, one) for one in layers_of(kept)}
        layers = {diff_id: part.descriptor for diff_id, part in parts.items()}
        config, body = _manifest(kept, layers)
        writer = LayoutWriter()
        yield writer.begin()
        for part in parts.values():
            yield from writer.blob(part.descriptor, open_part(images, part))
        about = Descriptor(media_type=CONFIG, digest=digest_of(config), size=len(config))
        yield from writer.blob(about, iter([config]))
        entry = Descriptor(
            media_type=MEDIA_MANIFEST,
            digest=digest_of(body),
            size=len(body),
            artifact_type=CONFIG,
        )
        yield from writer.blob(entry, iter([body]))
        yield writer.end([entry])
