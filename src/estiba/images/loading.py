"""Images out of archives: `docker save` archives and OCI layouts.

An archive names its parts in an index that may stand at its end. Layers are unpacked as they
come by; all else is spooled to numbered files, and so are compressed layers, whose blobs cannot
be made again in every case. No name in the archive ever becomes a path here.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from estiba.images import removal
from estiba.images.attestations import (
    IN_TOTO,
    Predicate,
    attach,
    is_attestation,
    predicates_in,
)
from estiba.images.images import Images, Naming, NewImage, check_taggable, decode_config
from estiba.images.manifests import (
    MAX_INDEX_DEPTH,
    Document,
    artifact_type,
    is_image,
    parse,
)
from estiba.images.members import Members
from estiba.images.record import ImageRecord, Origin
from estiba.model.digest import Digest, digest_of, parse_digest
from estiba.model.errors import InvalidArgument, LimitExceeded, NotFound
from estiba.model.image import Manifest, Platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.layers import LayerInfo
from estiba.storage.tar import Source

_MAX_NAMED = 1000
_MAX_STATEMENT_BYTES = 8 << 20
"""A longer one is left out."""

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """`lost` says which other images had one of `tags` until then."""

    record: ImageRecord
    tags: list[str]
    lost: list[tuple[str, Digest]]


@dataclass(frozen=True, slots=True)
class _Part:
    """One image in an archive, by the names of its members; `documents` lead from the index
    down to its manifest, none for an archive of the old form.
    """

    config: str
    layers: list[str]
    tags: list[Reference]
    documents: tuple[Document, ...] = ()

    @property
    def manifest(self) -> Manifest | None:
        value = self.documents[-1].value if self.documents else None
        return value if isinstance(value, Manifest) else None

    @property
    def digest(self) -> Digest:
        """Of its manifest."""
        return self.documents[-1].digest if self.documents else ""

    @property
    def subject(self) -> Digest:
        """What its manifest refers to."""
        subject = self.manifest.subject if self.manifest else None
        return subject.digest if subject else ""


def load(
    images: Images, source: Source, work: Path, platforms: tuple[Platform, ...] = ()
) -> Iterator[LoadedImage]:
    """Loads every image of an archive, or those of `platforms`; yields each as it is done.

    Raises InvalidArgument, LimitExceeded or DataLoss; images that were yielded stay. Blocks.
    """
    directory = work / f"load-{secrets.token_hex(8)}"
    directory.mkdir(parents=True, mode=0o700)
    members = Members(images, directory)
    try:
        members.read(source)
        loaded: dict[str, set[Digest]] = {}
        parts = _parts(members)
        attested = _attestations(members, parts)
        for part in parts:
            manifest = part.manifest
            if platforms and not _is_wanted(members, part, platforms):
                continue
            if manifest is not None and is_attestation(manifest) and part.subject in attested:
                continue
            done = _load_part(images, members, part, loaded)
            if part.digest in attested and not done.record.artifact:
                attach(images, done.record.id, attested[part.digest])
            yield done
        if platforms and not loaded:
            asked = ", ".join(map(str, platforms))
            raise NotFound(f"the archive has no image for the platform {asked}")
    finally:
        members.close()
        shutil.rmtree(directory, ignore_errors=True)
        removal.collect(images)


def _is_wanted(members: Members, part: _Part, platforms: tuple[Platform, ...]) -> bool:
    manifest = part.manifest
    if manifest is not None and not is_image(manifest):
        return False
    config = decode_config(members.small(part.config))
    own = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
    return any(own.serves(wanted) for wanted in platforms)


def _attestations(members: Members, parts: list[_Part]) -> dict[Digest, list[Predicate]]:
    """What the archive states of its own images, by their manifests."""
    own = {part.digest for part in parts if part.digest and not part.subject}
    attested: dict[Digest, list[Predicate]] = {}
    for part in parts:
        manifest, subject = part.manifest, part.subject
        if manifest is None or not is_attestation(manifest) or subject not in own:
            continue
        statements = [
            members.checked(_blob(layer.digest), layer.digest)
            for layer in manifest.layers
            if layer.media_type == IN_TOTO
            and layer.size <= _MAX_STATEMENT_BYTES
            and members.has(_blob(layer.digest))
        ]
        attested.setdefault(subject, []).extend(predicates_in(statements, subject))
    return attested


def _parts(members: Members) -> list[_Part]:
    """The layout's index says more (platforms, manifests); the old form stands in for it."""
    if members.has("index.json") and members.has("oci-layout"):
        parts = list(_oci_parts(members))
        if not members.has("manifest.json"):
            return parts
        # Docker writes the names of several tags only here.
        old = _docker_parts(members)
        named = {part.config: part.tags for part in old}
        if {part.config for part in parts if part.config} >= set(named):
            return [_named(part, named.get(part.config, [])) for part in parts]
        return old
    if members.has("manifest.json"):
        return _docker_parts(members)
    if members.has("index.json"):
        return list(_oci_parts(members))
    raise InvalidArgument(
        "not an image archive: neither manifest.json (docker save) nor index.json (OCI layout) "
        "is in it; a file system tar goes through `import`"
    )


def _named(part: _Part, tags: list[Reference]) -> _Part:
    return _Part(part.config, part.layers, list(dict.fromkeys([*part.tags, *tags])), part.documents)


