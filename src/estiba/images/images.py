"""All images of one engine: found, tagged, removed, made of layers.

Owns the records; layers and content belong to the storage package. Finding never waits; every
other method blocks. All may be called from any thread: one lock covers what changes the index.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from estiba.images import removal
from estiba.images.index import Index, choose
from estiba.images.leases import Leases
from estiba.images.record import KIND, ImageRecord, Origin, decode, encode, facts, parse_time
from estiba.images.usage import Usage
from estiba.kernel import failpoint
from estiba.model.digest import Digest, digest_of, parse_diff_id
from estiba.model.errors import InvalidArgument, LimitExceeded, NotFound
from estiba.model.event import Event, EventType
from estiba.model.image import ImageConfig, Platform, parse_config
from estiba.model.reference import Reference
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerInfo, LayerStore
from estiba.storage.tar import Source
from estiba.store import Store, Transaction

MAX_LAYERS = 125
"""As Docker's; an overlay mount takes some more."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """What an image is made of. `origins` are added to those of one that exists."""

    config_json: bytes
    layers: list[LayerInfo]
    origins: tuple[Origin, ...] = ()
    parent: Digest = ""
    """For show."""

    artifact: str = ""
    blobs: tuple[Digest, ...] = ()
    size_bytes: int = 0
    """Of an artifact's blobs."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How an image gets its tags.

    Images of `beside` keep a tag that they have, as those of other platforms under one name;
    any other loses it. `event` takes the place of the tags' own events.
    """

    tags: tuple[Reference, ...] = ()
    beside: Collection[Digest] = ()
    event: Event | None = None


@dataclass(slots=True)
class Images:
    """`snapshot_layers` tells which layers containers stand on; they are never collected."""

    layers: LayerStore
    content: ContentStore
    store: Store
    snapshot_layers: Callable[[], set[Digest]]
    host: Platform
    leases: Leases = field(init=False)
    usage: Usage = field(init=False)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _index: Index = field(default_factory=Index)

    def __post_init__(self) -> None:
        self.leases = Leases(self.store)
        self.usage = Usage(self.store)

    def open(self) -> None:
        """Loads the records and collects what no record justifies."""
        self.leases.open()
        self.usage.open()
        self._index = Index().after(decode(row.body) for row in self.store.load(KIND))
        self.usage.forget_others(self._index.records)
        removal.collect(self)

    # -- finding ---------------------------------------------------------------------------

    def list_all(self) -> list[ImageRecord]:
        """Newest first; of the same age, as all that only adds to the config of one base, what
        was named last.
        """
        records = self._index.records.values()
        return sorted(records, key=lambda one: (one.created_ns, one.tagged_ns), reverse=True)

    def get(self, digest: Digest) -> ImageRecord | None:
        """By its whole id."""
        return self._index.records.get(digest)

    def resolve(self, name: str, platform: Platform | None = None) -> ImageRecord:
        """By reference, id, or an unambiguous beginning of an id.

        Of several platforms under one name the host's comes first, then the newest.
        Raises NotFound in Docker's words, InvalidArgument for several matches.
        """
        return choose(self._index.find(name), name, platform, self.host)

    def find_all(self, name: str) -> list[ImageRecord]:
        """As `resolve`, and behind it the images of other platforms under the same name."""
        found = self._index.find(name)
        first = choose(found, name, None, self.host)
        return [first, *(record for record in found if record.id != first.id)]

    def named(self, reference: Reference) -> list[ImageRecord]:
        """All images that a reference names: one a platform."""
        return self._index.named(reference)

    def tags_of(self, repository: str) -> list[str]:
        """All references with a tag of a bare repository; none for anything else."""
        return self._index.tags_of(repository)

    def id_of(self, name: str) -> Digest | None:
        """The image that `name` names by its id, or None when it is no id."""
        return self._index.id_of(name)

    # -- making ----------------------------------------------------------------------------

    def add(self, new: NewImage, naming: Naming, action: str, *, pull: str = "") -> ImageRecord:
        """An image of existing layers; one that exists gains the tags and origins.

        Record, tags, events and the end of the lease of `pull` are one commit. Raises
        InvalidArgument when the config does not describe the layers, or for a tag with a digest.
        """
        made = _record_of(new)
        for reference in naming.tags:
            check_taggable(reference)
        with self.lock:
            record = self._index.records.get(made.id)
            if record is None:
                record = made
            else:
                origins = [origin for origin in record.origins if origin not in new.origins]
                record = msgspec.structs.replace(record, origins=[*origins, *new.origins])
            events = [naming.event] if naming.event else [_event(action, record)]
            losers, record, tag_events = self._tagged(record, naming)
            events += [] if naming.event else tag_events
            self.write([*losers, record], events, pull=pull)
            return record

    def _tagged(
        self, record: ImageRecord, naming: Naming
    ) -> tuple[list[ImageRecord], ImageRecord, list[Event]]:
        """`record` with its new tags, and the images that lose them."""
        losers: dict[Digest, ImageRecord] = {}
        tags, events = list(record.repo_tags), []
        for reference in naming.tags:
            tag = reference.tagged.familiar
            for holder in self._index.tags.get(tag, ()):
                if holder != record.id and holder not in naming.beside:
                    loser = losers.get(holder, self._index.records[holder])
                    losers[holder] = removal.without_tag(loser, tag)
            if tag not in tags:
                tags.append(tag)
                events.append(Event(EventType.IMAGE, "tag", record.id, {"name": tag}))
        if not events:
            return list(losers.values()), record, []
        record = msgspec.structs.replace(record, repo_tags=tags, tagged_ns=time.time_ns())
        return list(losers.values()), record, events

    def ingest(
        self,
        source: Source,
        *,
        expected: Digest | None = None,
        check: Callable[[], None] | None = None,
    ) -> LayerInfo:
        """A new layer, leased for the caller; `check` runs before it appears.

        Raises as `LayerStore.ingest`.
        """
        leased: list[Digest] = []

        def keep(diff_id: Digest) -> None:
            if check is not None:
                check()
            self.leases.take([diff_id])
            leased.append(diff_id)

        try:
            return self.layers.ingest(source, expected=expected, keep=keep)
        except BaseException:
            self.leases.release(leased)
            raise

    @contextmanager
    def kept(self, *records: ImageRecord) -> Iterator[None]:
        """What these images need stays meanwhile; what is removed until then goes at the end."""
        needed = {digest for record in records for digest in record.needed()}
        try:
            with self.leases.held(needed):
                yield
        finally:
            if any(self.get(record.id) is None for record in records):
                removal.collect(self)

    def held_layer(self, diff_id: Digest) -> LayerInfo | None:
        """The layer, leased for the caller; None, and no lease, when it is not here."""
        with self.lock:
            info = self.layers.info(diff_id)
            if info is not None:
                self.leases.take([diff_id])
        return info

    def layer_info(self, diff_id: Digest) -> LayerInfo:
        """Raises NotFound."""
        info = self.layers.info(diff_id)
        if info is None:
            raise NotFound(f"layer {diff_id} is missing: load the image again")
        return info

    def tag(self, name: str, target: Reference) -> None:
        """All platforms that `name` names. Raises NotFound, InvalidArgument for a digest."""
        check_taggable(target)
        with self.lock:
            chosen = self.find_all(name)
            naming = Naming((target,), {record.id for record in chosen})
            losers: list[ImageRecord] = []
            tagged: list[ImageRecord] = []
            events: list[Event] = []
            for record in reversed(chosen):
                losers, one, told = self._tagged(record, naming)
                tagged.append(one)
                events += told
            if events or losers:
                self.write([*losers, *tagged], events)

    def note_pushed(
        self, origins: Mapping[Digest, Origin], documents: Mapping[Digest, bytes], event: Event
    ) -> None:
        """Where images are now too, by `documents`. Nothing of those removed meanwhile."""
        with self.lock:
            records = []
            for image, origin in origins.items():
                record = self._index.records.get(image)
                if record is not None:
                    known = [one for one in record.origins if one != origin]
                    records.append(msgspec.structs.replace(record, origins=[*known, origin]))
            if records:
                for digest, body in documents.items():
                    self.content.put(body, digest)
                self.write(records, [event])

    def announce(self, record: ImageRecord, action: str) -> None:
        """Records an event that changes nothing, such as save."""
        event = _event(action, record)
        self.store.commit_blocking(lambda tx: tx.add_event(event), durable=False)

    # -- the index -------------------------------------------------------------------------

    def write(
        self,
        records: Iterable[ImageRecord],
        events: Iterable[Event],
        *,
        deleted: ImageRecord | None = None,
        pull: str = "",
    ) -> None:
        """One durable commit, then the index. The caller holds the lock."""
        records, events = list(records), list(events)

        def work(tx: Transaction) -> None:
            if deleted is not None:
                tx.delete(KIND, deleted.id)
            for record in records:
                tx.put(KIND, record.id, encode(record))
            for event in events:
                tx.add_event(event)
            if pull:
                self.leases.finish_pull(pull, tx)

        failpoint.hit("image.writing")
        self.store.commit_blocking(work, durable=True)
        if pull:
            self.leases.pull_finished(pull)
        failpoint.hit("image.written")
        self._index = self._index.after(records, [deleted] if deleted is not None else [])


