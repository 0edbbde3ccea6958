"""What a registry says is a manifest: its digest and media type checked. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from estiba.distribution.content import (
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Content,
    FetchedManifest,
)
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import DataLoss, InvalidArgument, LimitExceeded

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


def check_manifest(
    body: bytes, *, header_type: str, header_digest: str, asked: Digest | None, what: str
) -> FetchedManifest:
    """`asked` is the digest that it was asked for by.

    Raises DataLoss for a wrong digest, InvalidArgument for what is no manifest or for Docker's
    schema 1, LimitExceeded.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise LimitExceeded(f"{what} is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
    for wanted in (asked, usable_digest(header_digest)):
        if wanted is not None and digest_like(wanted, body) != wanted:
            raise DataLoss(
                f"{what}: the registry sent other bytes than {wanted}, whose digest is "
                f"{digest_like(wanted, body)}"
            )
    digest = asked or digest_like("sha256:", body)
    return FetchedManifest(Content(_type_of(body, header_type, what), digest, len(body)), body)


def usable_digest(text: str) -> Digest | None:
    """A header's digest, where it is one."""
    try:
        return parse_digest(text)
    except InvalidArgument:
        return None


def differ(one: Digest, other: Digest) -> bool:
    """False where they are of different algorithms and cannot be compared."""
    return one != other and one.partition(":")[0] == other.partition(":")[0]


def plain_type(header: str) -> str:
    """A Content-Type without its parameters."""
    return header.partition(";")[0].strip().lower()


def digest_like(digest: str, body: bytes) -> Digest:
    """The digest of `body` by the algorithm of another digest."""
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def _type_of(body: bytes, header_type: str, what: str) -> str:
    """image-spec 1.1, manifest.md: the header and the member say the same (CVE-2021-41190)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} is no manifest: not a JSON object")
    header_type = plain_type(header_type)
    if header_type.startswith(_SCHEMA_1) or document.get("schemaVersion") == 1:
        raise InvalidArgument(
            f"{what} is stored in Docker's schema 1, which is no longer supported; push it again "
            "with a client newer than Docker 1.10"
        )
    said = document.get("mediaType")
    has_manifests = "manifests" in document
    if has_manifests and ("layers" in document or "config" in document):
        raise InvalidArgument(f"{what} is ambiguous: both a manifest and an index")
    if header_type in MANIFEST_TYPES and said not in (None, "", header_type):
        raise InvalidArgument(f"{what} is ambiguous: its media types differ")
    found = header_type if header_type in MANIFEST_TYPES else said or _guess(document)
    if found not in MANIFEST_TYPES:
        raise InvalidArgument(f"{what} has the unknown media type {str(found)[:128]!r}")
    if (found in INDEX_TYPES) != has_manifests:
        raise InvalidArgument(f"{what} is not what its media type says")
    return str(found)


def _guess(document: dict[str, Any]) -> str:
    if "manifests" in document:
        return OCI_INDEX
    config = document.get("config")
    kind = str(config.get("mediaType", "")) if isinstance(config, dict) else ""
    return DOCKER_MANIFEST if kind.startswith("application/vnd.docker.") else OCI_MANIFEST
