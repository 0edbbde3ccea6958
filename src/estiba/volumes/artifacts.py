"""Backups of volumes in registries: OCI artifacts (image-spec 1.1) of one layer.

artifactType    application/vnd.estiba.volume.v1
config          the archive's volume.json
layer           the archive (volumes.backup)
annotations     name, labels and options, and when it was made
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import Content
from estiba.distribution.credentials import Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.model.errors import InvalidArgument
from estiba.model.image import MEDIA_MANIFEST, Descriptor, Manifest
from estiba.model.reference import Reference
from estiba.storage.unpack import Limits
from estiba.volumes.backup import Description, restore
from estiba.volumes.record import VolumeRecord
from estiba.volumes.volumes import Volumes

ARTIFACT = "application/vnd.estiba.volume.v1"
CONFIG = "application/vnd.estiba.volume.config.v1+json"
LAYER = "application/vnd.estiba.volume.v1.tar+zstd"
_TITLE = "org.opencontainers.image.title"
_CREATED = "org.opencontainers.image.created"

Told = Callable[[int], None]


def push(
    volumes: Volumes,
    description: Description,
    pieces: Iterator[bytes],
    reference: Reference,
    *,
    settings: RegistrySettings,
    credentials: Credentials,
    cancel: CancelToken,
    now: datetime,
    told: Told = lambda size: None,
) -> Content:
    """Sends the volume's archive, `pieces`, under a tag; `told` hears how many bytes have gone.

    Raises NotFound, Conflict, InvalidArgument, Unauthorized, Forbidden, Unavailable, Cancelled.
    """
    if reference.digest:
        raise InvalidArgument("cannot push to a digest: give a tag")
    config = msgspec.json.encode(description)
    with Repository(reference, settings, credentials, push=True, cancel=cancel) as repository:
        source = _Pieces(pieces)
        try:
            layer = repository.upload_blob(source, progress=told)
        finally:
            source.close()
        digest = _digest(config)
        if not repository.has_blob(digest):
            repository.upload_blob(_Pieces(iter([config])), size=len(config), digest=digest)
        manifest = Manifest(
            schema_version=2,
            media_type=MEDIA_MANIFEST,
            artifact_type=ARTIFACT,
            config=Descriptor(media_type=CONFIG, digest=digest, size=len(config)),
            layers=[Descriptor(media_type=LAYER, digest=layer.digest, size=layer.size)],
            annotations={
                _TITLE: description.name,
                _CREATED: now.astimezone(UTC).isoformat(timespec="seconds"),
                "estiba.volume.labels": msgspec.json.encode(description.labels).decode(),
                "estiba.volume.options": msgspec.json.encode(description.options).decode(),
            },
        )
        stored = repository.put_manifest(
            reference.tagged.tag or "", msgspec.json.encode(manifest), MEDIA_MANIFEST
        )
    volumes.catalog.announce(description.name, "backup", {"to": reference.tagged.familiar})
    return stored


def pull(
    volumes: Volumes,
    name: str,
    reference: Reference,
    *,
    settings: RegistrySettings,
    credentials: Credentials,
    cancel: CancelToken,
    limits: Limits,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    told: Told = lambda size: None,
) -> VolumeRecord:
    """A new volume from what `push` sent. Raises as `push`, and as `volumes.backup.restore`."""
    with Repository(reference, settings, credentials, cancel=cancel) as repository:
        fetched = repository.manifest(reference.digest or reference.tagged.tag or "")
        layer = _layer(fetched.body, reference)
        with repository.blob(layer.digest, layer.size) as stream:
            source = _Counted(stream.read, told)
            return restore(volumes, name, source, limits=limits, options=options, labels=labels)


def _layer(body: bytes, reference: Reference) -> Descriptor:
    what = reference.tagged.familiar
    try:
        manifest = from_json(body, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} is no backup of a volume: {error}") from error
    if manifest.artifact_type != ARTIFACT and manifest.config.media_type != CONFIG:
        kind = manifest.artifact_type or manifest.config.media_type
        raise InvalidArgument(f"{what} is no backup of a volume but {kind[:128]!r}")
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != LAYER:
        raise InvalidArgument(f"{what} is a backup in a form that this engine does not know")
    return manifest.layers[0]


def _digest(data: bytes) -> Digest:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Pieces:
    """`distribution.uploads.Source` of an iterator."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def close(self) -> None:
        closer = getattr(self._pieces, "close", None)
        if closer is not None:
            closer()


class _Counted:
    """`storage.tar.Source` that tells how much has come."""

    def __init__(self, read: Callable[[int], bytes], told: Told) -> None:
        self._read = read
        self._told = told
        self._total = 0

    def read(self, size: int, /) -> bytes:
        piece = self._read(size)
        self._total += len(piece)
        self._told(self._total)
        return piece
