"""Images to registries (distribution-spec 1.1): the push of one reference.

Blobs that the registry has are passed over or mounted. An image goes as the manifest that it
came in wherever its blobs can be had: made again from the layer, or fetched from the registry
they came from. Otherwise it goes as a manifest of our own, and the output says so. What is stated
of it goes along, as manifests that refer to its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import Content
from estiba.distribution.content import Referrer as Listed
from estiba.distribution.credentials import Credentials
from estiba.distribution.referrers import put_referrer
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images.attestations import Referrer, referrers_of
from estiba.images.forms import Form, Part, original_forms, own_form
from estiba.images.images import Images
from estiba.images.importing import IteratorSource
from estiba.images.manifests import is_foreign
from estiba.images.progress import Progress
from estiba.images.record import ImageRecord, Origin
from estiba.images.uploading import MAX_ROUNDS, Upload, Uploads, best_part
from estiba.kernel import failpoint
from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError, Forbidden, InvalidArgument, NotFound
from estiba.model.event import Event, EventType
from estiba.model.image import MEDIA_INDEX, Descriptor, Index, Platform
from estiba.model.reference import Reference, parse_reference


@dataclass(slots=True)
class Pusher:
    images: Images
    settings: RegistrySettings
    parallel: int

    def _tags(self, reference: Reference) -> list[Reference]:
        return [parse_reference(tag) for tag in self.images.tags_of(reference.familiar_name)]

    def _records(self, tag: Reference, platform: Platform | None) -> list[ImageRecord]:
        found = self.images.named(tag)
        if not found:
            raise _nothing(tag)
        if platform is None:
            return found
        kept = [record for record in found if record.platform.serves(platform)]
        if not kept:
            raise NotFound(
                f"image with reference {tag.familiar} was found but its platform "
                f"({found[0].platform}) does not match the specified platform ({platform})"
            )
        return kept[:1]

    def push(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials,
        cancel: CancelToken,
    ) -> Iterator[Progress]:
        """Of a bare repository all tags go. Blocks; `cancel`, or closing the iterator, ends it.

        Raises NotFound, Unauthorized, Forbidden, Unavailable, InvalidArgument, DataLoss.
        """
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        yield Progress(f"The push refers to repository [{reference.repository}]")
        tags = [reference] if reference.tag else self._tags(reference)
        if not tags:
            raise _nothing(reference)
        for tag in tags:
            self._records(tag, platform)
        with self._writing(reference, credentials, cancel) as repository:
            for tag in tags:
                records = self._records(tag, platform)
                yield from _Push(self, repository, tag, credentials).run(records)

    def push_images(
        self,
        tags: Sequence[Reference],
        records: list[ImageRecord],
        credentials: Callable[[Reference], Credentials],
        cancel: CancelToken,
        annotations: Mapping[str, str] | None = None,
    ) -> Iterator[Progress]:
        """Images, one a platform, under tags that they need not have here.

        `annotations` go into their manifests. Blocks, ends and raises as `push`.
        """
        notes = dict(annotations or {})
        for tag in tags:
            if tag.digest:
                raise InvalidArgument("cannot push a digest reference")
        for tag in (tag.tagged for tag in tags):
            yield Progress(f"The push refers to repository [{tag.repository}]")
            rights = credentials(tag)
            with self._writing(tag, rights, cancel) as repository:
                yield from _Push(self, repository, tag, rights, notes).run(records)

    @contextlib.contextmanager
    def _writing(
        self, reference: Reference, credentials: Credentials, cancel: CancelToken
    ) -> Iterator[Repository]:
        """Threads that still send end with whoever fails."""
        with Repository(
            reference, self.settings, credentials, push=True, cancel=cancel
        ) as repository:
            try:
                yield repository
            except BaseException:
                repository.cancel.cancel()
                raise


def _nothing(reference: Reference) -> NotFound:
    return NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")


@dataclass(slots=True)
class _Push:
    pusher: Pusher
    repository: Repository
    reference: Reference
    credentials: Credentials
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Images:
        return self.pusher.images

    def run(self, records: list[ImageRecord]) -> Iterator[Progress]:
        """One image under the tag, or an index over those of several platforms."""
        forms: list[Form] = []
        for record in records:
            forms.append((yield from self._image(record)))
        body, media_type = forms[0].document.body, forms[0].document.media_type
        if len(forms) > 1 or any(record.attestations for record in records):
            for document in (form.document for form in forms):
                self.repository.put_manifest(document.digest, document.body, document.media_type)
        # Before the tag: whoever finds the image finds what is stated of it.
        for record, form in zip(records, forms, strict=True):
            yield from self._attest(record, form)
        if len(forms) > 1:
            body, media_type = self._index(records, forms)
        tag = self.reference.tag or ""
        target = self.repository.put_manifest(tag, body, media_type).digest
        failpoint.hit("push.manifest")
        self._note(records, forms, target, body)
        yield Progress(
            f"{tag}: digest: {target} size: {len(body)}", pushed=(tag, target, len(body))
        )

    def _note(
        self, records: list[ImageRecord], forms: list[Form], target: Digest, body: bytes
    ) -> None:
        """What the tag stands for in the registry now is known of the images too."""
        repository, name = self.reference.repository, self.reference.familiar
        origins = {
            record.id: Origin(repository=repository, target=target, manifest=form.document.digest)
            for record, form in zip(records, forms, strict=True)
        }
        documents = {form.document.digest: form.document.body for form in forms}
        event = Event(EventType.IMAGE, "push", name, {"name": self.reference.familiar_name})
        self.images.note_pushed(origins, {**documents, target: body}, event)

    def _index(self, records: list[ImageRecord], forms: list[Form]) -> tuple[bytes, str]:
        """The index that they all came under, if all of it is here."""
        entries = [
            Descriptor(
                media_type=form.document.media_type,
                digest=form.document.digest,
                size=len(form.document.body),
                platform=record.platform,
            )
            for record, form in zip(records, forms, strict=True)
        ]
        here = {entry.digest for entry in entries}
        targets = [{origin.target for origin in record.origins} for record in records]
        for target in sorted(set.intersection(*targets)):
            with contextlib.suppress(EstibaError, msgspec.DecodeError):
                body = self.images.content.read(target)
                index = from_json(body, Index)
                if here == {entry.digest for entry in index.manifests}:
                    return body, index.media_type or MEDIA_INDEX
        own = Index(schema_version=2, media_type=MEDIA_INDEX, manifests=entries)
        return msgspec.json.encode(own), MEDIA_INDEX

    def _attest(self, record: ImageRecord, form: Form) -> Iterator[Progress]:
        """A registry that takes no such manifests gets the image all the same."""
        document = form.document
        subject = Descriptor(
            media_type=document.media_type, digest=document.digest, size=len(document.body)
        )
        with self.images.kept(record):
            referrers = referrers_of(self.images, record, subject, self.reference.familiar_name)
        for referrer in referrers:
            kind = referrer.predicate_type
            try:
                self._put_referrer(referrer, subject.digest)
            except (InvalidArgument, NotFound, Forbidden) as error:
                yield Progress(f"The registry does not take the attestation {kind}: {error}")
            else:
                yield Progress(f"Attestation {kind}: {referrer.descriptor.digest}")

    def _put_referrer(self, referrer: Referrer, subject: Digest) -> None:
        for digest, data in referrer.blobs.items():
            if not self.repository.has_blob(digest):
                self.repository.upload_blob(
                    IteratorSource(iter([data])),
                    size=len(data),
                    digest=digest,
                    reopen=lambda data=data: IteratorSource(iter([data])),  # type: ignore[misc]
                )
        entry = referrer.descriptor
        content = Content(entry.media_type, entry.digest, entry.size)
        listed = Listed(content, entry.artifact_type, entry.annotations)
        put_referrer(self.repository, referrer.body, listed, subject)

    # -- blobs -----------------------------------------------------------------------------

    def _image(self, record: ImageRecord) -> Generator[Progress, None, Form]:
        """Sends the blobs; returns the form whose manifest may follow them."""
        lost: set[Digest] = set()
        with self.images.kept(record):
            for _ in range(MAX_ROUNDS):
                uploads = Uploads(
                    self.images, self.repository, self.pusher.settings, self.credentials, lost
                )
                form = None if self.annotations else self._original(record, uploads)
                if form is None:
                    form = self._own(record, lost)
                    if record.origins and not self.annotations:
                        yield Progress(
                            "The blobs that the image came in cannot be made again: it goes as a "
                            "new manifest"
                        )
                wanted = {
                    part.descriptor.digest: Upload(part)
                    for part in form.parts
                    if not is_foreign(part.descriptor)
                }
                if form.config:
                    config = form.manifest.config
                    wanted[config.digest] = Upload(Part(config), data=form.config)
                yield from uploads.run(list(wanted.values()), self.pusher.parallel)
                if any(upload.is_other for upload in wanted.values()):
                    continue  # a blob came out differently: planned anew, without that one
                if any(upload.made for upload in wanted.values()):
                    sent = [wanted[part.descriptor.digest].sent_part for part in form.parts]
                    form = own_form(record, sent, self.annotations)
                return form
        raise InvalidArgument(f"the layers of {record.id} give other blobs each time")

    def _original(self, record: ImageRecord, uploads: Uploads) -> Form | None:
        """A form it came in, whose every blob can be had; what is here already goes first."""
        mine, beside = self.reference.repository, f"{self.reference.domain}/"

        def far(pair: tuple[Origin, Form]) -> tuple[bool, bool]:
            place = pair[0].repository
            return place != mine, not place.startswith(beside)

        for origin, form in sorted(original_forms(self.images, record), key=far):
            if origin.manifest != form.document.digest:
                continue
            if not record.artifact and len(form.parts) != len(record.layers):
                continue
            if all(is_foreign(p.descriptor) or uploads.can_have(p) for p in form.parts):
                return form
        return None

    def _own(self, record: ImageRecord, lost: set[Digest]) -> Form:
        """Each layer as a blob that the registry has or that can be made, or else a new one."""
        target = self.reference
        parts = [best_part(self.images, target, diff_id, lost) for diff_id in record.layers]
        return own_form(record, parts, self.annotations)
