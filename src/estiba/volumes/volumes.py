"""Volumes of the local driver: directories that outlive containers.

    <root>/<name>/_data       what containers mount
    <root>/.removed.*         a removal under way; always finished

A directory without a record is taken in as a volume: data is never deleted because a record
of it is missing. All methods block and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.mounts import mount, unmount
from estiba.kernel.trees import remove_tree, tree_size
from estiba.model.errors import Conflict, NotFound
from estiba.model.ids import check_name, new_id
from estiba.store import Store, Transaction
from estiba.volumes.options import parse_options
from estiba.volumes.populate import populate
from estiba.volumes.record import (
    ANONYMOUS_LABEL,
    KIND,
    VolumeRecord,
    decode,
    encode,
    volume_event,
)

_REMOVED = ".removed."


class Volumes:
    """Made once a daemon; `start` comes first."""

    def __init__(self, root: Path, store: Store, *, make_name: Callable[[], str] = new_id) -> None:
        self._root = root
        self._store = store
        self._make_name = make_name
        self._lock = threading.Lock()
        self._records: dict[str, VolumeRecord] = {}
        self._users: dict[str, set[str]] = {}
        self._by_name: dict[str, threading.Lock] = {}

    def start(self) -> None:
        """Reads the records, finishes removals, and takes in directories without a record."""
        self._root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self._root.chmod(0o701)
        stored = (decode(record.body) for record in self._store.load(KIND))
        self._records = {record.name: record for record in stored}
        for entry in list(self._root.iterdir()):
            if entry.name.startswith(_REMOVED):
                self._finish_removal(entry)
            elif entry.name not in self._records and (entry / "_data").is_dir():
                created_ns = entry.stat().st_ctime_ns
                self._add(VolumeRecord(name=entry.name, created_ns=created_ns))
        for name in self._records:
            self._make_directories(name)

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> VolumeRecord:
        """The volume of that name, made if there is none; without a name an anonymous one.

        Raises InvalidArgument, NotFound for another driver, Conflict for other options.
        """
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        marked = dict(labels or {})
        if anonymous or not name:
            marked[ANONYMOUS_LABEL] = ""
        name = name or self._make_name()
        check_name(name, what="volume")
        parse_options(options or {})
        with self._lock:
            existing = self._records.get(name)
            if existing is not None:
                if options and dict(options) != existing.options:
                    raise Conflict(
                        f"create {name}: conflict: a volume of that name has other options: "
                        "remove it or choose another name"
                    )
                return existing
            self._make_directories(name)
            failpoint.hit("volumes.directory-made")
            record = VolumeRecord(
                name=name, created_ns=time.time_ns(), labels=marked, options=dict(options or {})
            )
            self._add(record, "create")
        return record

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def volumes(self) -> list[VolumeRecord]:
        """All, by name."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.name)

    def path(self, name: str) -> Path:
        """The directory that containers mount. Raises NotFound."""
        return self._root / self.get(name).name / "_data"

    def mount(self, name: str, *, user: str) -> Path:
        """`path`, once what the volume's options ask for is mounted there, until `release`.

        Raises OSError.
        """
        path = self.path(name)
        wanted = parse_options(self.get(name).options)
        with self._one(name):
            if wanted is not None and not os.path.ismount(path):
                mount(wanted.device, path, wanted.kind, wanted.flags, wanted.data)
            self._users.setdefault(name, set()).add(user)
        return path

    def release(self, name: str, *, user: str) -> None:
        """Undoes `mount` when nobody else uses the volume; harmless twice, or without it."""
        with self._one(name):
            users = self._users.get(name, set())
            users.discard(user)
            record = self._records.get(name)
            if not users and record is not None and record.options:
                unmount(self.path(name))

    def restore(self, users: Mapping[str, Iterable[str]]) -> None:
        """Who uses which volume, as an engine finds it that starts over live containers."""
        self._users = {name: set(ids) for name, ids in users.items()}
        for name in list(self._records):
            self.release(name, user="")

    def _one(self, name: str) -> threading.Lock:
        """A lock for one volume: what is mounted may lie on a server that does not answer."""
        with self._lock:
            return self._by_name.setdefault(name, threading.Lock())

    def fill(self, name: str, rootfs: Path, inside: str) -> bool:
        """Copies the directory `inside` a container's root into the volume if that is empty.

        Returns whether it did: a path that is no directory gives nothing.
        """
        directory = self.path(name).parent
        with opened_root(rootfs) as root, self._one(name):
            try:
                source = open_in_root(root, inside, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return False
                raise
            try:
                return populate(directory, source)
            finally:
                os.close(source)

    def remove(self, name: str, *, users: Iterable[str] = (), force: bool = False) -> None:
        """Removes a volume and its data; `users` are the ids of the containers that have it.

        Raises Conflict when there are any, NotFound unless `force`.
        """
        containers = list(users)
        with self._lock:
            record = self._records.get(name)
            if record is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if containers:
                raise Conflict(
                    f"remove {name}: volume is in use - [{', '.join(containers)}]: "
                    "remove these containers first"
                )
            unmount(self._root / name / "_data")
            aside = self._root / f"{_REMOVED}{secrets.token_hex(4)}.{name}"
            with contextlib.suppress(FileNotFoundError):
                (self._root / name).rename(aside)
            failpoint.hit("volumes.set-aside")
            self._forget(record)
        remove_tree(aside)

    def prune(
        self,
        *,
        is_used: Callable[[str], bool],
        is_wanted: Callable[[VolumeRecord], bool] = lambda record: record.is_anonymous,
    ) -> dict[str, int]:
        """Removes the volumes that nobody uses and that `is_wanted` names; bytes by name."""
        freed: dict[str, int] = {}
        for record in self.volumes():
            if is_used(record.name) or not is_wanted(record):
                continue
            size = self.usage(record.name)
            try:
                self.remove(record.name)
            except NotFound:
                continue
            freed[record.name] = size
        return freed

    def usage(self, name: str) -> int:
        """Bytes in the volume's files, each file counted once."""
        return tree_size(self.path(name))

    # -- directories and records -----------------------------------------------------------

    def _make_directories(self, name: str) -> None:
        directory = self._root / name
        directory.mkdir(mode=0o701, exist_ok=True)
        data = directory / "_data"
        if not data.exists():
            data.mkdir(mode=0o755)
            data.chmod(0o755)

    def _finish_removal(self, aside: Path) -> None:
        name = aside.name.removeprefix(_REMOVED).partition(".")[2]
        record = self._records.get(name)
        if record is not None and not (self._root / name).exists():
            self._forget(record)
        remove_tree(aside)

    def _add(self, record: VolumeRecord, action: str = "") -> None:
        def write(tx: Transaction) -> None:
            tx.put(KIND, record.name, encode(record), record.name)
            if action:
                tx.add_event(volume_event(record, action))

        self._store.commit_blocking(write, durable=True)
        self._records[record.name] = record

    def _forget(self, record: VolumeRecord) -> None:
        def write(tx: Transaction) -> None:
            tx.delete(KIND, record.name)
            tx.add_event(volume_event(record, "destroy"))

        self._store.commit_blocking(write, durable=True)
        del self._records[record.name]
        self._users.pop(record.name, None)
