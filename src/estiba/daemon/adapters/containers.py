"""Containers for the routes: queries and commands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from estiba.api.ports import LogOptions
from estiba.containers import logs
from estiba.containers.actor import Actor
from estiba.containers.creation import Defaults, Request, decide_creation
from estiba.containers.engine import Engine
from estiba.containers.execs import Execs
from estiba.containers.hostfacts import HostFacts
from estiba.containers.limits import check_update
from estiba.containers.logdetails import details_prefix
from estiba.containers.logkeeper import LogKeeper
from estiba.containers.mountpoints import without_engine_made
from estiba.containers.ports import Controls, Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.restart import check_policy
from estiba.containers.specs import SpecMaker
from estiba.containers.top import top
from estiba.containers.unhonoured import honoured_update, update_warnings
from estiba.containers.validate import check_binding
from estiba.daemon.adapters.config_views import host_config_view
from estiba.daemon.adapters.container_filters import filter_containers, prune_candidates
from estiba.daemon.adapters.container_views import inspect_view, ports_view, summary_view
from estiba.daemon.adapters.stats import StatsReader
from estiba.images.images import Images
from estiba.images.record import ImageRecord
from estiba.kernel.blocking import run_blocking
from estiba.model.container import (
    Config,
    HostConfig,
    NetworkingConfig,
    PortBinding,
    Resources,
    RestartPolicy,
)
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, InvalidArgument, NotFound
from estiba.model.event import EventType, prune_event
from estiba.model.image import parse_platform
from estiba.model.reference import parse_reference
from estiba.network.networks import Networks
from estiba.network.record import NetworkRecord
from estiba.security.profiles.profile import default_paths
from estiba.storage.snapshots import DRIVER, SnapshotStore

Json = dict[str, Any]
_UNAME = {"amd64": "x86_64", "arm64": "aarch64"}
Filters = Mapping[str, list[str]]


@dataclass(slots=True)
class ContainerQueries:
    """`api.ports.ContainerQueries`."""

    engine: Engine
    execs: Execs
    images: Images
    snapshots: SnapshotStore
    paths: Paths
    stats_reader: StatsReader

    async def list_all(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[Json]:
        records = self.engine.records()
        if not all and "status" not in filters and "exited" not in filters:
            records = [record for record in records if _is_shown(record)]
        found = filter_containers(
            records, filters, find=self._record, is_ancestor=self._is_ancestor
        )
        now = time.time_ns()
        aliases = self.engine.aliases()
        views = [
            summary_view(record, self.paths, now, aliases.get(record.id, ()))
            for record in found[: limit or None]
        ]
        for view in views:
            if not self._is_image(view["Image"], view["ImageID"]):
                view["Image"] = view["ImageID"]
        for view in views if size else []:
            with contextlib.suppress(NotFound):  # removed meanwhile
                view.update(await self._sizes(view["Id"]))
        return views

    def _is_image(self, name: str, image_id: Digest) -> bool:
        """Whether the name that a container was created with still means its image."""
        try:
            return self.images.resolve(name).id == image_id
        except (NotFound, InvalidArgument):
            return False

    async def inspect(self, ref: str, *, size: bool) -> Json:
        record = self._record(ref)
        linked = self.engine.linked(record)
        links = [f"/{child.name}:/{record.name}/{alias}" for alias, child in linked.items()]
        masked, readonly = default_paths(self.stats_reader.specs.host)
        view = inspect_view(
            record,
            self.paths,
            driver=DRIVER,
            exec_ids=self.execs.of_container(record.id),
            host_config={
                **host_config_view(
                    record.host_config, masked_paths=masked, readonly_paths=readonly
                ),
                "Links": links or None,
            },
        )
        if size:
            view.update(await self._sizes(record.id))
        return view

    async def _sizes(self, container_id: str) -> Json:
        record = self._record(container_id)
        written = await run_blocking(self.snapshots.usage, record.id)
        below = await run_blocking(self._image_size, record)
        return {"SizeRw": written, "SizeRootFs": written + below}

    def _image_size(self, record: ContainerRecord) -> int:
        infos = (self.images.layers.info(layer) for layer in record.layers)
        return sum(info.size_bytes for info in infos if info is not None)

    async def top(self, ref: str, ps_args: str) -> Json:
        actor = self.engine.find(ref)
        record = _running(actor.record)
        titles, rows = await top(self.stats_reader.pids(record), ps_args)
        await actor.announce("top")
        return {"Titles": titles, "Processes": rows}

    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        actor = self.engine.find(ref)
        async for sample in self.stats_reader.samples(actor, stream=stream, one_shot=one_shot):
            yield sample

    async def changes(self, ref: str) -> list[Json]:
        record = self._record(ref)
        found = await run_blocking(self.snapshots.changes, record.id)
        return [{"Path": path, "Kind": kind} for path, kind in without_engine_made(found)]

    async def logs(
        self, ref: str, options: LogOptions
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        actor = self.engine.find(ref)
        record = actor.record
        if record.host_config.log_config.type == "none":
            raise Conflict("configured logging driver does not support reading")
        query = logs.LogQuery(
            stdout=options.stdout,
            stderr=options.stderr,
            since_ns=options.since_ns,
            until_ns=options.until_ns,
            tail=options.tail,
            timestamps=options.timestamps,
            follow=options.follow,
            prefix=details_prefix(record) if options.details else b"",
        )
        return record.config.tty, logs.read_log(self.paths.log(record.id), query, actor.runs.ended)

    def _record(self, ref: str) -> ContainerRecord:
        return self.engine.find(ref).record

    def _is_ancestor(self, record: ContainerRecord, value: str) -> bool:
        """Made of that image, or of one that stands on all its layers."""
        if record.image_name == value:
            return True
        try:
            image = self.images.resolve(value)
        except NotFound:
            return False
        below = record.layers[: len(image.layers)]
        return record.image_id == image.id or (bool(below) and below == image.layers)


@dataclass(slots=True)
class ContainerCommands:
    """`api.ports.ContainerCommands`. A client that hangs up cancels its wait, not the work."""

    engine: Engine
    execs: Execs
    images: Images
    specs: SpecMaker
    controls: Controls
    log_keeper: LogKeeper
    snapshots: SnapshotStore
    facts: HostFacts
    defaults: Defaults
    architecture: str
    networks: Networks

    async def create(
        self,
        name: str,
        platform: str,
        config: Config,
        host_config: HostConfig,
        networking: NetworkingConfig,
        *,
        read_only_recursive: bool,
    ) -> tuple[str, list[str]]:
        if not config.image and not config.cmd and not config.entrypoint:
            raise InvalidArgument("no command specified: name an image")
        image = self._image(config.image, platform)
        if name:
            self.engine.check_free(name)
        record, warnings = decide_creation(
            Request(name, config, host_config, networking, read_only_recursive),
            image,
            facts=self.facts,
            defaults=self.defaults,
            find=self._named_in_request,
            find_image=self._image_to_mount,
            driver_of=self.specs.sources.volumes.driver_of,
            find_network=self._network,
        )
        warnings += self.specs.profile(record.host_config).warnings
        warnings += await run_blocking(list, self.specs.sources.warnings(record))
        found = image.config.architecture
        if platform and found and not _is_platform(platform, found):
            raise NotFound(
                f"image with reference {config.image} was found but does not match the specified "
                f"platform: wanted {platform}, actual: linux/{found}"
            )
        if found and found != self.architecture:
            warnings.append(
                f"The requested image's platform (linux/{found}) does not match the detected "
                f"host platform (linux/{self.architecture})"
            )
        # A removal of the image must not take its layers before the snapshot stands on them.
        with self.images.leases.held([*record.layers, *record.mounted_layers]):
            self.images.resolve(image.id)
            for mounted in {plan.source for plan in record.mounts if plan.type == "image"}:
                self._image_to_mount(mounted)
            await self._finish(self.engine.create(record), f"create {record.id}")
        self.images.usage.note(image.id)
        return record.id, warnings

    def _image(self, name: str, platform: str) -> ImageRecord:
        """Of several platforms under one name the one that was asked for, if it is here."""
        image = self.images.resolve(name)
        if platform and self.images.id_of(name) is None:
            named = self.images.named(parse_reference(name))
            wanted = parse_platform(platform, self.architecture)
            image = next((one for one in named if one.platform.serves(wanted)), image)
        if image.artifact:
            raise InvalidArgument(
                f"{name} is an artifact of type {image.artifact}, not an image: nothing in it runs"
            )
        return image

    def _image_to_mount(self, name: str) -> ImageRecord:
        """One that is missing is no 404: clients then pull the container's image."""
        try:
            return self._image(name, "")
        except NotFound as error:
            raise InvalidArgument(f"{error.message}: pull it, then mount it") from error

    def _named_in_request(self, ref: str) -> ContainerRecord:
        """Another container. One that is missing is no 404: clients then pull the image."""
        try:
            return self.engine.find(ref).record
        except NotFound as error:
            raise InvalidArgument(error.message) from error

    def _network(self, ref: str) -> NetworkRecord | None:
        """One that is not there yet may be when the container starts."""
        try:
            return self.networks.network(ref)
        except NotFound:
            return None

    async def start(self, ref: str) -> None:
        actor = self.engine.find(ref)
        await self._finish(actor.start(), f"start {actor.record.name}")

    async def stop(self, ref: str, *, signal: str | None, timeout_s: float | None) -> None:
        actor = self.engine.find(ref)
        await self._finish(
            actor.stop(signal=signal, timeout_s=timeout_s), f"stop {actor.record.name}"
        )

    async def restart(self, ref: str, *, signal: str | None, timeout_s: float | None) -> None:
        actor = self.engine.find(ref)
        await self._finish(
            actor.restart(signal=signal, timeout_s=timeout_s), f"restart {actor.record.name}"
        )

    async def kill(self, ref: str, signal: str) -> None:
        await self.engine.find(ref).kill(signal)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        if link:
            await self._finish(self.engine.unlink(ref), f"unlink {ref}")
            return
        actor = self.engine.find(ref)
        await self._finish(
            actor.remove(force=force, volumes=volumes), f"remove {actor.record.name}"
        )
        self.execs.end_of_container(actor.record.id)

    async def pause(self, ref: str) -> None:
        await self._finish(self.engine.find(ref).pause(), "pause")

    async def unpause(self, ref: str) -> None:
        await self._finish(self.engine.find(ref).unpause(), "unpause")

    async def rename(self, ref: str, name: str) -> None:
        await self._finish(self.engine.rename(self.engine.find(ref), name), f"rename {name}")

    async def update(
        self, ref: str, resources: Resources, policy: RestartPolicy | None
    ) -> list[str]:
        actor = self.engine.find(ref)
        warnings = list(update_warnings(resources, self.facts))
        resources = honoured_update(resources, self.facts)
        check_update(actor.record.host_config, resources, self.facts)
        if policy is not None:
            check_policy(policy, auto_remove=False)
            if policy.name not in ("", "no") and actor.record.host_config.auto_remove:
                raise Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the "
                    "container"
                )
        await self._finish(actor.update(resources, policy), f"update {actor.record.name}")
        return warnings

    async def publish(
        self,
        ref: str,
        added: dict[str, list[PortBinding]],
        removed: dict[str, list[PortBinding]],
    ) -> Json:
        for port, bindings in [*added.items(), *removed.items()]:
            check_binding(port, bindings)
        actor = self.engine.find(ref)
        work = actor.connections.publish(added, removed)
        await self._finish(work, f"publish {actor.record.name}")
        return ports_view(actor.record)

    async def resize(self, ref: str, height: int, width: int) -> None:
        actor = self.engine.find(ref)
        await self.controls.resize(_running(actor.record), height, width)
        await actor.announce("resize", {"height": str(height), "width": str(width)})

    async def prune(self, filters: Filters) -> Json:
        candidates = prune_candidates(self.engine.records(), filters)
        sizes = {
            record.id: await run_blocking(self.snapshots.usage, record.id) for record in candidates
        }
        removed = await self._finish(self.engine.prune(candidates), "prune containers")
        freed = sum(sizes[container_id] for container_id in removed)
        event = prune_event(EventType.CONTAINER, freed)
        await self.engine.world.store.commit(lambda tx: tx.add_event(event))
        return {"ContainersDeleted": removed or None, "SpaceReclaimed": freed}

    async def truncate_log(self, ref: str) -> None:
        await self.log_keeper.truncate(self.engine.find(ref).record)

    def wait(self, ref: str, condition: str) -> AsyncIterator[Json]:
        actor = self.engine.find(ref)
        return _wait(actor, actor.wait_future(condition))

    async def _finish(self, work: Any, name: str) -> Any:
        return await self.engine.world.tasks.finish(work, name=name)


async def _wait(actor: Actor, future: asyncio.Future[Any]) -> AsyncIterator[Json]:
    outcome = await future
    answer: Json = {"StatusCode": outcome.code}
    if outcome.error:
        answer["Error"] = {"Message": outcome.error}
    yield answer


def _is_platform(wanted: str, architecture: str) -> bool:
    """`wanted` is `os`, `architecture` or `os/architecture[/variant]`."""
    first, _, rest = wanted.lower().partition("/")
    own = {"linux", architecture, _UNAME.get(architecture, "")}
    return first in own and rest.partition("/")[0] in ("", *own)


def _is_shown(record: ContainerRecord) -> bool:
    return record.state.is_up or record.state == "restarting"


def _running(record: ContainerRecord) -> ContainerRecord:
    if not record.state.is_up:
        raise Conflict(f"container {record.id} is not running")
    return record
