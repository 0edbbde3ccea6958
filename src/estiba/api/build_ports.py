"""What the routes of `routes_builds` need of the engine: a part of `ports`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from estiba.api.streams import ClientStream
from estiba.http1 import Body

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The query of a build as the classic builder has it (OpenAPI ImageBuild)."""

    dockerfile: str
    tags: list[str]
    extra_hosts: list[str]
    remote: str
    quiet: bool
    forces_removal: bool
    no_cache: bool
    cache_from: list[str]
    pull: bool
    memory_bytes: int
    memory_swap_bytes: int
    cpu_shares: int
    cpuset_cpus: str
    cpuset_mems: str
    cpu_period_us: int
    cpu_quota_us: int
    cgroup_parent: str
    build_args: dict[str, str]
    shm_bytes: int
    ulimits: list[Json]
    squash: bool
    labels: dict[str, str]
    network: str
    platform: str
    target: str


class Builds(Protocol):
    """`registries` is the header X-Registry-Config as it came."""

    def build(self, body: Body, options: BuildOptions, registries: str) -> AsyncIterator[Json]: ...

    def build_bundle(self, body: Body, registries: str) -> AsyncIterator[Json]:
        """As `estiba build` asks: all options are in the body (docs/api.md)."""

    async def output(self, token: str) -> AsyncIterator[bytes]:
        """What a build put out for its client. Raises NotFound."""

    def check_agent(self, session: str) -> None:
        """Raises NotFound for a session that no build has."""

    async def agent(self, session: str, name: str, stream: ClientStream) -> None:
        """Lends the build one connection to the client's ssh agent `name`."""

    async def prune(
        self,
        *,
        everything: bool,
        filters: Filters,
        reserved_bytes: int | None,
        max_used_bytes: int | None,
        min_free_bytes: int | None,
    ) -> Json: ...
