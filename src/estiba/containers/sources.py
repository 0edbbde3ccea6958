"""Where the data of a container's mounts lies on the host: binds, volumes, shared memory."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.containers.hostfiles import NAMES, HostFiles
from estiba.containers.mounts import overlap
from estiba.containers.pins import open_source, pin
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord, MountPlan
from estiba.kernel.confined import exists_in_root, open_in_root, opened_root
from estiba.kernel.mounts import MountFlag, is_mounted, mount, peers_of, unmount
from estiba.model.container import OF_CONTAINER
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, InvalidArgument
from estiba.model.ids import new_id
from estiba.runtime.mounts import SpecMount, bind, tmpfs, tmpfs_mount
from estiba.runtime.users import resolve_user
from estiba.volumes.volumes import Volumes

Find = Callable[[str], ContainerRecord]


@dataclass(slots=True)
class Sources:
    """`containers.steps.MountSources`, and the mounts of the runtime-spec. All blocks."""

    paths: Paths
    volumes: Volumes
    host_files: HostFiles
    find: Find
    mount_layers: Callable[[list[Digest], Path], None]
    """Mounts an image's layers, bottom first and read-only, at a directory."""

    viewed_layers: Callable[[list[Digest]], AbstractContextManager[Path]]
    """The same at a place that is chosen, for as long as the context lasts."""

    def needs_rootfs(self, record: ContainerRecord) -> bool:
        return any(plan.type == "volume" and not plan.no_copy for plan in record.mounts)

    def make(self, record: ContainerRecord, rootfs: Path) -> None:
        """Makes volumes and missing bind sources, and fills empty volumes from the image.

        A volume that gets nothing from the image is not mounted: its server may be away until
        the start. Raises InvalidArgument for a source that does not exist.
        """
        for plan in record.mounts:
            if plan.type == "volume":
                _check_place(plan, rootfs)
                self._make_volume(plan)
                if _fills(plan, rootfs):
                    self._use_volume(plan, rootfs, record.id)
            elif plan.type == "bind":
                _prepare_bind(plan)

    def prepare(self, record: ContainerRecord, rootfs: Path) -> None:
        """As `make`, and mounts all volumes.

        Raises InvalidArgument for a source that does not exist, and what mounting raises.
        """
        for plan in record.mounts:
            if plan.type == "volume":
                self._make_volume(plan)
                self._use_volume(plan, rootfs, record.id)
            elif plan.type == "bind":
                _prepare_bind(plan)

    def _make_volume(self, plan: MountPlan) -> None:
        self.volumes.create(
            plan.name,
            driver=plan.driver,
            options=plan.driver_options,
            labels=plan.labels,
            anonymous=plan.anonymous,
        )

    def _use_volume(self, plan: MountPlan, rootfs: Path, user: str) -> None:
        self.volumes.mount(plan.name, user=user)
        if not plan.no_copy and rootfs.is_dir():
            self.volumes.fill(plan.name, rootfs, plan.destination)

    def release(self, record: ContainerRecord) -> None:
        """Volumes outlive the run; what is mounted in them and shared memory does not."""
        unmount(self._shm(record.id))
        for index, plan in enumerate(record.mounts):
            # A plugin may have been switched off meanwhile: nobody knows what it was.
            if plan.type == "volume" or self._is_pinned(plan):
                unmount(self._pinned(record.id, index))
            if plan.type == "image":
                unmount(self.paths.run(record.id) / f"image-{index}")
            elif plan.type == "volume":
                self.volumes.release(plan.name, user=record.id)

    # -- the mounts of the runtime-spec ----------------------------------------------------

    def spec_mounts(self, record: ContainerRecord) -> list[SpecMount]:
        """The engine's own files first: a user's mount at the same place replaces them."""
        rw = not record.host_config.readonly_rootfs
        owner = self._owner(record)
        mounts = [bind(self.host_files.path(owner, name), f"/etc/{name}", rw=rw) for name in NAMES]
        mounts += [tmpfs(path, options) for path, options in record.host_config.tmpfs.items()]
        mounts += [
            self._spec_mount(record, index, plan) for index, plan in enumerate(record.mounts)
        ]
        return mounts

    def _owner(self, record: ContainerRecord) -> ContainerRecord:
        """Whose network it shares, perhaps by way of others."""
        while (mode := record.host_config.network_mode).startswith(OF_CONTAINER):
            record = self.find(mode.removeprefix(OF_CONTAINER))
        return record

    def _spec_mount(self, record: ContainerRecord, index: int, plan: MountPlan) -> SpecMount:
        if plan.type == "tmpfs":
            return tmpfs_mount(plan.destination, plan.tmpfs_options, rw=plan.rw)
        source = self._source(record, index, plan)
        # Nothing is mounted below a file, and crun 1.8 fails on rro for one.
        recursive = source.is_dir() and not plan.read_only_non_recursive and not plan.non_recursive
        return bind(
            source,
            plan.destination,
            rw=plan.rw,
            propagation=plan.propagation or "rprivate",
            recursive=not plan.non_recursive,
            read_only_recursive=not plan.rw and recursive,
        )

    def _source(self, record: ContainerRecord, index: int, plan: MountPlan) -> Path:
        if plan.type == "image":
            source = self.paths.run(record.id) / f"image-{index}"
            source.mkdir(exist_ok=True)
            self.mount_layers(plan.layers, source)
        else:
            source = self.path(plan)
        if not self._is_pinned(plan):
            return source

        def user() -> tuple[int, int]:
            found = resolve_user(self.paths.rootfs(record.id), record.config.user)
            return found.uid, found.gid

        target, follow = self._pinned(record.id, index), not self._is_confined(plan)
        return pin(target, source, plan, user, follow=follow)

    def _is_pinned(self, plan: MountPlan) -> bool:
        return bool(plan.subpath) or plan.idmap is not None or self._is_confined(plan)

    def _is_confined(self, plan: MountPlan) -> bool:
        return plan.type == "volume" and self.volumes.is_confined(plan.driver)

    def warnings(self, record: ContainerRecord) -> Iterator[str]:
        """Says which binds will not see later mounts of the host, though they ask for them.

        Those over the engine's own data are slaves by themselves, and not told of.
        """
        for plan in record.mounts:
            if plan.propagation == "rslave" and overlap(plan.source, str(self.paths.data_root)):
                continue
            kind = plan.propagation.removeprefix("r")
            enough = {"shared": {"shared"}, "slave": {"shared", "master"}}.get(kind)
            if enough is not None and not enough & peers_of(Path(plan.source)):
                word = "a shared" if kind == "shared" else "a shared or slave"
                yield (
                    f"path {plan.source} is mounted but it is not {word} mount: mounts made "
                    f"later do not propagate to {plan.destination}"
                )

    def path(self, plan: MountPlan) -> Path:
        """The directory or file of the host of a bind or a volume, without the subpath.

        Raises NotFound.
        """
        return self.volumes.path(plan.name) if plan.type == "volume" else Path(plan.source)

    @contextmanager
    def opened(self, plan: MountPlan) -> Iterator[int]:
        """The root of a bind, a volume or an image of a container that does not run.

        Raises NotADirectoryError for a file.
        """
        with self._at_hand(plan) as source:
            fd = open_source(source, plan, follow=not self._is_confined(plan))
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, f"{source} is no directory")
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def _at_hand(self, plan: MountPlan) -> Iterator[Path]:
        """Where the data of a mount lies, mounted for as long as the context lasts."""
        user = new_id()
        if plan.type == "volume":
            path = self.volumes.mount(plan.name, user=user)
            try:
                yield path
            finally:
                self.volumes.release(plan.name, user=user)
        elif plan.type == "image":
            with self.viewed_layers(plan.layers) as path:
                yield path
        else:
            yield Path(plan.source)

    def _pinned(self, container_id: str, index: int) -> Path:
        return self.paths.run(container_id) / f"pinned-{index}"

    # -- shared memory ---------------------------------------------------------------------

    def _shm(self, container_id: str) -> Path:
        return self.paths.run(container_id) / "shm"

    def shm(self, record: ContainerRecord) -> Path | None:
        """The directory for /dev/shm that containers share; None for one of its own.

        Raises Conflict when the other container does not share its own.
        """
        mode = record.host_config.ipc_mode
        if mode == "shareable":
            path = self._shm(record.id)
            path.mkdir(parents=True, exist_ok=True)
            if not is_mounted(path):
                flags = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
                size = f"mode=1777,size={record.host_config.shm_size}"
                mount("shm", path, "tmpfs", flags, size)
            return path
        if mode.startswith(OF_CONTAINER):
            path = self._shm(mode.removeprefix(OF_CONTAINER))
            if not is_mounted(path):
                name = self.find(mode.removeprefix(OF_CONTAINER)).name
                raise Conflict(
                    f"cannot join IPC of container {name}: non-shareable IPC, or it does not "
                    "run: start it with --ipc shareable"
                )
            return path
        return None


