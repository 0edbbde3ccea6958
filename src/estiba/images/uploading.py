"""The blobs of one push: each skipped, mounted, made, or fetched from where it came."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images.forms import Part, open_part
from estiba.images.images import Images
from estiba.images.importing import IteratorSource
from estiba.images.manifests import DOCKER_LAYER
from estiba.images.progress import Progress, short
from estiba.model.digest import Digest
from estiba.model.errors import DataLoss, EstibaError, InvalidArgument
from estiba.model.image import MEDIA_LAYER, Descriptor
from estiba.model.reference import Reference, parse_reference
from estiba.storage.encoding import OWN, UNKNOWN, Blob, encoded
from estiba.storage.tar import Source

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_GZIP_LAYER = f"{MEDIA_LAYER}+gzip"
MAX_ROUNDS = 8
"""How often a push is planned anew, because a blob came out differently."""


@dataclass(slots=True)
class Upload:
    """One blob on its way. `data` is a config's; a layer of size 0 has no blob yet."""

    part: Part
    data: bytes = b""
    state: str = "Preparing"
    offset: int = 0
    total: int = 0
    made: Descriptor | None = None
    """What a layer that had no blob was sent as."""

    is_other: bool = False
    """Making the blob again gave another one."""

    @property
    def name(self) -> str:
        return short(self.part.diff_id or self.part.descriptor.digest)

    @property
    def sent_part(self) -> Part:
        if self.made is None:
            return self.part
        return Part(self.made, self.part.diff_id)


@dataclass(slots=True)
class Uploads:
    """Several at a time, over one repository's connections."""

    images: Images
    repository: Repository
    settings: RegistrySettings
    credentials: Credentials
    lost: set[Digest] = field(default_factory=set)
    """Blobs that no repository gave in this push."""

    _here: dict[Digest, bool] = field(default_factory=dict)
    _wake: threading.Event = field(default_factory=threading.Event)

    @property
    def _target(self) -> Reference:
        return self.repository.reference

    def can_have(self, part: Part) -> bool:
        """Whether there is a way to the blob; one that the registry has is best."""
        if part.blob is not None or self._in_registry(part.descriptor.digest):
            return True
        if not part.diff_id:
            return self.images.content.has(part.descriptor.digest)
        return part.descriptor.digest not in self.lost and bool(self._places(part))

    def _in_registry(self, digest: Digest) -> bool:
        if digest not in self._here:
            self._here[digest] = self.repository.has_blob(digest)
        return self._here[digest]

    def _places(self, part: Part) -> list[Reference]:
        """Repositories that had the blob, those of this registry first."""
        if not part.diff_id:
            return []
        digest = part.descriptor.digest
        known = [blob for blob in self.images.layers.blobs(part.diff_id) if blob.digest == digest]
        names = [place for blob in known for place in reversed(blob.places)]
        places = [parse_reference(place) for place in dict.fromkeys([*names, *part.places])]
        return sorted(places, key=lambda place: place.domain != self._target.domain)

    def _is_beside(self, place: Reference) -> bool:
        """Another repository of this registry."""
        return place.domain == self._target.domain and place.path != self._target.path

    def run(self, uploads: list[Upload], parallel: int) -> Iterator[Progress]:
        """Sends all. Raises the first failure; the others end with the repository's token."""
        for upload in uploads:
            if not upload.data:
                yield Progress("Preparing", upload.name)
        with ThreadPoolExecutor(parallel, thread_name_prefix="blob-push") as pool:
            futures = [pool.submit(self._send, upload) for upload in uploads]
            try:
                yield from self._watch(uploads, futures)
            except BaseException:
                self.repository.cancel.cancel()
                for future in futures:
                    future.cancel()
                raise

    def _watch(self, uploads: list[Upload], futures: list[Future[None]]) -> Iterator[Progress]:
        shown = dict.fromkeys(range(len(uploads)), ("Preparing", 0))
        while True:
            self._wake.clear()
            is_over = all(future.done() for future in futures)
            for number, upload in enumerate(uploads):
                now = (upload.state, upload.offset)
                if shown.get(number) != now and not upload.data:
                    shown[number] = now
                    yield _told(upload)
            for future in futures:
                if future.done():
                    future.result()
            if is_over:
                return
            self._wake.wait(_POLL_S)

    def _send(self, upload: Upload) -> None:
        try:
            upload.state = self._sent(upload)
        finally:
            self._wake.set()

    def _sent(self, upload: Upload) -> str:
        part = upload.part
        digest = part.descriptor.digest
        upload.total = part.descriptor.size
        if not upload.data and part.diff_id and not part.descriptor.size:
            self._send_new(upload)
            return "Pushed"
        if self._in_registry(digest):
            self._note(part)
            return "Layer already exists"
        for place in self._places(part):
            if self._is_beside(place) and self.repository.mount_blob(digest, place.path):
                self._note(part)
                return f"Mounted from {place.path}"
        self._send_known(upload)
        if upload.is_other:
            return "Preparing"
        self._note(part)
        return "Pushed"

    def _send_known(self, upload: Upload) -> None:
        part, descriptor = upload.part, upload.part.descriptor
        upload.state = "Pushing"
        if upload.data:
            self._upload(upload, lambda: IteratorSource(iter([upload.data])))
        elif part.blob is not None:
            try:
                self._upload(upload, lambda: IteratorSource(open_part(self.images, part)))
            except DataLoss:
                self.images.layers.settle_blob(part.diff_id, descriptor.digest, is_same=False)
                upload.is_other = True
            else:
                self.images.layers.settle_blob(part.diff_id, descriptor.digest, is_same=True)
        elif not part.diff_id:
            self._upload(upload, lambda: IteratorSource(open_part(self.images, part)))
        else:
            self._send_fetched(upload)

    def _upload(self, upload: Upload, open_source: Callable[[], Source]) -> None:
        descriptor = upload.part.descriptor

        def progress(sent: int) -> None:
            upload.offset = sent

        self.repository.upload_blob(
            open_source(),
            size=descriptor.size,
            digest=descriptor.digest,
            progress=progress,
            reopen=open_source,
        )

    def _send_fetched(self, upload: Upload) -> None:
        """From the registry that the layer came from, through here."""
        descriptor = upload.part.descriptor
        for place in self._places(upload.part):
            is_same = place.domain == self._target.domain
            credentials = self.credentials if is_same else ANONYMOUS
            token = self.repository.cancel
            try:
                with (
                    Repository(place, self.settings, credentials, cancel=token) as other,
                    ExitStack() as opened,
                ):

                    def stream(other: Repository = other, opened: ExitStack = opened) -> Source:
                        return opened.enter_context(other.blob(descriptor.digest, descriptor.size))

                    self._upload(upload, stream)
                    return
            except EstibaError as error:
                self.repository.cancel.check()
                _log.info("blob %s cannot be had from %s: %s", descriptor.digest, place, error)
        # Planned anew, without this way.
        upload.is_other = True
        self.lost.add(descriptor.digest)

    def _send_new(self, upload: Upload) -> None:
        """A blob of our own making; its digest is known when it has been sent."""
        upload.state = "Pushing"
        diff_id = upload.part.diff_id
        upload.total = self.images.layer_info(diff_id).tar_bytes

        def counted() -> Iterator[bytes]:
            upload.offset = 0
            for piece in self.images.layers.tar(diff_id):
                upload.offset += len(piece)
                yield piece

        def open_source() -> Source:
            return IteratorSource(encoded(counted(), OWN))

        content = self.repository.upload_blob(open_source(), reopen=open_source)
        upload.made = Descriptor(media_type=_GZIP_LAYER, digest=content.digest, size=content.size)
        self._note_blob(
            diff_id,
            Blob(
                digest=content.digest,
                size=content.size,
                media_type=_GZIP_LAYER,
                encoding=OWN,
                is_proven=True,
            ),
        )

    def _note(self, part: Part) -> None:
        """The repository has the layer's blob now.

        A blob that is not known to be this layer's is none for other images with the layer.
        """
        if not part.diff_id:
            return
        descriptor = part.descriptor
        known = {blob.digest for blob in self.images.layers.blobs(part.diff_id)}
        if part.blob is not None or descriptor.digest in known:
            self._note_blob(
                part.diff_id,
                Blob(
                    digest=descriptor.digest,
                    size=descriptor.size,
                    media_type=descriptor.media_type,
                ),
            )

    def _note_blob(self, diff_id: Digest, blob: Blob) -> None:
        placed = msgspec.structs.replace(blob, places=[self._target.repository])
        self.images.layers.note_blob(diff_id, placed)


