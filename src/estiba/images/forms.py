"""An image as a manifest and blobs: the form in which it travels.

The form that it came in is given back wherever each of its blobs can be made again; otherwise
there is a form of our own, with the layers as plain tar (an archive) or compressed (a registry).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

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
    encode_manifest,
)
from estiba.storage.encoding import OWN, PLAIN, UNKNOWN, Blob, encoded


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


def gzip_part(images: Images, diff_id: Digest) -> Part:
    """The layer as a gzip blob that is sure to be made again; made once, and remembered."""
    for blob in reversed(images.layers.blobs(diff_id)):
        is_gzip = blob.encoding not in (PLAIN, UNKNOWN)
        if is_gzip and prove(images, diff_id, blob):
            return _gzip_part(diff_id, blob)
    state, size = hashlib.sha256(), 0
    for piece in encoded(images.layers.tar(diff_id), OWN):
        state.update(piece)
        size += len(piece)
    made = Blob(
        digest=f"sha256:{state.hexdigest()}",
        size=size,
        media_type=f"{MEDIA_LAYER}+gzip",
        encoding=OWN,
        is_proven=True,
    )
    images.layers.note_blob(diff_id, made)
    return _gzip_part(diff_id, made)


def _gzip_part(diff_id: Digest, blob: Blob) -> Part:
    media_type = f"{MEDIA_LAYER}+gzip"
    return Part(
        Descriptor(media_type=media_type, digest=blob.digest, size=blob.size), diff_id, blob
    )


def gzip_form(
    images: Images, record: ImageRecord, annotations: dict[str, str] | None = None
) -> Form:
    """An OCI form whose layers are compressed."""
    return own_form(record, [gzip_part(images, one) for one in record.layers], annotations)


def plain_form(
    images: Images, record: ImageRecord, annotations: dict[str, str] | None = None
) -> Form:
    """An OCI form whose layers are uncompressed."""
    return own_form(record, [plain_part(images, one) for one in record.layers], annotations)


def plain_part(images: Images, diff_id: Digest) -> Part:
    """The layer as its tar. Raises NotFound."""
    info = images.layer_info(diff_id)
    blob = Blob(digest=diff_id, size=info.tar_bytes, encoding=PLAIN, is_proven=True)
    descriptor = Descriptor(media_type=MEDIA_LAYER, digest=diff_id, size=info.tar_bytes)
    return Part(descriptor, diff_id, blob)


def own_form(
    record: ImageRecord, parts: list[Part], annotations: dict[str, str] | None = None
) -> Form:
    """An OCI manifest over these layers."""
    config = record.config_json.encode()
    manifest = Manifest(
        schema_version=2,
        media_type=MEDIA_MANIFEST,
        config=Descriptor(media_type=MEDIA_CONFIG, digest=record.id, size=len(config)),
        layers=[part.descriptor for part in parts],
        annotations=annotations or {},
    )
    body = encode_manifest(manifest)
    return Form(Document(digest_of(body), MEDIA_MANIFEST, body, manifest), config, parts)


def open_part(images: Images, part: Part) -> Iterator[bytes]:
    """The blob's bytes. Raises NotFound, DataLoss."""
    if part.blob is not None:
        yield from encoded(images.layers.tar(part.diff_id), part.blob.encoding)
        return
    with images.content.path(part.descriptor.digest).open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            yield piece
