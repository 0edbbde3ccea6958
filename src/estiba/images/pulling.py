"""Images from registries (distribution-spec 1.1): the pull of one reference.

What a pull fetches is leased in the database until its record stands: after a crash or a broken
connection the next pull of the same goes on from there; after a cancellation nothing stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from estiba.distribution.blobs import BlobStream
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images import removal
from estiba.images.fetching import Fetch, Fetches, watch
from estiba.images.images import Images, Naming, NewImage, decode_config
from estiba.images.manifests import (
    MAX_INDEX_DEPTH,
    Document,
    artifact_type,
    choose_platform,
    is_image,
    parse,
)
from estiba.images.progress import Progress, short
from estiba.images.record import ImageRecord, Origin
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import (
    DataLoss,
    EstibaError,
    Forbidden,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unauthorized,
    Unavailable,
)
from estiba.model.event import Event, EventType
from estiba.model.image import Descriptor, Manifest, Platform
from estiba.model.reference import Reference
from estiba.storage.hashing import Hashing

T = TypeVar("T")

_GIVE_UP_S = 10.0
_MAX_CONFIG_BYTES = 8 << 20


@dataclass(slots=True)
class Puller:
    """All pulls of one engine; they share the fetches of layers."""

    images: Images
    settings: RegistrySettings
    fetches: Fetches

    def pull(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials,
        cancel: CancelToken,
    ) -> Iterator[Progress]:
        """Blocks between the steps; `cancel`, or closing the iterator, ends the pull.

        Raises NotFound, Unauthorized, Unavailable, InvalidArgument, LimitExceeded, DataLoss.
        """
        with Repository(reference, self.settings, credentials, cancel=cancel) as repository:
            is_new = yield from _Pull(self, repository, reference.tagged, platform).run()
            yield _status(reference.tagged, is_new=is_new)

    def pull_all(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials,
        cancel: CancelToken,
    ) -> Iterator[Progress]:
        """Every tag of a repository."""
        with Repository(reference, self.settings, credentials, cancel=cancel) as repository:
            try:
                tags = repository.tags()
            except (Unauthorized, Forbidden) as error:
                raise _denied(reference, error) from error
            is_new = False
            for tag in tags:
                one = Reference(reference.domain, reference.path, tag)
                is_new |= yield from _Pull(self, repository, one, platform).run()
            yield _status(reference, is_new=is_new)


@dataclass(slots=True)
class _Pull:
    puller: Puller
    repository: Repository
    reference: Reference
    platform: Platform | None
    wake: threading.Event = field(default_factory=threading.Event)
    left: list[Fetch] = field(default_factory=list)
    """Fetches that nobody else waits for."""

    @property
    def images(self) -> Images:
        return self.puller.images

    @property
    def wanted(self) -> Platform:
        return self.platform or self.images.host

    @property
    def key(self) -> str:
        return f"{self.reference} {self.wanted}"

    def run(self) -> Generator[Progress, None, bool]:
        """True when the name stands for another image now."""
        target = self.reference.digest or self.reference.tag or ""
        pulling = Progress(f"Pulling from {self.reference.path}", target)
        current = self._up_to_date()
        if current is not None:
            yield pulling
            yield Progress(f"Digest: {current}")
            return False
        documents = self._documents()
        yield pulling
        before = self._ids()
        yield from self._fetch(documents)
        yield Progress(f"Digest: {documents[0].digest}")
        return self._ids() != before

    def _ids(self) -> set[Digest]:
        return {record.id for record in self.images.named(self.reference)}

    # -- manifests -------------------------------------------------------------------------

    def _up_to_date(self) -> Digest | None:
        """The digest that the name stands for, if that very image is here."""
        known = [
            (origin.target, record)
            for record in self.images.named(self.reference)
            for origin in record.origins
            if origin.repository == self.reference.repository
            and (record.artifact or record.platform.serves(self.wanted))
        ]
        if not known or not all(self._is_whole(record) for _, record in known):
            return None
        digest = self.reference.digest
        if digest is None:
            digest = self._asking(lambda: self.repository.resolve(self.reference.tag or "").digest)
        found = next((record for target, record in known if target == digest), None)
        if found is None:
            return None
        self.images.usage.note(found.id)
        return digest

    def _is_whole(self, record: ImageRecord) -> bool:
        return all(self.images.layers.info(layer) is not None for layer in record.layers)

    def _documents(self) -> list[Document]:
        """From what the name stands for down to the image's manifest."""
        target = self.reference.digest or self.reference.tag or ""
        documents: list[Document] = []
        while len(documents) <= MAX_INDEX_DEPTH:
            fetched = self._asking(partial(self.repository.manifest, target))
            content = fetched.content
            if any(content.digest == document.digest for document in documents):
                raise InvalidArgument(
                    f"the index {content.digest} of {self.reference} names itself"
                )
            document = parse(fetched.body, content.digest, content.media_type)
            documents.append(document)
            if isinstance(document.value, Manifest):
                return documents
            target = choose_platform(document.value, self.wanted, str(self.reference)).digest
        raise LimitExceeded(f"the indexes of {self.reference} are nested too deeply")

    def _asking(self, ask: Callable[[], T]) -> T:
        """Errors in the words that users of Docker know."""
        try:
            return ask()
        except (Unauthorized, Forbidden) as error:
            raise _denied(self.reference, error) from error

    # -- blobs -----------------------------------------------------------------------------

    def _fetch(self, documents: list[Document]) -> Iterator[Progress]:
        manifest = documents[-1].value
        assert isinstance(manifest, Manifest)
        try:
            with self.images.leases.held([document.digest for document in documents]):
                for document in documents:
                    self.images.content.put(document.body, document.digest)
                if is_image(manifest):
                    yield from self._fetch_image(documents, manifest)
                else:
                    yield from self._fetch_artifact(documents, manifest)
        except Unavailable:
            # What the lease covers stays for the next attempt.
            removal.collect(self.images)
            raise
        except BaseException:
            self._give_up()
            raise
        # A former attempt may have left what this one had no need of.
        removal.collect(self.images)

    def _give_up(self) -> None:
        """Nothing of it stays, once its threads have noticed."""
        for fetch in self.left:
            fetch.finished.wait(_GIVE_UP_S)
        self.images.leases.give_up_pull(self.key)
        removal.collect(self.images)

    def _fetch_image(self, documents: list[Document], manifest: Manifest) -> Iterator[Progress]:
        config_json = self._config(manifest)
        diff_ids = decode_config(config_json).rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"the config of {self.reference} names {len(diff_ids)} layers, its manifest "
                f"{len(manifest.layers)}"
            )
        pairs = list(zip(manifest.layers, diff_ids, strict=True))
        blobs = [layer.digest for layer in manifest.layers]
        with self.images.leases.held([*diff_ids, *blobs]):
            missing = [pair for pair in pairs if self.images.layers.info(pair[1]) is None]
            if missing:
                needed = [digest for layer, diff in missing for digest in (layer.digest, diff)]
                digests = [document.digest for document in documents]
                self.images.leases.begin_pull(self.key, [*digests, *diff_ids, *needed])
            yield from self._fetch_layers(pairs)
            infos = [self.images.layer_info(diff_id) for diff_id in diff_ids]
            self._record(NewImage(config_json, infos, (self._origin(documents),)))

    def _config(self, manifest: Manifest) -> bytes:
        if manifest.config.size > _MAX_CONFIG_BYTES:
            raise LimitExceeded(f"the config of {self.reference} is over {_MAX_CONFIG_BYTES} bytes")
        config_json = self.repository.read_blob(manifest.config.digest, manifest.config.size)
        config = decode_config(config_json)
        if config.os != "linux":
            raise InvalidArgument(
                f'image operating system "{config.os[:32]}" cannot be used on this platform'
            )
        if digest_of(config_json) != manifest.config.digest:
            raise InvalidArgument(
                f"the config {manifest.config.digest} is not named by its sha256 digest, which is "
                "the image's id"
            )
        return config_json

    def _fetch_layers(self, pairs: list[tuple[Descriptor, Digest]]) -> Iterator[Progress]:
        """Waits for all; when one fails, or nobody waits any more, leaves the others.

        A fetch from another repository that fails says nothing of this one, which is asked then.
        """
        mine = self.reference.repository
        for is_second in (False, True):
            fetches: dict[Digest, Fetch] = {}
            try:
                yield from self._fetch_round(pairs, fetches, only_mine=is_second)
                return
            except EstibaError as error:
                foreign = [one for one in fetches.values() if one.place != mine]
                if is_second or not any(one.error is error for one in foreign):
                    raise
            finally:
                for fetch in fetches.values():
                    if self.puller.fetches.leave(fetch, self.wake):
                        self.left.append(fetch)

    def _fetch_round(
        self,
        pairs: list[tuple[Descriptor, Digest]],
        fetches: dict[Digest, Fetch],
        *,
        only_mine: bool,
    ) -> Iterator[Progress]:
        """Notes in `fetches` what it has joined."""
        reports: list[tuple[str, Fetch]] = []
        for descriptor, diff_id in pairs:
            if self.images.layers.info(diff_id) is not None:
                yield Progress("Already exists", short(descriptor.digest))
            elif diff_id not in fetches:
                fetch = fetches[diff_id] = self._join(descriptor, diff_id, only_mine=only_mine)
                reports.append((short(descriptor.digest), fetch))
                yield Progress("Pulling fs layer", short(descriptor.digest))
        yield from watch(reports, self.wake)

    def _join(self, descriptor: Descriptor, diff_id: Digest, *, only_mine: bool) -> Fetch:
        reference, repository = self.reference, self.repository

        def open_blob(cancel: CancelToken, offset: int, hashing: Hashing) -> BlobStream:
            # The fetch may outlive this pull, for the sake of another one.
            part = repository.fork(cancel)
            return part.blob(descriptor.digest, descriptor.size, offset=offset, hasher=hashing)

        wanted = Fetch(descriptor, diff_id, reference.repository)
        return self.puller.fetches.join(wanted, open_blob, self.wake, only_same_place=only_mine)

    def _fetch_artifact(self, documents: list[Document], manifest: Manifest) -> Iterator[Progress]:
        unique = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
        with self.images.leases.held(unique):
            for blob in unique.values():
                yield Progress("Downloading", short(blob.digest), 0, blob.size)
                self._fetch_blob(blob)
                yield Progress("Download complete", short(blob.digest))
            self._record(
                NewImage(
                    b"{}",
                    [],
                    (self._origin(documents),),
                    artifact=artifact_type(manifest) or "unknown",
                    blobs=tuple(unique),
                    size_bytes=sum(blob.size for blob in unique.values()),
                )
            )

    def _fetch_blob(self, blob: Descriptor) -> None:
        while True:
            with self.repository.blob(blob.digest, blob.size) as stream:
                try:
                    self.images.content.ingest(stream, blob.digest, blob.size)
                    return
                except DataLoss:
                    if not stream.blame():
                        raise

    # -- the record ------------------------------------------------------------------------

    def _origin(self, documents: list[Document]) -> Origin:
        return Origin(
            repository=self.reference.repository,
            target=documents[0].digest,
            manifest=documents[-1].digest,
        )

    def _record(self, new: NewImage) -> None:
        """Images of other platforms keep the tag if it means the same index for them."""
        tags = () if self.reference.digest else (self.reference,)
        target = new.origins[0].target
        beside = {
            record.id
            for record in self.images.named(self.reference)
            if any(origin.target == target for origin in record.origins)
            and not record.platform.serves(self.wanted)
        }
        name = self.reference.familiar
        event = Event(EventType.IMAGE, "pull", name, {"name": self.reference.familiar_name})
        record = self.images.add(new, Naming(tags, beside, event), "pull", pull=self.key)
        self.images.usage.note(record.id)


def _status(reference: Reference, *, is_new: bool) -> Progress:
    what = "Downloaded newer image" if is_new else "Image is up to date"
    return Progress(f"Status: {what} for {reference.familiar}")


def _denied(reference: Reference, error: Unauthorized | Forbidden) -> NotFound:
    """Docker's answer: whether it is there is nobody's business without the right to see it."""
    return NotFound(
        f"pull access denied for {reference.familiar_name}, repository does not exist or may "
        f"require 'docker login': {error.message}"
    )