def _told(upload: Upload) -> Progress:
    if upload.state == "Pushing":
        return Progress("Pushing", upload.name, upload.offset, upload.total)
    return Progress(upload.state, upload.name)


def best_part(
    images: Images, target: Reference, diff_id: Digest, lost: Collection[Digest] = ()
) -> Part:
    """The layer as a blob that the registry has or that can be made, or else as a new one."""
    blob = _best(images, target, diff_id, lost)
    if blob is None:
        return Part(Descriptor(media_type=_GZIP_LAYER, digest=diff_id, size=0), diff_id)
    media_type = _GZIP_LAYER if blob.media_type == DOCKER_LAYER else blob.media_type
    known = Descriptor(media_type=media_type or _GZIP_LAYER, digest=blob.digest, size=blob.size)
    return Part(known, diff_id, blob if blob.encoding != UNKNOWN else None)


def _best(
    images: Images, target: Reference, diff_id: Digest, lost: Collection[Digest]
) -> Blob | None:
    blobs = [blob for blob in images.layers.blobs(diff_id) if blob.digest not in lost]
    for place in (target.repository, f"{target.domain}/"):
        for blob in reversed(blobs):
            if any(known.startswith(place) for known in blob.places):
                return blob
    for blob in reversed(blobs):
        if blob.encoding == OWN:
            return blob
    return None


def send_layers(
    images: Images,
    repository: Repository,
    settings: RegistrySettings,
    credentials: Credentials,
    diff_ids: Sequence[Digest],
    parallel: int,
) -> Generator[Progress, None, list[Descriptor]]:
    """Layers without an image: the blobs that the repository has of them afterwards, in order.

    The caller has leased them. Raises as `Uploads.run`, NotFound.
    """
    lost: set[Digest] = set()
    for _ in range(MAX_ROUNDS):
        uploads = Uploads(images, repository, settings, credentials, lost)
        parts = [best_part(images, repository.reference, diff_id, lost) for diff_id in diff_ids]
        sent = {part.diff_id: Upload(part) for part in parts}
        yield from uploads.run(list(sent.values()), parallel)
        if not any(upload.is_other for upload in sent.values()):
            return [sent[diff_id].sent_part.descriptor for diff_id in diff_ids]
    raise InvalidArgument(f"the layers for {repository.reference} give other blobs each time")
