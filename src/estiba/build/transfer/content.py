"""What a manifest gives as a cache: a cache's own, or an image's with an inline cache. Pure but
for the blobs that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from estiba.build.record import CacheRecord
from estiba.build.transfer.wire import CONFIG, MAX_BYTES, decode_cache, inline_cache
from estiba.images.images import decode_config
from estiba.images.manifests import is_image, is_layer
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.image import Descriptor, Manifest


def some(records: list[CacheRecord], name: str) -> list[CacheRecord]:
    if not records:
        raise NotFound(f"{name} has no build cache in it: build it with --cache-to type=inline")
    return records


@dataclass(frozen=True, slots=True)
class Content:
    """What a manifest gives: records, and the blobs of layers."""

    records: list[CacheRecord]
    layers: dict[Digest, Descriptor]


ReadBlob = Callable[[Descriptor, int], bytes]
"""A small blob, whole and checked; the second is the limit of its size."""


def read_content(manifest: Manifest, read: ReadBlob, name: str) -> Content:
    """Of a cache's manifest, or of an image's with an inline cache."""
    if manifest.config.media_type == CONFIG:
        records, layers = decode_cache(read(manifest.config, MAX_BYTES))
        return Content(records, layers)
    if not is_image(manifest):
        kind = manifest.config.media_type[:128]
        raise InvalidArgument(f"{name} is no build cache of this engine but a {kind!r}")
    config_json = read(manifest.config, MAX_BYTES)
    diff_ids = decode_config(config_json).rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidArgument(f"the config and the manifest of {name} differ in their layers")
    pairs = zip(diff_ids, manifest.layers, strict=True)
    layers = {diff_id: layer for diff_id, layer in pairs if is_layer(layer)}
    records = [one for one in inline_cache(config_json) if not one.layer or one.layer in layers]
    return Content(some(records, name), layers)


def join(contents: Sequence[Content]) -> Content:
    """Those of several platforms, each record once."""
    records = {record.id: record for one in contents for record in one.records}
    layers = {diff_id: layer for one in contents for diff_id, layer in one.layers.items()}
    return Content(list(records.values()), layers)
