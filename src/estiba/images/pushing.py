"""Images to registries (distribution-spec 1.1): the push of one reference.

Blobs that the registry has are passed over or mounted. An image goes as the manifest that it
came in wherever its blobs can be had: made again from the layer, or fetched from the registry
they came from. Otherwise it goes as a manifest of our own, and the output says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import msgspec

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images.forms import Form, Part, original_forms, own_form
from estiba.images.images import Images
from estiba.images.manifests import DOCKER_LAYER, is_foreign
from estiba.images.progress import Progress
from estiba.images.record import ImageRecord, Origin
from estiba.images.uploading import Upload, Uploads
from estiba.kernel import failpoint
from estiba.model.digest import Digest
from estiba.model.errors import EstibaError, InvalidArgument, NotFound
from estiba.model.event import Event, EventType
from estiba.model.image import MEDIA_INDEX, MEDIA_LAYER, Descriptor, Index, Platform
from estiba.model.reference import Reference, parse_reference
from estiba.storage.encoding import OWN, UNKNOWN, Blob

_GZIP_LAYER = f"{MEDIA_LAYER}+gzip"
_MAX_ROUNDS = 8


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
        with Repository(
            reference, self.settings, credentials, push=True, cancel=cancel
        ) as repository:
            try:
                for tag in tags:
                    records = self._records(tag, platform)
                    yield from _Push(self, repository, tag, credentials).run(records)
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

    @property
    def images(self) -> Images:
        return self.pusher.images

    def run(self, records: list[ImageRecord]) -> Iterator[Progress]:
        """One image under the tag, or an index over those of several platforms."""
        forms: list[Form] = []
        for record in records:
            forms.append((yield from self._image(record)))
        body, media_type = forms[0].document.body, forms[0].document.media_type
        if len(forms) > 1:
            for document in (form.document for form in forms):
                self.repository.put_manifest(document.digest, document.body, document.media_type)
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
                index = msgspec.json.decode(body, type=Index)
                if here == {entry.digest for entry in index.manifests}:
                    return body, index.media_type or MEDIA_INDEX
        own = Index(schema_version=2, media_type=MEDIA_INDEX, manifests=entries)
        return msgspec.json.encode(own), MEDIA_INDEX

    # -- blobs -----------------------------------------------------------------------------

    def _image(self, record: ImageRecord) -> Generator[Progress, None, Form]:
        """Sends the blobs; returns the form whose manifest may follow them."""
        lost: set[Digest] = set()
        with self.images.leases.held([*record.layers, *record.blobs]):
            for _ in range(_MAX_ROUNDS):
                uploads = Uploads(
                    self.images, self.repository, self.pusher.settings, self.credentials, lost
                )
                form = self._original(record, uploads)
                if form is None:
                    form = self._own(record, lost)
                    if record.origins:
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
                    form = own_form(record, sent)
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
        parts = []
        for diff_id in record.layers:
            blob = self._best(diff_id, lost)
            if blob is None:
                empty = Descriptor(media_type=_GZIP_LAYER, digest=diff_id, size=0)
                parts.append(Part(empty, diff_id))
                continue
            media_type = _GZIP_LAYER if blob.media_type == DOCKER_LAYER else blob.media_type
            known = Descriptor(
                media_type=media_type or _GZIP_LAYER, digest=blob.digest, size=blob.size
            )
            parts.append(Part(known, diff_id, blob if blob.encoding != UNKNOWN else None))
        return own_form(record, parts)

    def _best(self, diff_id: Digest, lost: set[Digest]) -> Blob | None:
        blobs = [blob for blob in self.images.layers.blobs(diff_id) if blob.digest not in lost]
        for place in (self.reference.repository, f"{self.reference.domain}/"):
            for blob in reversed(blobs):
                if any(known.startswith(place) for known in blob.places):
                    return blob
        for blob in reversed(blobs):
            if blob.encoding == OWN:
                return blob
        return None
