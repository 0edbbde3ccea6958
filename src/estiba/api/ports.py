"""What the routes need of the engine; `daemon.wiring` fills these with adapters.

Answers are plain dictionaries in the Engine API's own form (OpenAPI 1.51).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from estiba.api.build_ports import Builds
from estiba.api.streams import ClientStream
from estiba.api.volume_ports import VolumeBackups, VolumeCopies
from estiba.http1 import Body
from estiba.model.container import (
    Config,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
    PortBinding,
    ProcessSpec,
    Resources,
    RestartPolicy,
)
from estiba.model.image import Platform

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Times in nanoseconds since the epoch (0: open), `tail` in lines (None: all)."""

    stdout: bool
    stderr: bool
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None


@dataclass(frozen=True, slots=True)
class AttachOptions:
    logs: bool
    stream: bool
    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: str | None


@dataclass(frozen=True, slots=True)
class CommitOptions:
    container: str
    repository: str
    tag: str
    comment: str
    author: str
    pause: bool
    changes: list[str]
    config: Config | None


class ContainerQueries(Protocol):
    async def list_all(
        self, *, all: bool, limit: int, size: bool, filters: Filters
    ) -> list[Json]: ...

    async def inspect(self, ref: str, *, size: bool) -> Json: ...

    async def top(self, ref: str, ps_args: str) -> Json: ...

    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]: ...

    async def changes(self, ref: str) -> list[Json]: ...

    async def logs(
        self, ref: str, options: LogOptions
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        """Whether the container has a TTY, and its log."""


class ContainerCommands(Protocol):
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
        """The new id, and warnings."""

    async def start(self, ref: str) -> None: ...

    async def stop(self, ref: str, *, signal: str | None, timeout_s: float | None) -> None: ...

    async def restart(self, ref: str, *, signal: str | None, timeout_s: float | None) -> None: ...

    async def kill(self, ref: str, signal: str) -> None: ...

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None: ...

    async def pause(self, ref: str) -> None: ...

    async def unpause(self, ref: str) -> None: ...

    async def rename(self, ref: str, name: str) -> None: ...

    async def update(
        self, ref: str, resources: Resources, policy: RestartPolicy | None
    ) -> list[str]: ...

    async def publish(
        self,
        ref: str,
        added: dict[str, list[PortBinding]],
        removed: dict[str, list[PortBinding]],
    ) -> Json:
        """Publishes ports, and takes back others; those that stay are not interrupted.

        Returns NetworkSettings.Ports as they are then.
        """

    async def resize(self, ref: str, height: int, width: int) -> None: ...

    async def prune(self, filters: Filters) -> Json: ...

    async def truncate_log(self, ref: str) -> None: ...

    def wait(self, ref: str, condition: str) -> AsyncIterator[Json]:
        """One answer, when the condition holds; registered before the first step returns."""


class ContainerStreams(Protocol):
    async def has_tty(self, ref: str) -> bool: ...

    async def attach(self, ref: str, options: AttachOptions, stream: ClientStream) -> None: ...

    async def check_attach(self, ref: str, options: AttachOptions) -> None:
        """Raises what would keep `attach` from working, while HTTP can still say it."""


class ContainerArchives(Protocol):
    def export(self, ref: str) -> AsyncIterator[bytes]: ...

    async def stat(self, ref: str, path: str) -> Json: ...

    async def get(self, ref: str, path: str) -> tuple[Json, AsyncIterator[bytes]]: ...

    async def put(
        self, ref: str, path: str, body: Body, *, no_overwrite: bool, copy_owner: bool
    ) -> None: ...

    async def commit(self, options: CommitOptions) -> str: ...


class Execs(Protocol):
    async def create(self, ref: str, spec: ProcessSpec) -> str: ...

    async def inspect(self, exec_id: str) -> Json: ...

    async def start(
        self, exec_id: str, stream: ClientStream | None, console_size: list[int]
    ) -> None:
        """Starts; with a stream returns when both sides are done."""

    async def check_start(self, exec_id: str) -> None: ...

    async def resize(self, exec_id: str, height: int, width: int) -> None: ...


class Images(Protocol):
    async def list_all(
        self, *, all: bool, filters: Filters, shared_size: bool, manifests: bool = False
    ) -> list[Json]: ...

    async def inspect(self, name: str, platform: Platform | None) -> Json: ...

    async def history(self, name: str, platform: Platform | None) -> list[Json]: ...

    async def attestations(
        self, name: str, platform: Platform | None, *, types: list[str], statements: bool
    ) -> list[Json]:
        """Those of `types`, or all; with what they say if `statements`."""

    async def tag(self, name: str, repository: str, tag: str) -> None: ...

    async def remove(
        self, name: str, *, force: bool, prune: bool, platforms: list[Platform]
    ) -> list[Json]: ...

    async def prune(self, filters: Filters) -> Json: ...


class ImageTransfers(Protocol):
    def platform(self, text: str) -> Platform:
        """What the text names, the host's own for "". Raises InvalidArgument."""

    def load(
        self, body: Body, *, quiet: bool, platforms: list[Platform]
    ) -> AsyncIterator[Json]: ...

    async def save(
        self, names: list[str], *, platforms: list[Platform], form: str
    ) -> AsyncIterator[bytes]:
        """Raises NotFound or InvalidArgument before the first byte."""

    def import_(
        self,
        body: Body,
        *,
        source: str,
        repository: str,
        tag: str,
        message: str,
        changes: list[str],
        platform: Platform,
    ) -> AsyncIterator[Json]: ...


class Registries(Protocol):
    """`auth` is the header X-Registry-Auth as it came."""

    def pull(
        self, image: str, tag: str, platform: Platform | None, auth: str
    ) -> AsyncIterator[Json]:
        """Without tag and digest all tags. Raises InvalidArgument before the first line."""

    def push(
        self, image: str, tag: str, platform: Platform | None, auth: str
    ) -> AsyncIterator[Json]:
        """Raises InvalidArgument, NotFound before the first line."""

    async def inspect(self, name: str, auth: str) -> Json: ...

    async def search(self, term: str, limit: int, filters: Filters, auth: str) -> list[Json]: ...


class System(Protocol):
    async def version(self) -> Json: ...

    async def info(self) -> Json: ...

    def events(self, *, since_ns: int, until_ns: int, filters: Filters) -> AsyncIterator[Json]: ...

    async def disk_usage(self, types: list[str]) -> Json: ...

    async def authenticate(self, credentials: Json) -> Json: ...


class Networks(Protocol):
    async def list_all(self, filters: Filters) -> list[Json]: ...

    async def inspect(self, ref: str, *, verbose: bool, scope: str = "") -> Json: ...

    async def create(self, body: Json) -> Json: ...

    async def remove(self, ref: str) -> None: ...

    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None: ...

    async def disconnect(self, ref: str, container: str, *, force: bool) -> None: ...

    async def prune(self, filters: Filters) -> Json: ...


class Policies(Protocol):
    """Who may talk to whom: the engine's own operations beside those of networks."""

    async def explain(self, source: str, target: str) -> Json: ...

    async def graph(self, form: str) -> Json | str: ...

    async def show(self, ref: str) -> Json: ...

    async def set(self, ref: str, text: str) -> None: ...

    async def remove(self, ref: str) -> None: ...

    async def set_egress(self, container: str, text: str) -> list[str]: ...


class Volumes(Protocol):
    async def list_all(self, filters: Filters) -> Json: ...

    async def inspect(self, name: str) -> Json: ...

    async def create(self, body: Json) -> Json: ...

    async def update(self, name: str) -> None: ...

    async def remove(self, name: str, *, force: bool) -> None: ...

    async def prune(self, filters: Filters) -> Json: ...


class Plugins(Protocol):
    async def list_all(self, filters: Filters) -> list[Json]: ...

    async def inspect(self, name: str) -> Json: ...

    async def privileges(self, remote: str, auth: str) -> list[Json]: ...

    def local_name(self, remote: str, name: str) -> str:
        """What a plugin that is pulled is called here. Raises InvalidArgument."""

    def pull(
        self, remote: str, name: str, granted: list[Any], auth: str
    ) -> AsyncIterator[Json]: ...

    def upgrade(
        self, name: str, remote: str, granted: list[Any], auth: str
    ) -> AsyncIterator[Json]: ...

    def push(self, name: str, auth: str) -> AsyncIterator[Json]: ...

    async def create(self, name: str, body: Body) -> None: ...

    async def enable(self, name: str, timeout_s: float) -> None: ...

    async def disable(self, name: str, *, force: bool) -> None: ...

    async def remove(self, name: str, *, force: bool) -> Json: ...

    async def set(self, name: str, arguments: list[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Backends:
    """All of them, for the routes."""

    queries: ContainerQueries
    commands: ContainerCommands
    streams: ContainerStreams
    archives: ContainerArchives
    execs: Execs
    images: Images
    transfers: ImageTransfers
    registries: Registries
    builds: Builds
    system: System
    networks: Networks
    policies: Policies
    volumes: Volumes
    volume_copies: VolumeCopies
    volume_backups: VolumeBackups
    plugins: Plugins
    cgroup_v2: bool
    """Whether the host has version 2 alone: old versions of the API had other defaults on 1."""
