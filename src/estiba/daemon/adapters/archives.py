"""The files of containers for the routes: archives in and out, export and commit."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.api.ports import CommitOptions
from estiba.containers.defaults import merge_image
from estiba.containers.engine import Engine
from estiba.containers.hostfiles import NAMES
from estiba.containers.mountpoints import ENGINE_MADE
from estiba.containers.record import ContainerRecord, Process
from estiba.containers.sources import Sources, longest_mount
from estiba.daemon.adapters.bridging import iterate
from estiba.daemon.adapters.pausing import paused
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.images.images import Images
from estiba.images.importing import Description, commit_layer
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.kernel.confined import opened_root
from estiba.kernel.pidfd import ProcessIdentity, is_alive
from estiba.model.container import Config
from estiba.model.errors import Conflict, Forbidden, NotFound
from estiba.model.image import ImageProcessConfig, Platform
from estiba.model.reference import Reference, parse_reference
from estiba.runtime.users import resolve_user
from estiba.storage.archive import PutOptions, get_path, put_path, stat_path
from estiba.storage.pack import pack_tree
from estiba.storage.snapshots import SnapshotStore
from estiba.storage.unpack import Limits

Json = dict[str, Any]
_ENGINE_MADE = frozenset(path.lstrip("/") for path in ENGINE_MADE)


@dataclass(slots=True)
class ContainerArchives:
    """`api.ports.ContainerArchives`."""

    engine: Engine
    images: Images
    snapshots: SnapshotStore
    sources: Sources
    limits: Limits
    architecture: str

    async def stat(self, ref: str, path: str) -> Json:
        actor = self.engine.find(ref)

        def work() -> Json:
            with self._tree(actor.record, path) as (root, inside):
                return stat_path(root, inside, path)

        return await run_blocking(_named(work, ref))

    async def get(self, ref: str, path: str) -> tuple[Json, AsyncIterator[bytes]]:
        actor = self.engine.find(ref)
        stat = await self.stat(ref, path)

        def pieces() -> Iterator[bytes]:
            with self._tree(actor.record, path) as (root, inside):
                yield from get_path(root, inside, path)

        await actor.announce("archive-path", {"path": path})
        return stat, iterate(pieces())

    async def put(
        self, ref: str, path: str, body: Body, *, no_overwrite: bool, copy_owner: bool
    ) -> None:
        actor = self.engine.find(ref)
        found = longest_mount(actor.record, path)
        if found is None and actor.record.host_config.readonly_rootfs:
            raise Forbidden("container rootfs is marked read-only")
        if found is not None and not found[0].rw:
            raise Forbidden("mounted volume is marked read-only")
        source = Upload(body)

        def work(record: ContainerRecord) -> None:
            with self._tree(record, path, writable=True) as (root, inside):
                owner = _owner(record, root) if copy_owner else None
                options = PutOptions(no_overwrite_dir=no_overwrite, owner=owner, limits=self.limits)
                put_path(root, inside, source, options)

        try:
            async with actor.held_at_rest() as record:
                await run_apart(_named(lambda: work(record), ref))
        finally:
            source.close()
        await actor.announce("extract-to-dir", {"path": path})

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        actor = self.engine.find(ref)

        def pieces() -> Iterator[bytes]:
            with self._root(actor.record) as root:
                fd = os.open(f"/proc/self/fd/{root}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    yield from pack_tree(fd)
                finally:
                    os.close(fd)

        await actor.announce("export")
        async with aclosing(iterate(pieces())) as drawn:
            async for piece in drawn:
                yield piece

    @contextmanager
    def _tree(
        self, record: ContainerRecord, path: str, *, writable: bool = False
    ) -> Iterator[tuple[int, str]]:
        """A descriptor of the root that `path` lies in, and the path in there.

        A container that runs is seen through its own mount namespace, so its volumes and
        tmpfs mounts are where it sees them.
        """
        if record.state.is_up and record.container is not None:
            with _root_of(record.container) as root:
                yield root, path
            return
        found = longest_mount(record, path)
        file = self._mounted_file(record, path) if not writable else None
        if file is not None:
            with opened_root(file.parent) as root:
                yield root, f"/{file.name}"
            return
        if found is not None and found[0].type in ("bind", "volume", "image"):
            with contextlib.ExitStack() as stack:
                try:
                    root = stack.enter_context(self.sources.opened(found[0]))
                except NotADirectoryError:
                    pass
                except FileNotFoundError as error:
                    raise NotFound(f"the source of the mount {found[0].destination} is gone") from (
                        error
                    )
                else:
                    yield root, found[1]
                    return
        with (
            self.snapshots.mounted_aside(record.id, writable=writable) as rootfs,
            opened_root(rootfs) as root,
        ):
            yield root, path

    def _mounted_file(self, record: ContainerRecord, path: str) -> Path | None:
        """The file of the host that the container sees at `path` while it runs."""
        found = longest_mount(record, path)
        if found is None:
            name = posixpath.normpath(path.lstrip("/")).removeprefix("etc/")
            own = self.sources.host_files.path(record, name) if name in NAMES else None
            is_named = f"etc/{name}" in _ENGINE_MADE
            return own if own is not None and is_named and own.is_file() else None
        plan, rest = found
        if plan.type != "bind" or rest != "/" or not Path(plan.source).is_file():
            return None
        return Path(plan.source).resolve()

    @contextmanager
    def _root(self, record: ContainerRecord) -> Iterator[int]:
        """The container's own root, without what is mounted in it."""
        with contextlib.ExitStack() as stack:
            root = None
            if record.state.is_up:
                with contextlib.suppress(FileNotFoundError):
                    root = stack.enter_context(
                        opened_root(self.engine.world.paths.rootfs(record.id))
                    )
            # One that has just ended leaves an empty directory there, or none.
            if root is None or not _is_mount(root):
                aside = stack.enter_context(self.snapshots.mounted_aside(record.id))
                root = stack.enter_context(opened_root(aside))
            yield root

    # -- commit ----------------------------------------------------------------------------

    async def commit(self, options: CommitOptions) -> str:
        actor = self.engine.find(options.container)
        tags = _target(options.repository, options.tag)
        async with paused([actor] if options.pause else ()):
            record = await run_blocking(self._commit, actor.record, options, tags)
        await actor.announce("commit", {"comment": options.comment, "imageID": record})
        return record

    def _commit(
        self, record: ContainerRecord, options: CommitOptions, tags: list[Reference]
    ) -> str:
        try:
            base = self.images.resolve(record.image_id)
        except NotFound:
            base = None
        image = commit_layer(
            self.images,
            self.snapshots.diff_tar(record.id, without=_ENGINE_MADE),
            base,
            _committed_config(record, options.config),
            tags=tags,
            description=Description(
                comment=options.comment,
                author=options.author,
                created_by=" ".join(record.argv),
                changes=tuple(line for text in options.changes for line in text.split("\n")),
            ),
            platform=Platform(architecture=self.architecture),
        )
        return image.id


