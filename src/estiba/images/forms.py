"""An image as a manifest and blobs: the form in which it travels.

The form that it came in is given back wherever each of its blobs can be made again; otherwise
there is a form of our own, with the layers as plain tar (an archive) or compressed (a registry).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from estiba.images.images import Images
from estiba.images.manifests import Document, parse
from estiba.images.record import ImageRecord, Origin
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import EstibaError
from estiba.model.image import (
    MEDIA_CONFIG,
    MEDIA_LAYER,
    MEDIA_MANIFEST,
    Descriptor,
    Manifest,
)
from estiba.storage.encoding import PLAIN, UNKNOWN, Blob, encoded


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a form; `diff_id` is empty for content that is kept as it came."""

    descriptor: Descriptor
    diff_id: Digest = ""
    blob: Blob | None = None
    """How to make it again; None when that is not known."""

    places: tuple[str, ...] = ()
    """Repositories whose manifests name it: not seen here if the layer was here already."""


@dataclass(frozen=True, slots=True)
class Form:
    """`parts` are the layers, or an artifact's config and blobs."""

    document: Document
    config: bytes
    parts: list[Part]

    @property
    def manifest(self) -> Manifest:
        assert isinstance(self.document.value, Manifest)
        return self.document.value


def original_forms(images: Images, record: ImageRecord) -> Iterator[tuple[Origin, Form]]:
    """The forms that are known of it, newest first, whether their blobs can be made or not."""
    for origin in reversed(record.origins):
        try:
            document = parse(images.content.read(origin.manifest), origin.manifest)
        except EstibaError:
            continue
        if isinstance(document.value, Manifest):
            yield origin, _form(images, record, document, document.value)


def _form(images: Images, record: ImageRecord, document: Document, manifest: Manifest) -> Form:
    if record.artifact:
        every = [manifest.config, *manifest.layers]
        unique = {descriptor.digest: descriptor for descriptor in every}
        return Form(document, b"", [Part(descriptor) for descriptor in unique.values()])
    places = tuple(
        origin.repository
        for origin in reversed(record.origins)
        if origin.repository and origin.manifest == document.digest
    )
    parts = []
    for descriptor, diff_id in zip(manifest.layers, record.layers, strict=False):
        parts.append(Part(descriptor, diff_id, _known(images, descriptor, diff_id), places))
    return Form(document, record.config_json.encode(), parts)


def _known(images: Images, descriptor: Descriptor, diff_id: Digest) -> Blob | None:
    """How the layer's blob is made again."""
    if descriptor.digest == diff_id and descriptor.size == images.layer_info(diff_id).tar_bytes:
        return Blob(digest=diff_id, size=descriptor.size, encoding=PLAIN, is_proven=True)
    for blob in images.layers.blobs(diff_id):
        # A manifest may have come without its blobs, and with whatever size.
        is_it = (blob.digest, blob.size) == (descriptor.digest, descriptor.size)
        if is_it and blob.encoding != UNKNOWN:
            return blob
    return None


def proven_form(images: Images, record: ImageRecord) -> Form | None:
    """A form it came in, every blob of which is sure to be made again; None without one."""
    for _, form in original_forms(images, record):
        if record.artifact or (
            len(form.parts) == len(record.layers)
            and all(part.blob and prove(images, part.diff_id, part.blob) for part in form.parts)
        ):
            return form
    return None


def prove(images: Images, diff_id: Digest, blob: Blob) -> bool:
    """Whether making `blob` again gives its digest; tried once, and remembered."""
    if blob.is_proven or blob.encoding == UNKNOWN:
        return blob.is_proven
    state = hashlib.sha256()
    for piece in encoded(images.layers.tar(diff_id), blob.encoding):
        state.update(piece)
    is_same = f"sha256:{state.hexdigest()}" == blob.digest
    images.layers.settle_blob(diff_id, blob.digest, is_same=is_same)
    return is_same


def plain_form(images: Images, record: ImageRecord) -> Form:
    """An OCI form whose layers are uncompressed."""
    parts = []
    for diff_id in record.layers:
        info = images.layer_info(diff_id)
        blob = Blob(digest=diff_id, size=info.tar_bytes, encoding=PLAIN, is_proven=True)
        descriptor = Descriptor(media_type=MEDIA_LAYER, digest=diff_id, size=info.tar_bytes)
        parts.append(Part(descriptor, diff_id, blob))
    return own_form(record, parts)


def own_form(record: ImageRecord, parts: list[Part]) -> Form:
    """An OCI manifest over these layers."""
    config = record.config_json.encode()
    manifest = Manifest(
        schema_version=2,
        media_type=MEDIA_MANIFEST,
        config=Descriptor(media_type=MEDIA_CONFIG, digest=record.id, size=len(config)),
        layers=[part.descriptor for part in parts],
    )
    body = msgspec.json.encode(manifest)
    return Form(Document(digest_of(body), MEDIA_MANIFEST, body, manifest), config, parts)


def open_part(images: Images, part: Part) -> Iterator[bytes]:
    """The blob's bytes. Raises NotFound, DataLoss."""
    if part.blob is not None:
        yield from encoded(images.layers.tar(part.diff_id), part.blob.encoding)
        return
    with images.content.path(part.descriptor.digest).open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            yield piece