def _fills(plan: MountPlan, rootfs: Path) -> bool:
    if plan.no_copy or not rootfs.is_dir():
        return False
    with opened_root(rootfs) as root:
        return exists_in_root(root, plan.destination)


def _check_place(plan: MountPlan, rootfs: Path) -> None:
    """Raises InvalidArgument where the image has a file: the runtime would only say that one of
    the two is no directory.
    """
    if plan.subpath or not rootfs.is_dir():
        return
    with opened_root(rootfs) as root:
        try:
            found = open_in_root(root, plan.destination, os.O_PATH)
        except OSError:
            return
        is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
        os.close(found)
    if not is_directory:
        raise InvalidArgument(
            f"cannot mount volume over existing file, file exists {plan.destination}: mount a "
            "file there, or give the volume another place"
        )


def _prepare_bind(plan: MountPlan) -> None:
    path = Path(plan.source)
    try:
        if path.exists():
            return
    except OSError as error:
        raise InvalidArgument(
            f"invalid bind source '{plan.source[:256]}': {error.strerror}"
        ) from error
    if not plan.create_source:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {plan.source}'
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(
            f"error while creating mount source path '{plan.source}': {error.strerror}"
        ) from error


def longest_mount(record: ContainerRecord, path: str) -> tuple[MountPlan, str] | None:
    """The mount that `path` lies in, and the path within it; None for the container's root."""
    normal = posixpath.normpath("/" + path.lstrip("/"))
    found = [
        plan
        for plan in record.mounts
        if normal == plan.destination or normal.startswith(f"{plan.destination}/")
    ]
    if not found:
        return None
    plan = max(found, key=lambda each: len(each.destination))
    rest = normal[len(plan.destination) :].lstrip("/")
    return plan, f"/{rest}" + ("/." if path.endswith("/.") else "")