def _is_mount(root: int) -> bool:
    try:
        return os.stat(root).st_dev != os.stat("..", dir_fd=root).st_dev
    except FileNotFoundError:
        return False


@contextmanager
def _root_of(process: Process) -> Iterator[int]:
    """The root as the process sees it. Raises Conflict when it has just ended."""
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(opened_root(f"/proc/{process.pid}/root"))
        except (FileNotFoundError, ProcessLookupError):
            root = -1
        # Only now it is sure that the number was not another process's already.
        if root < 0 or not is_alive(ProcessIdentity(process.pid, process.start_time)):
            raise Conflict("the container ends at this moment: try again")
        yield root


def _owner(record: ContainerRecord, root: int) -> tuple[int, int] | None:
    if not record.config.user:
        return None
    user = resolve_user(Path(f"/proc/self/fd/{root}"), record.config.user)
    return user.uid, user.gid


def _named(work: Any, ref: str) -> Any:
    """Errors about a missing path name the container as the request does, as in Docker."""

    def call() -> Any:
        try:
            return work()
        except NotFound as error:
            raise NotFound(f"{error.message} in container {ref}") from error

    return call


def _target(repository: str, tag: str) -> list[Reference]:
    if not repository:
        return []
    return [parse_reference(repository).with_tag(tag)]


def _committed_config(record: ContainerRecord, given: Config | None) -> ImageProcessConfig:
    """What the client gave, its gaps filled from the container."""
    own = _process_config(record.config)
    merged = own if given is None else _process_config(merge_image(given, own))
    env = [entry for entry in merged.env if "=" in entry]
    return msgspec.structs.replace(merged, env=env)


def _process_config(config: Config) -> ImageProcessConfig:
    names = set(ImageProcessConfig.__struct_fields__)
    values = {
        name: value
        for name, value in msgspec.structs.asdict(config).items()
        if name in names and value is not None
    }
    return ImageProcessConfig(**values)
