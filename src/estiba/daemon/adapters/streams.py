"""Attach, exec streams, archives, export and commit for the routes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.api.http1 import Body
from estiba.api.ports import AttachOptions, CommitOptions
from estiba.api.streams import ClientStream
from estiba.api.uploads import Upload
from estiba.containers import logs
from estiba.containers.actor import Actor
from estiba.containers.attach import AttachClient
from estiba.containers.engine import Engine
from estiba.containers.mountpoints import ENGINE_MADE
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.sources import Sources, longest_mount
from estiba.daemon.adapters.bridging import iterate
from estiba.images.images import Images
from estiba.images.importing import Description, commit_layer
from estiba.kernel.blocking import run_blocking
from estiba.kernel.confined import opened_root
from estiba.model.container import Config
from estiba.model.detach_keys import DEFAULT, DetachScanner, parse_keys
from estiba.model.errors import Conflict, EstibaError, Forbidden, NotFound
from estiba.model.image import ImageProcessConfig
from estiba.model.reference import Reference, parse_reference
from estiba.model.state import ContainerState
from estiba.runtime.users import resolve_user
from estiba.storage.archive import PutOptions, get_path, put_path, stat_path
from estiba.storage.pack import pack_tree
from estiba.storage.snapshots import SnapshotStore
from estiba.storage.unpack import Limits

Json = dict[str, Any]
_ENGINE_MADE = frozenset(path.lstrip("/") for path in ENGINE_MADE)


@dataclass(slots=True)
class ContainerStreams:
    """`api.ports.ContainerStreams`."""

    engine: Engine
    images: Images
    snapshots: SnapshotStore
    sources: Sources
    paths: Paths
    limits: Limits
    architecture: str

    # -- attach ----------------------------------------------------------------------------

    async def has_tty(self, ref: str) -> bool:
        return self.engine.find(ref).record.config.tty

    async def check_attach(self, ref: str, options: AttachOptions) -> None:
        record = self.engine.find(ref).record
        parse_keys(options.detach_keys or DEFAULT)
        if record.state == ContainerState.PAUSED:
            raise Conflict(
                f"container {record.name} is paused, unpause the container before attach"
            )

    async def attach(self, ref: str, options: AttachOptions, stream: ClientStream) -> None:
        actor = self.engine.find(ref)
        if not options.stream:
            if options.logs:
                await self._replay(actor, options, stream)
            return
        client = actor.hub.join(stdout=options.stdout, stderr=options.stderr)
        try:
            if options.logs:
                await self._replay(actor, options, stream)
            await self._connect(actor)
            await actor.announce("attach")
            await self._pump(actor, options, stream, client)
        finally:
            actor.hub.leave(client)

    async def _connect(self, actor: Actor) -> None:
        """Joins a container that runs; one that does not is waited for."""
        if actor.record.state.is_up and not actor.hub.is_connected:
            with contextlib.suppress(EstibaError):
                console = await self.engine.world.steps.open_console(actor.record)
                if actor.hub.is_connected:
                    await console.close()
                else:
                    actor.hub.connect(console, name=actor.record.name)

    async def _replay(self, actor: Actor, options: AttachOptions, stream: ClientStream) -> None:
        query = logs.LogQuery(stdout=options.stdout, stderr=options.stderr)
        async for number, data in logs.read_log(
            self.paths.log(actor.record.id), query, actor.ended
        ):
            await stream.write(number, data)

    async def _pump(
        self, actor: Actor, options: AttachOptions, stream: ClientStream, client: AttachClient
    ) -> None:
        """Until the output ends, the client leaves, or it types the detach keys."""

        async def output() -> None:
            async for number, data in client:
                await stream.write(number, data)

        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(output(), name="attach output")]
        tasks.append(asyncio.create_task(stream.wait_gone(), name="attach gone"))
        if options.stdin and actor.record.config.open_stdin:
            tasks.append(
                asyncio.create_task(self._input(actor, options, stream), name="attach input")
            )
        try:
            while True:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finished = done.pop()
                if finished.get_name() != "attach input" or finished.exception():
                    break
                if finished.result():
                    await actor.announce("detach")
                    break
                tasks.remove(finished)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _input(self, actor: Actor, options: AttachOptions, stream: ClientStream) -> bool:
        """True when the user detached; at the end of input the program's is closed."""
        keys = parse_keys(options.detach_keys or DEFAULT) if actor.record.config.tty else b""
        scanner = DetachScanner(keys)
        while data := await stream.read():
            passed, detached = scanner.feed(data)
            if passed:
                await actor.hub.write_stdin(passed)
            if detached:
                return True
        if actor.record.config.stdin_once and not actor.record.config.tty:
            await actor.hub.close_stdin()
        return False

    # -- archives --------------------------------------------------------------------------

    async def stat_archive(self, ref: str, path: str) -> Json:
        actor = self.engine.find(ref)

        def work() -> Json:
            with self._tree(actor.record, path) as (root, inside):
                return stat_path(root, inside)

        return await run_blocking(_named(work, actor.record))

    async def get_archive(self, ref: str, path: str) -> tuple[Json, AsyncIterator[bytes]]:
        actor = self.engine.find(ref)
        stat = await self.stat_archive(ref, path)

        def pieces() -> Iterator[bytes]:
            with self._tree(actor.record, path) as (root, inside):
                yield from get_path(root, inside)

        await actor.announce("archive-path", {"path": path})
        return stat, iterate(pieces())

    async def put_archive(
        self, ref: str, path: str, body: Body, *, no_overwrite: bool, copy_owner: bool
    ) -> None:
        actor = self.engine.find(ref)
        record = actor.record
        found = longest_mount(record, path)
        if found is None and record.host_config.readonly_rootfs:
            raise Forbidden("container rootfs is marked read-only")
        if found is not None and not found[0].rw:
            raise Forbidden("mounted volume is marked read-only")
        source = Upload(body)

        def work() -> None:
            with self._tree(record, path) as (root, inside):
                owner = self._owner(record, root) if copy_owner else None
                options = PutOptions(no_overwrite_dir=no_overwrite, owner=owner, limits=self.limits)
                put_path(root, inside, source, options)

        try:
            await run_blocking(_named(work, record))
        finally:
            source.close()
        await actor.announce("extract-to-dir", {"path": path})

    @staticmethod
    def _owner(record: ContainerRecord, root: int) -> tuple[int, int] | None:
        if not record.config.user:
            return None
        user = resolve_user(Path(f"/proc/self/fd/{root}"), record.config.user)
        return user.uid, user.gid

    @contextmanager
    def _tree(self, record: ContainerRecord, path: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the root that `path` lies in, and the path in there.

        A container that runs is seen through its own mount namespace, so its volumes and
        tmpfs mounts are where it sees them.
        """
        if record.state.is_up and record.container is not None:
            with opened_root(f"/proc/{record.container.pid}/root") as root:
                yield root, path
            return
        found = longest_mount(record, path)
        if found is not None and found[0].type in ("bind", "volume"):
            source = self.sources.path(found[0])
            if source.is_dir():
                with opened_root(source) as root:
                    yield root, found[1]
                return
        with self._mounted(record) as rootfs, opened_root(rootfs) as root:
            yield root, path

    @contextmanager
    def _mounted(self, record: ContainerRecord) -> Iterator[Path]:
        """The container's root, mounted for a moment if it does not run."""
        if record.state.is_up:
            yield self.paths.rootfs(record.id)
            return
        with self.snapshots.mounted_aside(record.id) as path:
            yield path

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        actor = self.engine.find(ref)

        def pieces() -> Iterator[bytes]:
            with self._mounted(actor.record) as rootfs:
                fd = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    yield from pack_tree(fd)
                finally:
                    os.close(fd)

        await actor.announce("export")
        async for piece in iterate(pieces()):
            yield piece

    # -- commit ----------------------------------------------------------------------------

    async def commit(self, options: CommitOptions) -> str:
        actor = self.engine.find(options.container)
        tags = _target(options.repository, options.tag)
        paused = options.pause and actor.record.state == ContainerState.RUNNING
        if paused:
            await actor.pause()
        try:
            record = await run_blocking(self._commit, actor.record, options, tags)
        finally:
            if paused:
                with contextlib.suppress(Conflict):
                    await actor.unpause()
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
            _process_config(options.config or record.config),
            tags=tags,
            description=Description(
                comment=options.comment,
                author=options.author,
                created_by=" ".join(record.argv),
                changes=tuple(line for text in options.changes for line in text.split("\n")),
            ),
            architecture=self.architecture,
        )
        return image.id


def _named(work: Any, record: ContainerRecord) -> Any:
    """Errors about a missing path name the container, as Docker's do."""

    def call() -> Any:
        try:
            return work()
        except NotFound as error:
            raise NotFound(f"{error.message} in container {record.name}") from error

    return call


def _target(repository: str, tag: str) -> list[Reference]:
    if not repository:
        return []
    return [parse_reference(f"{repository}:{tag}" if tag else repository)]


def _process_config(config: Config) -> ImageProcessConfig:
    names = set(ImageProcessConfig.__struct_fields__)
    values = {
        name: value
        for name, value in msgspec.structs.asdict(config).items()
        if name in names and value is not None
    }
    return ImageProcessConfig(**values)
