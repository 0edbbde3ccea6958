"""The frozen state of an image: what the database keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property

import msgspec

from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.model.image import ImageConfig, ImageProcessConfig, Platform, parse_config
from estiba.model.reference import Reference, parse_reference

KIND = "image"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image came from or went to, in its own bytes.

    `repository` is whole (`docker.io/library/busybox`), empty for an archive. `target` is what
    the name led to there, an index or the manifest itself; `manifest` is the image's.
    """

    repository: str = ""
    target: Digest
    manifest: Digest


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """What is stated of an image: `predicate` is the digest of the statement's own part."""

    predicate_type: str
    predicate: Digest


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`id` is the digest of `config_json`, whose bytes are kept as they came.

    An artifact is a manifest whose config is no image's: `artifact` is its type, `id` the
    digest of its manifest, and `blobs` are in the content store as they came.
    """

    id: Digest
    config_json: str
    layers: list[Digest]
    """DiffIDs, lowest first."""

    repo_tags: list[str] = []
    """Familiar references with tag, for example `busybox:latest`."""

    origins: list[Origin] = []
    """Newest last."""

    artifact: str = ""
    blobs: list[Digest] = []
    size_bytes: int = 0
    created_ns: int = 0
    tagged_ns: int = 0
    parent: Digest = ""
    attestations: list[Attestation] = []

    @property
    def config(self) -> ImageConfig:
        return parse_config(self.config_json)

    @property
    def process_config(self) -> ImageProcessConfig:
        return self.config.config

    @cached_property
    def labels(self) -> dict[str, str]:
        """Kept, because lists and filters ask for those of every image."""
        return self.process_config.labels

    @cached_property
    def platform(self) -> Platform:
        config = self.config
        return Platform(os=config.os, architecture=config.architecture, variant=config.variant)

    def needed(self) -> Iterator[Digest]:
        """Layers and content that it stands on."""
        yield from self.layers
        yield from self.blobs
        for origin in self.origins:
            yield from (origin.target, origin.manifest)
        for attestation in self.attestations:
            yield attestation.predicate

    @cached_property
    def repo_digests(self) -> list[str]:
        """As `busybox@sha256:…`, each once."""
        return list(
            dict.fromkeys(
                f"{parse_reference(origin.repository).familiar_name}@{origin.target}"
                for origin in self.origins
                if origin.repository
            )
        )

    def is_from(self, reference: Reference) -> bool:
        """Whether the reference's digest is known to name it."""
        return any(
            origin.repository == reference.repository
            and reference.digest in (origin.target, origin.manifest)
            for origin in self.origins
        )


def encode(record: ImageRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> ImageRecord:
    return from_json(body, ImageRecord)


_FRACTION = re.compile(r"[.,]([0-9]+)")


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; 0 for what is none."""
    fraction = _FRACTION.search(text)
    try:
        # Which knows no more than microseconds.
        moment = datetime.fromisoformat(_FRACTION.sub("", text))
    except ValueError:
        return 0
    digits = fraction[1][:9].ljust(9, "0") if fraction else "0"
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 10**9 + int(digits)


def now_text() -> str:
    """The present moment as image configs write it (RFC 3339)."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def facts(record: ImageRecord) -> dict[str, str]:
    """What an event tells of an image: its labels and a name."""
    name = record.repo_tags[0] if record.repo_tags else record.id
    return {**record.labels, "name": name}
