"""The plugins of an engine: records, names, and what came of them on the disk. All blocks.

    place on the disk → record → old place away

A place that no record names is litter, which `open` deletes; so no step needs undoing after a
crash.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.images.progress import Progress
from estiba.kernel import failpoint
from estiba.kernel.trees import remove_tree
from estiba.managed import content
from estiba.managed.config import Privilege, check_privileges, privileges_of
from estiba.managed.content import Content
from estiba.managed.record import (
    KIND,
    PluginRecord,
    decode,
    default_settings,
    encode,
    plugin_event,
)
from estiba.managed.sandbox import Paths
from estiba.managed.settings import carried, change
from estiba.model.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from estiba.model.ids import new_id
from estiba.model.reference import Reference, parse_reference
from estiba.storage.tar import Source
from estiba.store import Store, Transaction


class Catalog:
    """`open` first; any thread."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        settings: RegistrySettings,
        version: str,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._paths = paths
        self._store = store
        self._settings = settings
        self._version = version
        self._make_id = make_id
        self._lock = threading.Lock()
        self._records: dict[str, PluginRecord] = {}
        self._coming: set[str] = set()
        """Names that are on their way in."""

        self._claimed: set[str] = set()

    def open(self) -> None:
        """Reads the records, and deletes what none of them names."""
        self._records = {r.id: decode(r.body) for r in self._store.load(KIND)}
        places = {record.place for record in self._records.values()}
        for root, kept in ((self._paths.content, places), (self._paths.mounts, set(self._records))):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in root.iterdir():
                if entry.name not in kept:
                    remove_tree(entry)

    def all(self) -> list[PluginRecord]:
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.created_ns)

    def find(self, name_or_id: str) -> PluginRecord:
        """By name, id, or the beginning of an id. Raises NotFound, InvalidArgument."""
        records = self.all()
        wanted = name_or_id
        try:
            wanted = parse_reference(name_or_id).tagged.familiar
        except InvalidArgument:
            pass
        for record in records:
            if name_or_id == record.id or wanted == record.name:
                return record
        found = [record for record in records if name_or_id and record.id.startswith(name_or_id)]
        if len(found) > 1:
            raise InvalidArgument(f"plugin {name_or_id} is ambiguous: give more of its id")
        if not found:
            raise NotFound(f'plugin "{name_or_id[:128]}" not found')
        return found[0]

    @contextmanager
    def claimed(self, plugin_id: str) -> Iterator[None]:
        """One change of a plugin at a time, an upgrade with all its transfers among them.

        Raises Conflict when another is under way.
        """
        with self._lock:
            if plugin_id in self._claimed:
                raise Conflict(
                    f"plugin {plugin_id[:12]}: another change is under way: try again afterwards"
                )
            self._claimed.add(plugin_id)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(plugin_id)

    # -- making ----------------------------------------------------------------------------

    def create(self, name: str, source: Source) -> PluginRecord:
        """From a tar with config.json and rootfs/.

        Raises InvalidArgument, LimitExceeded, AlreadyExists, OSError.
        """
        name = local_name(name)
        self._reserve(name)
        directory, place = self._new_place()
        try:
            came = content.from_tar(source, directory, self._version)
            return self._add(name, name, place, came, "create")
        except BaseException:
            remove_tree(directory)
            raise
        finally:
            self._let_go(name)

    def privileges(self, reference: Reference, credentials: Credentials) -> list[Privilege]:
        """What the plugin in the registry needs. Raises as a pull."""
        with Repository(reference, self._settings, credentials) as repository:
            target = reference.digest or reference.tag or ""
            return privileges_of(content.fetch_config(repository, target)[1])

    def pull(
        self,
        reference: Reference,
        name: str,
        granted: list[Privilege],
        credentials: Credentials,
        cancel: CancelToken,
    ) -> Iterator[Progress]:
        """A new plugin from a registry. Raises as `create`, and as pulls of images do."""
        self._reserve(name)
        try:
            yield from self._pull(reference, granted, credentials, cancel, name=name)
        finally:
            self._let_go(name)

    def upgrade(
        self,
        record: PluginRecord,
        reference: Reference,
        granted: list[Privilege],
        credentials: Credentials,
        cancel: CancelToken,
    ) -> Iterator[Progress]:
        """Other content for a plugin that is disabled."""
        with self.claimed(record.id):
            _check_disabled(self.find(record.id), "plugin must be disabled before upgrading")
            yield from self._pull(reference, granted, credentials, cancel, before=record)

    def _pull(
        self,
        reference: Reference,
        granted: list[Privilege],
        credentials: Credentials,
        cancel: CancelToken,
        *,
        name: str = "",
        before: PluginRecord | None = None,
    ) -> Iterator[Progress]:
        target = reference.digest or reference.tag or ""
        directory, place = self._new_place()
        try:
            with Repository(reference, self._settings, credentials, cancel=cancel) as repository:
                manifest, config, body = content.fetch_config(repository, target)
                check_privileges(config, granted)
                yield from content.fetch_layers(repository, manifest, directory)
            came = Content(config, body, manifest.config.digest, list(manifest.layers))
            failpoint.hit("managed.fetched")
            if before is None:
                self._add(name, reference.familiar, place, came, "pull")
            else:
                self._exchange(before, reference.familiar, place, came)
        except BaseException:
            if not any(record.place == place for record in self.all()):
                remove_tree(directory)
            raise
        yield Progress(f"Status: Downloaded newer plugin for {reference.familiar}")

    def push(
        self, record: PluginRecord, credentials: Credentials, cancel: CancelToken
    ) -> Iterator[Progress]:
        """To where its name says."""
        reference = parse_reference(record.name).tagged
        yield Progress(f"The push refers to repository [{reference.repository}]")
        came = Content(record.config, record.config_body, record.config_digest, list(record.layers))
        with Repository(
            reference, self._settings, credentials, push=True, cancel=cancel
        ) as repository:
            directory = self._paths.content / record.place
            yield from content.push(repository, reference.tag or "", came, directory)

    # -- changing --------------------------------------------------------------------------

    def set(self, record: PluginRecord, arguments: list[str]) -> None:
        """Raises InvalidArgument, Conflict while it is enabled."""
        _check_disabled(record, "cannot set on an active plugin, disable plugin before setting")
        settings = change(record.config, record.settings, arguments)
        self._save(msgspec.structs.replace(record, settings=settings))

    def switch(self, record: PluginRecord, *, enabled: bool, timeout_s: float = 0) -> PluginRecord:
        changed = msgspec.structs.replace(record, enabled=enabled, timeout_s=timeout_s)
        self._save(changed, "enable" if enabled else "disable")
        return changed

    def remove(self, record: PluginRecord) -> None:
        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.id)
            tx.add_event(plugin_event(record, "remove"))

        self._store.commit_blocking(write, durable=True)
        with self._lock:
            self._records.pop(record.id, None)
        failpoint.hit("managed.forgotten")
        remove_tree(self._paths.content / record.place)
        remove_tree(self._paths.propagated(record.id))

    # -- inside ----------------------------------------------------------------------------

    def _reserve(self, name: str) -> None:
        with self._lock:
            if name in self._coming or any(r.name == name for r in self._records.values()):
                raise AlreadyExists(f'plugin "{name}" already exists')
            self._coming.add(name)

    def _let_go(self, name: str) -> None:
        with self._lock:
            self._coming.discard(name)

    def _new_place(self) -> tuple[Path, str]:
        place = secrets.token_hex(16)
        return self._paths.content / place, place

    def _add(
        self, name: str, reference: str, place: str, came: Content, action: str
    ) -> PluginRecord:
        record = PluginRecord(
            id=self._make_id(),
            name=name,
            reference=reference,
            place=place,
            created_ns=time.time_ns(),
            config=came.config,
            config_body=came.config_body,
            config_digest=came.config_digest,
            layers=came.layers,
            settings=default_settings(came.config),
        )
        self._save(record, action)
        return record

    def _exchange(self, before: PluginRecord, reference: str, place: str, came: Content) -> None:
        now = self.find(before.id)
        _check_disabled(now, "plugin must be disabled before upgrading")
        changed = msgspec.structs.replace(
            now,
            reference=reference,
            place=place,
            config=came.config,
            config_body=came.config_body,
            config_digest=came.config_digest,
            layers=came.layers,
            settings=carried(came.config, now.settings),
        )
        self._save(changed, "pull")
        remove_tree(self._paths.content / now.place)

    def _save(self, record: PluginRecord, action: str = "") -> None:
        def write(tx: Transaction) -> None:
            tx.put(KIND, record.id, encode(record), record.name)
            if action:
                tx.add_event(plugin_event(record, action))

        self._store.commit_blocking(write, durable=True)
        with self._lock:
            self._records[record.id] = record


def local_name(text: str) -> str:
    """The name of a plugin on this host: with a tag, and as people write it.

    Raises InvalidArgument.
    """
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidArgument("canonical references are not permitted: give a name and a tag")
    return reference.tagged.familiar


def _check_disabled(record: PluginRecord, message: str) -> None:
    if record.enabled:
        raise Conflict(f"{message}: plugin {record.name} is enabled")
