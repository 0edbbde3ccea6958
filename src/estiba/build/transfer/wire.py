"""The form of a cache that travels: records as JSON, layers as blobs beside them. Pure.

A cache in a registry or a layout is an OCI manifest whose config, of type `CONFIG`, holds the
records and says which blob is which layer. An inline cache is the member `INLINE` of an image's
config; its layers are the image's own.

What travels is what finds a record and what it stands for, with the time of its making: an image
made of nothing but found steps is then the same image on every host. Facts about arguments and how
a record was used stay at home. What comes in is hostile: every field is checked, and a cache that
is not whole is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from estiba.build.keys import is_step
from estiba.build.record import CacheRecord
from estiba.images.manifests import is_layer
from estiba.model.decoding import from_json
from estiba.model.digest import Digest, parse_diff_id, parse_digest
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.image import Descriptor

CONFIG = "application/vnd.estiba.buildcache.config.v1+json"
INLINE = "estiba.cache.v1"
MAX_BYTES = 16 << 20
"""Of all records of a cache."""

_MAX_INLINE_BYTES = 4 << 20
"""A config that is much longer can be pulled by nobody."""

_VERSION = 1
_MAX_RECORDS = 50_000
_MAX_KEYS = 16
_MAX_DEPTH = 10_000
_MAX_DESCRIPTION = 1024
_MAX_SIZE = 256 << 30
_MAX_CREATED_NS = (1 << 63) - 1
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z:_-]{0,255}")


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    keys: list[str] = []
    parent: str = ""
    layer: str = ""
    description: str = ""
    size: int = 0
    created: int = 0
    """Nanoseconds since 1970."""


class _Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    diff_id: str
    digest: str
    size: int
    media_type: str


class _Cache(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    records: list[_Record]
    layers: list[_Layer] = []


def portable(records: Iterable[CacheRecord]) -> list[CacheRecord]:
    """Those that mean something elsewhere, each once: steps, not cache mounts."""
    kept = {one.id: one for one in records if one.keys and not one.mount}
    return list(kept.values())


def layers_of(records: Iterable[CacheRecord]) -> list[Digest]:
    """Their layers, each once."""
    return list(dict.fromkeys(record.layer for record in records if record.layer))


def encode_cache(records: Sequence[CacheRecord], layers: Mapping[Digest, Descriptor]) -> bytes:
    """Raises LimitExceeded."""
    cache = _Cache(
        version=_VERSION,
        records=[_wire(record) for record in portable(records)],
        layers=[
            _Layer(diff_id=diff_id, digest=one.digest, size=one.size, media_type=one.media_type)
            for diff_id, one in layers.items()
        ],
    )
    body = msgspec.json.encode(cache)
    if len(body) > MAX_BYTES or len(cache.records) > _MAX_RECORDS:
        raise LimitExceeded(f"a build cache of {len(cache.records)} steps is too large to export")
    return body


def _wire(record: CacheRecord) -> _Record:
    return _Record(
        id=record.id,
        keys=record.keys,
        parent=record.parent,
        layer=record.layer,
        description=record.description[:_MAX_DESCRIPTION],
        size=record.size_bytes,
        created=record.created_ns,
    )


def decode_cache(body: bytes) -> tuple[list[CacheRecord], dict[Digest, Descriptor]]:
    """Records, and the blobs of their layers by DiffID; a record without its layer is left out.

    Raises InvalidArgument or LimitExceeded for what is no whole cache of this version.
    """
    if len(body) > MAX_BYTES:
        raise LimitExceeded(f"the build cache has more than {MAX_BYTES >> 20} MiB of records")
    try:
        cache = from_json(body, _Cache)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the build cache is damaged: {error}") from error
    layers = {parse_diff_id(layer.diff_id): _descriptor(layer) for layer in cache.layers}
    return _checked(cache, layers.keys()), layers


def _descriptor(layer: _Layer) -> Descriptor:
    found = Descriptor(
        media_type=layer.media_type, digest=parse_digest(layer.digest), size=layer.size
    )
    if not 0 <= layer.size <= _MAX_SIZE or not is_layer(found):
        raise InvalidArgument(f"the build cache has a layer that is none: {layer.diff_id}")
    return found


def _checked(cache: _Cache, layers: Iterable[Digest]) -> list[CacheRecord]:
    if cache.version != _VERSION:
        raise InvalidArgument(f"the build cache has the unknown version {cache.version}")
    if len(cache.records) > _MAX_RECORDS:
        raise LimitExceeded(f"the build cache has more than {_MAX_RECORDS} records")
    for record in cache.records:
        names = [record.id, *record.keys, *([record.parent] if record.parent else [])]
        if not record.keys or len(record.keys) > _MAX_KEYS:
            raise InvalidArgument("the build cache has a record with no keys or too many")
        # An id of another form would be that of a base image, for the steps above it.
        if not all(_ID.fullmatch(name) for name in names) or not is_step(record.id):
            raise InvalidArgument("the build cache has a record whose name is none")
        if record.layer:
            parse_diff_id(record.layer)
        if not 0 <= record.size <= _MAX_SIZE or len(record.description) > _MAX_DESCRIPTION:
            raise InvalidArgument(f"the build cache has a damaged record {record.id[:64]}")
        if not 0 <= record.created <= _MAX_CREATED_NS:
            raise InvalidArgument(f"the build cache has a record of no time: {record.id[:64]}")
    _check_parents(cache.records)
    known = set(layers)
    return [_record(one) for one in cache.records if not one.layer or one.layer in known]


def _check_parents(records: list[_Record]) -> None:
    """Raises InvalidArgument for an id that stands twice, or records above one another."""
    parents = {record.id: record.parent for record in records}
    if len(parents) < len(records):
        raise InvalidArgument("the build cache has two records of one id")
    depths: dict[str, int] = {}
    for record in records:
        path: list[str] = []
        at = record.id
        while at in parents and at not in depths:
            depths[at] = 0
            path.append(at)
            at = parents[at]
        if at in path:
            raise InvalidArgument("the build cache has a record that stands on itself")
        depth = depths.get(at, 0)
        for name in reversed(path):
            depth += 1
            depths[name] = depth
        if depth > _MAX_DEPTH:
            raise LimitExceeded("the build cache has records that are stacked too high")


def _record(wire: _Record) -> CacheRecord:
    return CacheRecord(
        id=wire.id,
        keys=wire.keys,
        parent=wire.parent,
        layer=wire.layer,
        description=wire.description,
        size_bytes=wire.size,
        created_ns=wire.created,
    )


# -- inline --------------------------------------------------------------------------------


def with_inline_cache(config_json: bytes, records: Sequence[CacheRecord]) -> bytes:
    """The image's config with the records of its own steps; all its other members stay.

    Records of layers that the image does not have are left out. Raises InvalidArgument,
    LimitExceeded.
    """
    members = _members(config_json)
    own = set(_diff_ids(members))
    kept = [one for one in portable(records) if not one.layer or one.layer in own]
    body = encode_cache(kept, {})
    if len(body) > _MAX_INLINE_BYTES:
        raise LimitExceeded(
            "the build cache is too large for an image's config: use --cache-to type=registry"
        )
    return msgspec.json.encode({**members, INLINE: msgspec.Raw(body)})


def inline_cache(config_json: bytes | str) -> list[CacheRecord]:
    """The records in an image's config; none when it has none. Raises as `decode_cache`."""
    members = _members(config_json)
    body = members.get(INLINE)
    if body is None:
        return []
    if len(body) > MAX_BYTES:
        raise LimitExceeded(f"the build cache has more than {MAX_BYTES >> 20} MiB of records")
    try:
        cache = from_json(body, _Cache)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the inline build cache is damaged: {error}") from error
    return _checked(cache, _diff_ids(members))


def _members(config_json: bytes | str) -> dict[str, msgspec.Raw]:
    try:
        return from_json(config_json, dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the image's config is damaged: {error}") from error


def _diff_ids(members: dict[str, msgspec.Raw]) -> list[Digest]:
    value: Any = None
    if "rootfs" in members:
        value = msgspec.json.decode(members["rootfs"])
    found = value.get("diff_ids") if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
