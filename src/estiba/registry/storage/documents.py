"""What a manifest says: its kind, what it refers to, its subject. Pure.

Media types of image-spec 1.1 and of Docker's schema 2 are checked; others are kept as they are
and searched for descriptors all the same, so that collection keeps what they refer to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument
from estiba.registry.storage.errors import ManifestInvalid, ManifestTooLarge
from estiba.registry.storage.ports import MAX_MANIFEST_BYTES

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_V1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

_IMAGES = {OCI_MANIFEST, DOCKER_MANIFEST}
_INDEXES = {OCI_INDEX, DOCKER_LIST}
_MAX_REFERENCES = 4096


@dataclass(frozen=True, slots=True)
class Document:
    """`blobs` and `children` must be in the repository, with `sizes`; `elsewhere` may be."""

    media_type: str
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()
    elsewhere: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    sizes: dict[Digest, int] = field(default_factory=dict)

    @property
    def contents(self) -> tuple[Digest, ...]:
        """All blobs that it refers to."""
        return self.blobs + self.elsewhere


def parse_manifest(body: bytes, media_type: str | None = None) -> Document:
    """Reads `body`, which claims to be of `media_type`; None: it is stored already.

    Raises ManifestInvalid, ManifestTooLarge.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise ManifestTooLarge(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"the manifest is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ManifestInvalid("the manifest is no JSON object")
    own = said.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise ManifestInvalid("mediaType of the manifest is no string")
    if own and media_type and own != media_type:
        raise ManifestInvalid(f"the manifest says that it is {own!r}, the request {media_type!r}")
    if media_type in _IMAGES | _INDEXES:
        _check_shape(said, media_type)
    return _document(said, media_type or own or _guess(said))


def media_type_of(body: bytes) -> tuple[str, bool]:
    """The media type of what is stored already, and whether it says so itself."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        said = {}
    if not isinstance(said, dict):
        said = {}
    own = said.get("mediaType")
    return (own, True) if own and isinstance(own, str) else (_guess(said), False)


def _guess(said: dict[str, Any]) -> str:
    if said.get("schemaVersion") == 1:
        return DOCKER_V1
    return OCI_INDEX if "manifests" in said else OCI_MANIFEST


def _document(said: dict[str, Any], media_type: str) -> Document:
    if media_type.startswith("application/vnd.docker.distribution.manifest.v1+"):
        return Document(media_type, elsewhere=_v1_layers(said))
    config = _descriptor(said, "config")
    layers = [*_descriptors(said, "layers"), *_descriptors(said, "blobs")]
    children = _descriptors(said, "manifests")
    if len(layers) + len(children) > _MAX_REFERENCES:
        raise ManifestInvalid(f"the manifest refers to more than {_MAX_REFERENCES} objects")
    subject = _descriptor(said, "subject")
    artifact_type = said.get("artifactType")
    if not artifact_type and config is not None:
        artifact_type = config.get("mediaType")
    here = [layer for layer in layers if not _is_foreign(layer)]
    if config is not None:
        here.insert(0, config)
    return Document(
        media_type,
        blobs=tuple(dict.fromkeys(each["digest"] for each in here)),
        children=tuple(dict.fromkeys(child["digest"] for child in children)),
        elsewhere=tuple(layer["digest"] for layer in layers if _is_foreign(layer)),
        subject=subject["digest"] if subject else None,
        artifact_type=artifact_type if isinstance(artifact_type, str) else None,
        annotations=_annotations(said),
        sizes={each["digest"]: each["size"] for each in (*here, *children)},
    )


def _check_shape(said: dict[str, Any], media_type: str | None) -> None:
    if said.get("schemaVersion") != 2:
        raise ManifestInvalid("schemaVersion of the manifest is not 2")
    if media_type in _INDEXES:
        if not isinstance(said.get("manifests"), list):
            raise ManifestInvalid("the index has no list of manifests")
        if "layers" in said or "config" in said:
            raise ManifestInvalid("an index has neither layers nor a config")
        return
    if not isinstance(said.get("config"), dict):
        raise ManifestInvalid("the manifest has no config")
    if "manifests" in said:
        raise ManifestInvalid("the manifest of an image has no manifests")


def _descriptor(said: dict[str, Any], name: str) -> dict[str, Any] | None:
    found = said.get(name)
    if found is None:
        return None
    return _checked(found, name)


def _descriptors(said: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = said.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ManifestInvalid(f"{name} of the manifest is no list")
    return [_checked(item, name) for item in found]


def _checked(item: object, name: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ManifestInvalid(f"{name} of the manifest is no descriptor")
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestInvalid(f"a descriptor in {name} of the manifest has no valid size")
    digest = item.get("digest")
    if not isinstance(digest, str):
        raise ManifestInvalid(f"a descriptor in {name} of the manifest has no digest")
    try:
        parse_digest(digest)
    except InvalidArgument as error:
        raise ManifestInvalid(f"{name} of the manifest: {error}") from error
    return item


def _is_foreign(layer: dict[str, Any]) -> bool:
    """Layers that are not distributed need not be here (image-spec 1.1, layer.md)."""
    kind = str(layer.get("mediaType", ""))
    return "nondistributable" in kind or ".foreign." in kind


def _v1_layers(said: dict[str, Any]) -> tuple[Digest, ...]:
    layers = said.get("fsLayers")
    found = [item.get("blobSum") for item in layers or () if isinstance(item, dict)]
    try:
        return tuple(parse_digest(digest) for digest in found if isinstance(digest, str))
    except InvalidArgument as error:
        raise ManifestInvalid(f"fsLayers of the manifest: {error}") from error


def _annotations(said: dict[str, Any]) -> dict[str, str] | None:
    found = said.get("annotations")
    if not isinstance(found, dict):
        return None
    return {key: value for key, value in found.items() if isinstance(value, str)}