def check_taggable(reference: Reference) -> None:
    """Raises InvalidArgument for one with a digest."""
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")


def decode_config(config_json: bytes) -> ImageConfig:
    """Its DiffIDs may be taken for names of layers.

    Raises InvalidArgument when it is damaged, LimitExceeded for too many layers.
    """
    try:
        config = parse_config(config_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the image's config is damaged: {error}") from error
    if len(config.rootfs.diff_ids) > MAX_LAYERS:
        raise LimitExceeded(f"max depth exceeded: an image of more than {MAX_LAYERS} layers")
    for diff_id in config.rootfs.diff_ids:
        parse_diff_id(diff_id)
    return config


def _record_of(new: NewImage) -> ImageRecord:
    if new.artifact:
        return ImageRecord(
            id=new.origins[0].manifest,
            config_json="{}",
            layers=[],
            origins=list(new.origins),
            artifact=new.artifact,
            blobs=list(new.blobs),
            size_bytes=new.size_bytes,
        )
    config = decode_config(new.config_json)
    if config.rootfs.diff_ids != [layer.diff_id for layer in new.layers]:
        raise InvalidArgument("the image's config names other layers than those given")
    return ImageRecord(
        id=digest_of(new.config_json),
        parent=new.parent,
        config_json=new.config_json.decode(),
        layers=config.rootfs.diff_ids,
        origins=list(new.origins),
        size_bytes=sum(layer.size_bytes for layer in new.layers),
        created_ns=parse_time(config.created),
    )


def _event(action: str, record: ImageRecord) -> Event:
    return Event(EventType.IMAGE, action, record.id, facts(record))
