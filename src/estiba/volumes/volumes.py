"""All volumes of the engine: their drivers, and who uses them; `catalog` has their records.

A directory of the local driver without a record is taken in as a volume: data is never deleted
because a record of it is missing. All methods block and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from estiba.kernel import failpoint
from estiba.kernel.confined import open_in_root, opened_plain, opened_root
from estiba.kernel.trees import opened_directory
from estiba.model.errors import (
    Conflict,
    EstibaError,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from estiba.model.ids import new_id
from estiba.store import Store
from estiba.volumes.catalog import Catalog
from estiba.volumes.driver import LOCAL, Drivers, NoDrivers, VolumeDriver
from estiba.volumes.local import LocalDriver
from estiba.volumes.locks import NamedLocks
from estiba.volumes.populate import populate, populate_mounted
from estiba.volumes.record import (
    ANONYMOUS_LABEL,
    VolumeRecord,
    check_name,
    check_same,
)
from estiba.volumes.strangers import find_strangers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from estiba.volumes.backing import BackingKind

_log = logging.getLogger(__name__)
HOLDER = "held-"
"""Begins the names of users that are work of the engine and no containers."""


class Volumes:
    """Made once a daemon; `start` comes first."""

    def __init__(
        self,
        root: Path,
        store: Store,
        *,
        kinds: Sequence[BackingKind] = (),
        drivers: Drivers | None = None,
        make_name: Callable[[], str] = new_id,
    ) -> None:
        self.local = LocalDriver(root, kinds)
        self._drivers = drivers or NoDrivers()
        self.catalog = Catalog(store)
        self._make_name = make_name
        self._users: dict[str, set[str]] = {}
        self._is_restored = False
        self._locks = NamedLocks()

    def start(self) -> None:
        """Reads the records, finishes removals, and takes in directories without a record."""
        self.catalog.load()
        for moved in self.volumes():
            if moved.moved_from:
                self.finish_rename(moved)
        options = {r.name: r.options for r in self.volumes() if r.driver == LOCAL}
        for name in self.local.start(options):
            record = self.catalog.find(name)
            if record is not None and record.driver == LOCAL:
                self._forget(record.name)
            self.local.purge(name)
        for name in self.local.strays():
            self._take_in(name)

    def _take_in(self, name: str) -> None:
        """A volume with options that cannot be had now keeps them: it is made when it is used."""
        options: dict[str, str] = {}
        with contextlib.suppress(EstibaError, OSError):
            options = self.local.noted_options(name)
            self.local.create(name, options)
        self.local.know(name, options)
        created_ns = self.local.directory(name).stat().st_ctime_ns
        self.catalog.put(VolumeRecord(name=name, created_ns=created_ns, options=options))

    def driver(self, name: str) -> VolumeDriver:
        """Raises NotFound."""
        return self.local if name in ("", LOCAL) else self._drivers.find(name)

    # -- making and finding ----------------------------------------------------------------

    def create(
        self,
        name: str = "",
        *,
        driver: str = LOCAL,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> VolumeRecord:
        """The volume of that name, made if there is none; without a name an anonymous one.

        Raises InvalidArgument, NotFound for another driver, Conflict for other options.
        """
        driver = self._drivers.full_name(driver or LOCAL)
        marked = dict(labels or {})
        if anonymous or not name:
            marked[ANONYMOUS_LABEL] = ""
        name = name or self._make_name()
        check_name(name)
        try:
            made_by = self.driver(driver)
        except NotFound as error:
            raise NotFound(f"create {name}: {error.message}") from error
        if driver == LOCAL:
            self.check_options(name, options or {})
        with self.locked(name):
            existing = self.catalog.find(name)
            if existing is not None:
                check_same(existing, driver, options or {})
                return existing
            is_new = made_by is self.local and not self.local.directory(name).exists()
            made_by.create(name, options or {})
            failpoint.hit("volumes.made")
            record = VolumeRecord(
                name=name,
                created_ns=time.time_ns(),
                driver=driver,
                labels=marked,
                options=dict(options or {}),
            )
            try:
                self.catalog.put(record, "create")
            except Exception:
                if is_new:
                    self.local.remove(name)
                    self.local.purge(name)
                raise
        return record

    def check_options(self, name: str, options: Mapping[str, str]) -> None:
        """Raises InvalidArgument for what a local volume cannot have."""
        try:
            self.local.check(options)
        except InvalidArgument as error:
            raise InvalidArgument(f"create {name}: {error.message}") from error

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        return self.catalog.get(name)

    def find(self, name: str) -> VolumeRecord:
        """As `get`; one that only a plugin knows is taken in. Blocks."""
        with contextlib.suppress(NotFound):
            return self.get(name)
        for stranger in self.strangers():
            if stranger.name == name:
                with self.locked(name):
                    if not self.has(name):
                        self.catalog.put(stranger)
        return self.get(name)

    def strangers(self) -> list[VolumeRecord]:
        """Volumes that only plugins know. Blocks."""
        known = {record.name for record in self.volumes()}
        return find_strangers(self._drivers, known)

    def is_confined(self, driver: str) -> bool:
        """Whether a driver of that name is a plugin that must not reach out of its own root."""
        return self._drivers.is_confined(driver)

    def has(self, name: str) -> bool:
        return self.catalog.find(name) is not None

    def volumes(self) -> list[VolumeRecord]:
        """All, by name."""
        return self.catalog.all()

    def driver_of(self, name: str) -> str:
        """The driver of the volume of that name, or the one that would make it."""
        record = self.catalog.find(name)
        return record.driver if record else LOCAL

    def path(self, name: str) -> Path:
        """The directory that containers mount. Raises NotFound."""
        found = self.driver(self.get(name).driver).path(name)
        if not found:
            raise NotFound(f"get {name}: its driver does not say where it is")
        return Path(found)

    def opened(self, name: str) -> AbstractContextManager[int]:
        """The same, open for reading; of what a confined plugin told no part is a symlink.

        Raises NotFound, OSError.
        """
        is_confined = self.is_confined(self.get(name).driver)
        return opened_plain(self.path(name)) if is_confined else opened_directory(self.path(name))

    # -- use -------------------------------------------------------------------------------

    def mount(self, name: str, *, user: str) -> Path:
        """The directory that containers mount, with the data there until `release`.

        Twice for one user is once. Raises NotFound, OSError.
        """
        with self.locked(name):
            driver = self.driver(self.get(name).driver)
            users = self._users.setdefault(name, set())
            if user in users and driver is not self.local:
                return self.path(name)
            path = driver.mount(name, user)
            users.add(user)
        return path

    def release(self, name: str, *, user: str) -> None:
        """Undoes `mount`, of the local driver when nobody else uses the volume; harmless twice,
        or without it. A plugin that fails is told of in the log: a container's end is not held
        up by it."""
        with self.locked(name):
            record = self.catalog.find(name)
            if record is None:
                return
            users = self._users.get(name, set())
            # Of what was mounted before the engine started over, `restore` tells only the live.
            is_mounted = user in users or not self._is_restored
            users.discard(user)
            if record.driver == LOCAL:
                if not users:
                    self.local.unmount(name, user)
            elif is_mounted:
                self._unmount_remote(record, user)

    def _unmount_remote(self, record: VolumeRecord, user: str) -> None:
        try:
            self.driver(record.driver).unmount(record.name, user)
        except EstibaError as error:
            _log.warning("volume %s may still be mounted by its plugin: %s", record.name, error)

    def restore(self, users: Mapping[str, Iterable[str]]) -> None:
        """Who uses which volume, as an engine finds it that starts over live containers."""
        self._users = {name: set(ids) for name, ids in users.items()}
        self._is_restored = True
        for record in self.volumes():
            if record.driver == LOCAL:
                self.release(record.name, user="")

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """A lock for one volume: what is mounted may lie on a server that does not answer."""
        with self._locks.held(name):
            yield

    # -- for work on whole volumes (volumes.whole) -----------------------------------------

    def finish_rename(self, record: VolumeRecord) -> VolumeRecord:
        """Gives the directory the name that the record has already; harmless twice."""
        self.local.move(record.moved_from, record.name)
        failpoint.hit("volumes.moved")
        done = msgspec.structs.replace(record, moved_from="")
        self.catalog.put(done)
        return done

    def check_idle(self, name: str) -> None:
        """Raises Conflict while anybody uses the volume."""
        if self._users.get(name):
            raise Conflict(f"volume {name} is in use now: stop the containers that have it")

    def fill(self, name: str, rootfs: Path, inside: str) -> bool:
        """Copies the directory `inside` a container's root into the volume if that is empty.

        The volume is mounted. Returns whether it did: a path that is no directory gives nothing.
        Raises Internal, or OSError for a disk that is full.
        """
        own = self.local.inside(name) if self.get(name).driver == LOCAL else None
        with opened_root(rootfs) as root, self.locked(name):
            try:
                source = open_in_root(root, inside, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return False
                raise
            try:
                if own:
                    return populate(own, source)
                with self.opened(name) as data:
                    return populate_mounted(data, source)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise Internal(
                    f"cannot copy {inside} of the image into volume {name}: "
                    f"{(error.strerror or str(error)).lower()}: use nocopy to leave it as it is"
                ) from error
            finally:
                os.close(source)

    # -- removing --------------------------------------------------------------------------

    def remove(self, name: str, *, users: Collection[str] = (), force: bool = False) -> None:
        """Removes a volume and its data; `users` are the ids of the containers that have it.

        Raises Conflict when there are any, or when somebody has it mounted, NotFound unless
        `force`.
        """
        with self.locked(name):
            mounted = self._users.get(name, set())
            containers = [*users, *sorted(mounted - set(users))]
            record = self.catalog.find(name)
            if record is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if any(user.startswith(HOLDER) for user in mounted):
                raise Conflict(f"remove {name}: the volume is being copied now: try again later")
            if containers:
                raise Conflict(
                    f"remove {name}: volume is in use - [{', '.join(containers)}]: "
                    "remove these containers first"
                )
            self._remove_data(record, force)
            failpoint.hit("volumes.set-aside")
            self._forget(record.name)
        if record.driver == LOCAL:
            self.local.purge(name)

    def _remove_data(self, record: VolumeRecord, force: bool) -> None:
        try:
            self.driver(record.driver).remove(record.name)
        except (NotFound, Unavailable):
            # Gone by hand, or with `force` a driver that is gone as a whole or does not answer.
            if record.driver != LOCAL and not force:
                raise

    def prune(
        self,
        *,
        is_used: Callable[[str], bool],
        is_wanted: Callable[[VolumeRecord], bool] = lambda record: record.is_anonymous,
    ) -> dict[str, int]:
        """Removes the volumes that nobody uses and that `is_wanted` names; bytes by name.

        As with Docker those stay whose data is not on this host's disk, and one that cannot be
        removed keeps no other.
        """
        freed: dict[str, int] = {}
        for record in self.on_disk():
            if is_used(record.name) or self._users.get(record.name) or not is_wanted(record):
                continue
            try:
                size = self.usage(record.name)
                self.remove(record.name)
            except (Conflict, NotFound):
                continue
            except (EstibaError, OSError) as error:
                _log.warning("volume %s is not pruned: %s", record.name, error)
                continue
            freed[record.name] = size
        self.catalog.announce_prune(sum(freed.values()))
        return freed

    def on_disk(self) -> list[VolumeRecord]:
        """Volumes whose data takes this host's disk: of the local driver, without a mount."""
        return [
            record
            for record in self.volumes()
            if record.driver == LOCAL and self.local.is_on_disk(record.name)
        ]

    def usage(self, name: str) -> int:
        """Bytes in the volume's files, each file counted once; -1 for other drivers."""
        return self.local.usage(name) if self.get(name).driver == LOCAL else -1

    def _forget(self, name: str) -> None:
        self.catalog.delete(name)
        self._users.pop(name, None)