def _docker_parts(members: Members) -> list[_Part]:
    manifest = members.json("manifest.json")
    if not isinstance(manifest, list):
        raise InvalidArgument("manifest.json in the archive is not a list")
    if len(manifest) > _MAX_NAMED:
        raise LimitExceeded(f"the archive names more than {_MAX_NAMED} images")
    parts = []
    for item in manifest:
        try:
            layers = [str(name) for name in item["Layers"] or []]
            tags = [parse_reference(str(tag)) for tag in item.get("RepoTags") or []]
            parts.append(_Part(str(item["Config"]), layers, tags[:_MAX_NAMED]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"manifest.json in the archive is damaged: {error}") from error
        for tag in tags:
            check_taggable(tag)
    return parts


def _oci_parts(members: Members) -> Iterator[_Part]:
    """Images of the index and of those in it, of every platform that the archive holds."""
    body = members.small("index.json")
    root = parse(body, digest_of(body))
    waiting: list[tuple[Document, list[Reference], tuple[Document, ...]]] = [(root, [], ())]
    seen = 0
    while waiting:
        document, tags, above = waiting.pop(0)
        if len(above) > MAX_INDEX_DEPTH:
            raise LimitExceeded("the archive's indexes are nested too deeply")
        if isinstance(document.value, Manifest):
            yield _oci_part(document.value, tags, (*above, document))
            continue
        seen += len(document.value.manifests)
        if seen > _MAX_NAMED:
            raise LimitExceeded(f"the archive names more than {_MAX_NAMED} images")
        below = () if document is root else (*above, document)
        for descriptor in document.value.manifests:
            notes = descriptor.annotations
            own = [*tags, *_optional_reference(notes.get(_IMAGE_NAME) or notes.get(_REF_NAME, ""))]
            name = _blob(descriptor.digest)
            if below and not members.has(name):
                continue  # an image of several platforms that was saved in part
            content = members.checked(name, descriptor.digest)
            if descriptor.digest in {one.digest for one in below}:
                raise InvalidArgument(f"the archive's index {descriptor.digest} names itself")
            waiting.append((parse(content, descriptor.digest, descriptor.media_type), own, below))


def _oci_part(manifest: Manifest, tags: list[Reference], documents: tuple[Document, ...]) -> _Part:
    layers = [_blob(layer.digest) for layer in manifest.layers]
    return _Part(_blob(manifest.config.digest), layers, tags, documents)


def _optional_reference(name: str) -> list[Reference]:
    """The annotation may hold a whole reference or a bare tag, which names nothing by itself."""
    if not name or ("/" not in name and ":" not in name):
        return []
    try:
        reference = parse_reference(name)
    except InvalidArgument:
        return []
    return [] if reference.digest else [reference]


def _blob(digest: Digest) -> str:
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return f"blobs/{algorithm}/{encoded}"


def _load_part(
    images: Images, members: Members, part: _Part, loaded: dict[str, set[Digest]]
) -> LoadedImage:
    """`loaded` says which images of this archive have a tag: they keep it side by side."""
    origins = _origins(images, members, part)
    manifest = part.manifest
    if manifest is not None and not is_image(manifest):
        new = _artifact(images, members, manifest, origins)
    else:
        config_json = members.small(part.config)
        new = NewImage(config_json, _layers(members, part, config_json), origins)
    beside = {image for tag in part.tags for image in loaded.get(tag.tagged.familiar, ())}
    holders = [(tag.tagged.familiar, one.id) for tag in part.tags for one in images.named(tag)]
    record = images.add(new, Naming(tuple(part.tags), beside), "load")
    lost = [(tag, holder) for tag, holder in holders if holder not in {record.id, *beside}]
    images.usage.note(record.id)
    for tag in part.tags:
        loaded.setdefault(tag.tagged.familiar, set()).add(record.id)
    if not part.tags:
        loaded.setdefault("", set()).add(record.id)
    return LoadedImage(record, [tag.tagged.familiar for tag in part.tags], lost)


def _layers(members: Members, part: _Part, config_json: bytes) -> list[LayerInfo]:
    diff_ids = decode_config(config_json).rootfs.diff_ids
    if len(diff_ids) != len(part.layers):
        raise InvalidArgument("the image's config and manifest disagree on the number of layers")
    manifest = part.manifest
    if manifest is not None:
        members.check(part.config, manifest.config)
        for name, descriptor in zip(part.layers, manifest.layers, strict=True):
            members.check(name, descriptor)
    return [
        members.layer(name, diff_id) for name, diff_id in zip(part.layers, diff_ids, strict=True)
    ]


def _origins(images: Images, members: Members, part: _Part) -> tuple[Origin, ...]:
    """Manifests are kept in their own bytes, so that the image can go on as it came."""
    if not part.documents:
        return ()
    for document in part.documents:
        members.hold([document.digest])
        images.content.put(document.body, document.digest)
    return (Origin(target=part.documents[0].digest, manifest=part.documents[-1].digest),)


def _artifact(
    images: Images, members: Members, manifest: Manifest, origins: tuple[Origin, ...]
) -> NewImage:
    blobs = [manifest.config, *manifest.layers]
    for blob in blobs:
        members.hold([blob.digest])
        members.keep(_blob(blob.digest), blob.digest, blob.size)
    return NewImage(
        b"{}",
        [],
        origins,
        artifact=artifact_type(manifest) or "unknown",
        blobs=tuple(dict.fromkeys(blob.digest for blob in blobs)),
        size_bytes=sum(blob.size for blob in blobs),
    )
