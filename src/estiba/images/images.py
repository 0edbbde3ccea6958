"""All images of one engine: found, tagged, removed, made of layers.

Owns the index of records; layers belong to the storage package. Every method blocks and may
be called from any thread: one lock covers the index and no slow work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from estiba.images.record import KIND, ImageRecord, decode, encode, parse_time
from estiba.model.digest import Digest, chain_id, digest_of
from estiba.model.errors import Conflict, InvalidArgument, LimitExceeded, NotFound
from estiba.model.event import Event, EventType
from estiba.model.image import (
    HistoryEntry,
    ImageConfig,
    ImageProcessConfig,
    Platform,
    RootFs,
    parse_config,
)
from estiba.model.reference import Reference, parse_reference
from estiba.storage.compress import Decompressed
from estiba.storage.layers import LayerInfo, LayerStore
from estiba.storage.tar import Source
from estiba.store import Store, Transaction

MAX_LAYERS = 125
"""As Docker's; an overlay mount takes some more."""

InUse = Callable[[Digest], list[str]]
"""Short ids of containers that use the image."""


class Images:
    """`snapshot_layers` tells which layers containers stand on; they are never collected."""

    def __init__(
        self, layers: LayerStore, store: Store, snapshot_layers: Callable[[], set[Digest]]
    ) -> None:
        self.layers = layers
        self._store = store
        self._snapshot_layers = snapshot_layers
        self._lock = threading.RLock()
        self._records: dict[Digest, ImageRecord] = {}
        self._tags: dict[str, Digest] = {}
        self._leases: dict[Digest, int] = {}

    def open(self) -> None:
        """Loads the records and collects layers that no record justifies."""
        for row in self._store.load(KIND):
            self._index(decode(row.body))
        self.collect()

    # -- finding ---------------------------------------------------------------------------

    def list_all(self) -> list[ImageRecord]:
        """Newest first."""
        with self._lock:
            records = list(self._records.values())
        return sorted(records, key=lambda record: record.created_ns, reverse=True)

    def resolve(self, name: str) -> ImageRecord:
        """By reference, id, or an unambiguous beginning of an id.

        Raises NotFound in Docker's words, InvalidArgument for several matches.
        """
        with self._lock:
            digest = self._by_id(name)
            if digest is None:
                reference = self._parse(name)
                digest = self._tags.get(reference.tagged.familiar)
                if digest is None and reference.digest:
                    digest = self._by_digest(reference)
                if digest is None:
                    raise NotFound(f"No such image: {reference.tagged.familiar}")
            return self._records[digest]

    def tags_of(self, repository: str) -> list[str]:
        """All references with a tag of a bare repository; none for anything else."""
        try:
            reference = parse_reference(repository)
        except InvalidArgument:
            return []
        if reference.tag or reference.digest:
            return []
        prefix = f"{reference.familiar_name}:"
        with self._lock:
            return sorted(tag for tag in self._tags if tag.startswith(prefix))

    def _parse(self, name: str) -> Reference:
        try:
            return parse_reference(name)
        except InvalidArgument:
            if name.startswith("sha256:"):
                raise NotFound(f"No such image: {name}") from None
            raise

    def _by_id(self, name: str) -> Digest | None:
        text = name.removeprefix("sha256:")
        if len(text) < 2 or not all(character in "0123456789abcdef" for character in text):
            return None
        if name == text and name + ":latest" in self._tags:
            return None
        wanted = f"sha256:{text}"
        if wanted in self._records:
            return wanted
        matches = [digest for digest in self._records if digest.startswith(wanted)]
        if len(matches) > 1:
            raise InvalidArgument(f"ambiguous image id {name!r}: give more digits")
        return matches[0] if matches else None

    def _by_digest(self, reference: Reference) -> Digest | None:
        wanted = f"{reference.familiar_name}@{reference.digest}"
        for record in self._records.values():
            if wanted in record.repo_digests or record.id == reference.digest:
                return record.id
        return None

    # -- making ----------------------------------------------------------------------------

    def add(
        self,
        config_json: bytes,
        layers: list[LayerInfo],
        tags: Iterable[Reference],
        action: str,
        *,
        parent: Digest = "",
    ) -> ImageRecord:
        """An image of existing layers; one that exists gains the tags. `parent` is for show.

        Raises InvalidArgument when the config does not describe the layers.
        """
        config = decode_config(config_json)
        if config.rootfs.diff_ids != [layer.diff_id for layer in layers]:
            raise InvalidArgument("the image's config names other layers than those given")
        with self._lock:
            digest = digest_of(config_json)
            record = self._records.get(digest) or ImageRecord(
                id=digest,
                parent=parent,
                config_json=config_json.decode(),
                chain_ids=[layer.chain_id for layer in layers],
                size_bytes=sum(layer.size_bytes for layer in layers),
                created_ns=parse_time(config.created),
            )
            names = [tag.tagged.familiar for tag in tags]
            new = [name for name in names if self._tags.get(name) != digest]
            event = Event(EventType.IMAGE, action, digest, _facts(record))
            self._write(record, event, durable=not new)
            for name in new:
                record = self._tag(record, name)
            return record

    def add_layer(
        self,
        base: ImageRecord | None,
        layer: LayerInfo | None,
        process: ImageProcessConfig,
        *,
        entry: HistoryEntry,
        author: str,
        platform: Platform,
        tags: Iterable[Reference],
        action: str,
    ) -> ImageRecord:
        """An image of `base` and one more layer."""
        before = (
            base.config
            if base
            else ImageConfig(architecture=platform.architecture, variant=platform.variant)
        )
        diff_ids = [*before.rootfs.diff_ids, *([layer.diff_id] if layer else [])]
        config = msgspec.structs.replace(
            before,
            created=entry.created,
            author=author or before.author,
            config=process,
            rootfs=RootFs(diff_ids=diff_ids),
            history=[*before.history, entry],
        )
        infos = [self.layer_info(chain) for chain in base.chain_ids] if base else []
        return self.add(
            msgspec.json.encode(config),
            [*infos, *([layer] if layer else [])],
            tags,
            action,
            parent=base.id if base else "",
        )

    def ensure_layer(self, path: Path, parent: Digest | None, diff_id: Digest) -> LayerInfo:
        """The layer in the file `path`, unpacked unless it is here; leased for the caller."""
        chain = chain_id(parent, diff_id)
        with self._lock:
            self.lease([chain])
            found = self.layers.info(chain)
        if found is not None:
            return found
        try:
            with path.open("rb", buffering=0) as file:
                return self.layers.ingest(Decompressed(file), parent, expected=diff_id)
        except BaseException:
            self.release([chain])
            raise

    def ingest(self, source: Source, parent: Digest | None) -> LayerInfo:
        """A new layer on `parent`; leased for the caller. Raises as `LayerStore.ingest`."""
        leased: list[Digest] = []

        def keep(chain: Digest) -> None:
            self.lease([chain])
            leased.append(chain)

        try:
            return self.layers.ingest(source, parent, keep=keep)
        except BaseException:
            self.release(leased)
            raise

    def layer_info(self, chain: Digest) -> LayerInfo:
        """Raises NotFound."""
        info = self.layers.info(chain)
        if info is None:
            raise NotFound(f"layer {chain} is missing: load the image again")
        return info

    def lease(self, chains: Iterable[Digest]) -> None:
        """Keeps layers from being collected until `release`, while an operation makes use."""
        with self._lock:
            for chain in chains:
                self._leases[chain] = self._leases.get(chain, 0) + 1

    def release(self, chains: Iterable[Digest]) -> None:
        with self._lock:
            for chain in chains:
                self._leases[chain] -= 1
                if not self._leases[chain]:
                    del self._leases[chain]

    # -- tagging and removing --------------------------------------------------------------

    def tag(self, name: str, target: Reference) -> None:
        """Raises NotFound, InvalidArgument for a target with a digest."""
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        with self._lock:
            self._tag(self.resolve(name), target.tagged.familiar)

    def _tag(self, record: ImageRecord, tag: str) -> ImageRecord:
        holder = self._tags.get(tag)
        if holder == record.id:
            return record
        if holder is not None:
            loser = self._records[holder]
            self._write(_without_tag(loser, tag), None, durable=False)
        tagged = msgspec.structs.replace(
            record, repo_tags=[*record.repo_tags, tag], tagged_ns=time.time_ns()
        )
        self._write(tagged, Event(EventType.IMAGE, "tag", record.id, {"name": tag}))
        return tagged

    def remove(self, name: str, *, force: bool, in_use: InUse) -> list[dict[str, str]]:
        """Untags, and removes the image with its last tag, as `docker rmi` does.

        Raises NotFound, or Conflict when containers use it.
        """
        with self._lock:
            record = self.resolve(name)
            by_id = self._by_id(name) == record.id
            tag = "" if by_id else parse_reference(name).tagged.familiar
            users = in_use(record.id)
            repositories = {parse_reference(tag).repository for tag in record.repo_tags}
            if by_id and len(repositories) > 1 and not force and not users:
                raise Conflict(
                    f"conflict: unable to delete {record.id[7:19]} (must be forced) - image is "
                    "referenced in multiple repositories"
                )
            if tag and len(record.repo_tags) > 1:
                self._write(_without_tag(record, tag), _untag_event(record, tag))
                return [{"Untagged": tag}]
            self._check_unused(record, users, force=force, by_id=by_id)
            if users:
                return self._untag_all(record)
            return self._delete(record)

    def _check_unused(
        self, record: ImageRecord, users: list[str], *, force: bool, by_id: bool
    ) -> None:
        if users and not force:
            what = record.id[7:19] if by_id or not record.repo_tags else record.repo_tags[0]
            raise Conflict(
                f'conflict: unable to remove repository reference "{what}" (must force) - '
                f"container {users[0]} is using its referenced image {record.id[7:19]}"
            )

    def _untag_all(self, record: ImageRecord) -> list[dict[str, str]]:
        for tag in record.repo_tags:
            self._write(_without_tag(self._records[record.id], tag), _untag_event(record, tag))
        return [{"Untagged": tag} for tag in record.repo_tags]

    def _delete(self, record: ImageRecord) -> list[dict[str, str]]:
        answers = [{"Untagged": tag} for tag in record.repo_tags]
        event = Event(EventType.IMAGE, "delete", record.id, _facts(record))

        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            for tag in record.repo_tags:
                tx.add_event(_untag_event(record, tag))
            tx.add_event(event)

        self._store.commit_blocking(write, durable=True)
        del self._records[record.id]
        for tag in record.repo_tags:
            self._tags.pop(tag, None)
        answers.append({"Deleted": record.id})
        answers += [{"Deleted": chain} for chain in self.collect()]
        return answers

    def delete_unused(self, record: ImageRecord, in_use: InUse) -> list[dict[str, str]]:
        """Removes the image and its tags, for prune; nothing when a container uses it."""
        with self._lock:
            current = self._records.get(record.id)
            if current is None or in_use(current.id):
                return []
            return self._delete(current)

    def announce(self, record: ImageRecord, action: str) -> None:
        """Records an event that changes nothing, such as save."""
        event = Event(EventType.IMAGE, action, record.id, _facts(record))
        self._store.commit_blocking(lambda tx: tx.add_event(event), durable=False)

    def collect(self) -> list[Digest]:
        """Deletes layers that no image, container or lease needs; returns their ChainIDs."""
        with self._lock:
            needed = self._snapshot_layers() | set(self._leases)
            for record in self._records.values():
                needed.update(record.chain_ids)
            doomed = [chain for chain in self.layers.chains() if chain not in needed]
            for chain in doomed:
                self.layers.remove(chain)
        return doomed

    # -- the index -------------------------------------------------------------------------

    def _write(self, record: ImageRecord, event: Event | None, *, durable: bool = True) -> None:
        """Not `durable` only when a write follows at once: one flush is for both."""

        def write(tx: Transaction) -> None:
            tx.put(KIND, record.id, encode(record))
            if event is not None:
                tx.add_event(event)

        self._store.commit_blocking(write, durable=durable)
        before = self._records.get(record.id)
        for tag in before.repo_tags if before else []:
            self._tags.pop(tag, None)
        self._index(record)

    def _index(self, record: ImageRecord) -> None:
        self._records[record.id] = record
        for tag in record.repo_tags:
            self._tags[tag] = record.id


def decode_config(config_json: bytes) -> ImageConfig:
    """Raises InvalidArgument when it is damaged, LimitExceeded for too many layers."""
    try:
        config = parse_config(config_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the image's config is damaged: {error}") from error
    if len(config.rootfs.diff_ids) > MAX_LAYERS:
        raise LimitExceeded(f"max depth exceeded: an image of more than {MAX_LAYERS} layers")
    return config


def _without_tag(record: ImageRecord, tag: str) -> ImageRecord:
    return msgspec.structs.replace(
        record, repo_tags=[kept for kept in record.repo_tags if kept != tag]
    )


def _untag_event(record: ImageRecord, tag: str) -> Event:
    return Event(EventType.IMAGE, "untag", record.id, {"name": tag})


def _facts(record: ImageRecord) -> dict[str, str]:
    name = record.repo_tags[0] if record.repo_tags else record.id
    return {**record.process_config.labels, "name": name}
