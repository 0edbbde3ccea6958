"""The vocabulary: media types, and what a registry says that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from estiba.model.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

MAX_MANIFEST_BYTES = 4 << 20
"""distribution-spec 1.1, "Pushing Manifests": registries take at least this much."""


@dataclass(frozen=True, slots=True)
class Content:
    """A descriptor: `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    subject: Digest = ""
    """Of a manifest that was put: the subject among whose referrers the registry lists it."""

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """`body` is what the registry holds, byte for byte; its digest was checked."""

    content: Content
    body: bytes


@dataclass(frozen=True, slots=True)
class Referrer:
    """What names a manifest as its subject."""

    content: Content
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
