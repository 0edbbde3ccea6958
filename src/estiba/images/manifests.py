"""Manifests and indexes (image-spec 1.1, Docker schema 2): read, checked, chosen from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from estiba.distribution.content import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES
from estiba.model.decoding import from_plain, without_nulls
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument, LimitExceeded, NotFound
from estiba.model.image import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)

T = TypeVar("T", Manifest, Index)

MAX_INDEX_DEPTH = 4
MAX_ENTRIES = 1000
_MAX_SIZE = 256 << 30
"""No layer can be larger unpacked either."""

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIGS = (MEDIA_CONFIG, DOCKER_CONFIG)
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
)
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_SUFFIXES = ("", "+gzip", "+zstd", ".gzip", ".zstd")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index with its own bytes."""

    digest: Digest
    media_type: str
    body: bytes
    value: Manifest | Index


def parse(body: bytes, digest: Digest, media_type: str = "") -> Document:
    """What `body` is. Whoever fetched it has checked the digest.

    Raises InvalidArgument for what is neither a manifest nor an index, or may be read as both
    (CVE-2021-41190); LimitExceeded above 4 MiB or a thousand entries.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise LimitExceeded(f"manifest {digest} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"manifest {digest} is not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise InvalidArgument(f"manifest {digest} is not a JSON object")
    if plain.get("schemaVersion") == 1:
        raise InvalidArgument(
            f"manifest {digest} has schema version 1, which is not supported any more: push the "
            "image again with a newer tool"
        )
    own = plain.get("mediaType") or media_type
    if "manifests" in plain and ("layers" in plain or "config" in plain):
        raise InvalidArgument(f"manifest {digest} is both a manifest and an index")
    if "manifests" in plain:
        index = _convert(plain, digest, Index)
        value: Manifest | Index = index
        entries = index.manifests
    else:
        manifest = _convert(plain, digest, Manifest)
        value = manifest
        entries = [manifest.config, *manifest.layers]
    if len(entries) > MAX_ENTRIES:
        raise LimitExceeded(f"manifest {digest} has more than {MAX_ENTRIES} entries")
    for entry in entries:
        parse_digest(entry.digest)
        if not 0 <= entry.size <= _MAX_SIZE:
            raise InvalidArgument(f"manifest {digest} has an entry of {entry.size} bytes")
        if entry.digest == digest:
            raise InvalidArgument(f"manifest {digest} names itself")
    is_index = isinstance(value, Index)
    if own in MANIFEST_TYPES and (own in INDEX_TYPES) is not is_index:
        raise InvalidArgument(f"manifest {digest} is not what its media type {own} says")
    known = own if own in MANIFEST_TYPES else MEDIA_INDEX if is_index else MEDIA_MANIFEST
    return Document(digest, known, body, value)


def _convert(plain: Any, digest: Digest, kind: type[T]) -> T:
    try:
        return from_plain(without_nulls(plain), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"manifest {digest} is damaged: {error}") from error


def is_image(manifest: Manifest) -> bool:
    """Whether it can be unpacked and run; anything else is kept as it came."""
    return manifest.config.media_type in ("", *CONFIGS) and all(
        is_layer(layer) or is_foreign(layer) for layer in manifest.layers
    )


def is_layer(descriptor: Descriptor) -> bool:
    return descriptor.media_type in {kind + suffix for kind in _LAYERS for suffix in _SUFFIXES}


def is_foreign(descriptor: Descriptor) -> bool:
    """A layer that its `urls` give and no registry is asked to keep."""
    return descriptor.media_type in {kind + suffix for kind in _FOREIGN for suffix in _SUFFIXES}


def artifact_type(manifest: Manifest) -> str:
    """image-spec manifest.md, artifactType: the config's media type where it is not given."""
    return manifest.artifact_type or manifest.config.media_type


def choose_platform(index: Index, wanted: Platform, name: str) -> Descriptor:
    """The entry for `wanted`; one without a platform serves all. Raises NotFound."""
    for entry in index.manifests:
        if entry.platform is not None and entry.platform.serves(wanted):
            return entry
    for entry in index.manifests:
        if entry.platform is None:
            return entry
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries of {name}")
