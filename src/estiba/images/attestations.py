"""What is stated of an image (in-toto attestations), and the manifests that carry it.

A statement names the manifest that it is about, and an image of this engine has one only when it
travels. So the predicate alone is kept with the image; the statement and its referrer manifest
(image-spec 1.1, manifest.md, "Subject") are made for each manifest that the image goes as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from estiba.images.forms import original_forms, plain_form
from estiba.images.images import Images
from estiba.images.record import Attestation, ImageRecord
from estiba.kernel import failpoint
from estiba.model.decoding import from_json
from estiba.model.digest import Digest, digest_of, hex_of
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded, NotFound
from estiba.model.image import MEDIA_MANIFEST, Descriptor, Manifest
from estiba.model.reference import parse_reference

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
SPDX = "https://spdx.dev/Document"
SLSA = "https://slsa.dev/provenance/v1"

_STATEMENT = "https://in-toto.io/Statement/v1"
_EMPTY = b"{}"
_EMPTY_CONFIG = Descriptor(
    media_type="application/vnd.oci.empty.v1+json", digest=digest_of(_EMPTY), size=len(_EMPTY)
)
MAX_STATEMENT_BYTES = 64 << 20
_MAX_STATEMENTS = 16
_TYPE = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Predicate:
    """What a statement says, without what it says it of. `body` is JSON."""

    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest whose subject is an image's; `blobs` are what it stands on, the statement that
    `layer` describes among them.
    """

    descriptor: Descriptor
    body: bytes
    blobs: dict[Digest, bytes]
    layer: Descriptor

    @property
    def predicate_type(self) -> str:
        return self.layer.annotations[PREDICATE_TYPE]

    @property
    def statement(self) -> bytes:
        return self.blobs[self.layer.digest]


def attach(images: Images, image: Digest, predicates: Sequence[Predicate]) -> None:
    """Keeps `predicates` with the image, instead of those of the same types.

    They go with the image. Raises NotFound, InvalidArgument, LimitExceeded.
    """
    for predicate in predicates:
        _check(predicate)
    digests = [digest_of(predicate.body) for predicate in predicates]
    with images.leases.held(digests):
        for predicate, digest in zip(predicates, digests, strict=True):
            images.content.put(predicate.body, digest)
        failpoint.hit("attestations.kept")
        with images.lock:
            record = images.get(image)
            if record is None:
                raise NotFound(f"No such image: {image}")
            known = {one.predicate_type: one for one in record.attestations}
            for predicate, digest in zip(predicates, digests, strict=True):
                known[predicate.type] = Attestation(predicate_type=predicate.type, predicate=digest)
            if len(known) > _MAX_STATEMENTS:
                raise LimitExceeded(f"more than {_MAX_STATEMENTS} attestations of {image}")
            attested = [known[kind] for kind in sorted(known)]
            images.write([msgspec.structs.replace(record, attestations=attested)], [])


def _check(predicate: Predicate) -> None:
    if not _TYPE.fullmatch(predicate.type):
        raise InvalidArgument(f"bad predicate type of an attestation: {predicate.type[:64]!r}")
    if len(predicate.body) > MAX_STATEMENT_BYTES:
        raise LimitExceeded(f"the attestation {predicate.type} is over {MAX_STATEMENT_BYTES} bytes")


def predicates_of(images: Images, record: ImageRecord) -> list[Predicate]:
    """Raises NotFound, DataLoss."""
    return [
        Predicate(one.predicate_type, images.content.read(one.predicate))
        for one in record.attestations
    ]


def referrers_of(
    images: Images, record: ImageRecord, subject: Descriptor, name: str
) -> list[Referrer]:
    """One manifest a statement. `name` is the repository, empty in an archive without one.

    The same image, manifest and repository give the same bytes. Raises NotFound, DataLoss.
    """
    return [referrer(one, subject, name) for one in predicates_of(images, record)]


def current_referrers(images: Images, record: ImageRecord) -> list[Referrer]:
    """About the manifest that the image travelled as last, or would in an archive."""
    origin, form = next(original_forms(images, record), (None, None))
    form = form or plain_form(images, record)
    repository = origin.repository if origin is not None else ""
    name = parse_reference(repository).familiar_name if repository else ""
    document = form.document
    subject = Descriptor(
        media_type=document.media_type, digest=document.digest, size=len(document.body)
    )
    return referrers_of(images, record, subject, name)


def referrer(predicate: Predicate, subject: Descriptor, name: str) -> Referrer:
    """A statement about `subject`, and the manifest that ties it to that."""
    about: dict[str, object] = {"digest": {"sha256": hex_of(subject.digest)}}
    statement = msgspec.json.encode(
        {
            "_type": _STATEMENT,
            "subject": [{"name": name, **about} if name else about],
            "predicateType": predicate.type,
            "predicate": msgspec.Raw(predicate.body),
        }
    )
    notes = {PREDICATE_TYPE: predicate.type}
    layer = Descriptor(
        media_type=IN_TOTO,
        digest=digest_of(statement),
        size=len(statement),
        annotations=notes,
    )
    bare = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
    manifest = Manifest(
        schema_version=2,
        media_type=MEDIA_MANIFEST,
        artifact_type=IN_TOTO,
        config=_EMPTY_CONFIG,
        layers=[layer],
        subject=bare,
        annotations=notes,
    )
    body = msgspec.json.encode(manifest)
    descriptor = Descriptor(
        media_type=MEDIA_MANIFEST,
        digest=digest_of(body),
        size=len(body),
        artifact_type=IN_TOTO,
        annotations=notes,
    )
    blobs = {_EMPTY_CONFIG.digest: _EMPTY, layer.digest: statement}
    return Referrer(descriptor, body, blobs, layer)


def is_attestation(manifest: Manifest) -> bool:
    """Whether it carries statements about another manifest."""
    return manifest.artifact_type == IN_TOTO and manifest.subject is not None


def predicates_in(statements: Iterable[bytes], subject: Digest) -> list[Predicate]:
    """What statements that came in say of `subject`; what says nothing of it is left out."""
    found = []
    for statement in statements:
        try:
            value = from_json(statement, _Statement)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        algorithm, _, encoded = subject.partition(":")
        if not any(one.digest.get(algorithm) == encoded for one in value.subject):
            continue
        predicate = Predicate(value.predicate_type, bytes(value.predicate))
        try:
            _check(predicate)
        except EstibaError:
            continue
        found.append(predicate)
    return found


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str] = {}


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    predicate_type: str
    predicate: msgspec.Raw
    subject: list[_Subject] = []
