"""Routes of the builder (OpenAPI ImageBuild, BuildPrune), and the engine's own beside them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from estiba.api.build_ports import BuildOptions
from estiba.api.context import Context, answer, checked, first, progress, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.api.streams import RawStream
from estiba.http1 import HttpResponse
from estiba.model.errors import InvalidArgument, NotImplemented

BUNDLE = "application/vnd.estiba.build.v1+tar"
T = TypeVar("T")

_LOOK_S = 1.0
_TAR = "application/x-tar"
_MAX_TEXT = 1 << 20
_MAX_DEPTH = 4


class Client(Protocol):
    @property
    def is_gone(self) -> bool: ...


class BuildRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._builds = backends.builds

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ImageBuild", self.build),
            ("BuildPrune", self.prune),
            ("BuildOutput", self.output),
            ("BuildAgent", self.agent),
        ):
            router.add(operation, handler)

    async def build(self, context: Context) -> HttpResponse:
        registries = context.request.headers.get("x-registry-config", "")
        kind = context.request.headers.get("content-type", "").partition(";")[0].strip()
        if kind == BUNDLE:
            lines = self._builds.build_bundle(context.body, registries)
        else:
            lines = self._builds.build(context.body, _options(context), registries)
        # What fails before there is anything to tell has a status of its own.
        head = await unless_gone(context.request.connection, first(lines))
        return stream(progress(head), "application/json")

    async def prune(self, context: Context) -> HttpResponse:
        reserved = context.number("reserved-space")
        if reserved is None:
            reserved = context.number("keep-storage")
        view = await self._builds.prune(
            everything=context.flag("all"),
            filters=context.filters(),
            reserved_bytes=reserved,
            max_used_bytes=context.number("max-used-space"),
            min_free_bytes=context.number("min-free-space"),
        )
        return answer(view)

    async def output(self, context: Context) -> HttpResponse:
        return stream(await self._builds.output(context.id), _TAR)

    async def agent(self, context: Context) -> HttpResponse:
        self._builds.check_agent(context.id)
        hijacked = await RawStream.open(context.request, tty=True, version=context.version)
        try:
            await self._builds.agent(context.id, context.text("id"), hijacked)
        finally:
            await hijacked.close()
        return HttpResponse(hijacked=True)


async def unless_gone(client: Client, work: Awaitable[T]) -> T:
    """Ends `work`, which sends nothing yet, when the client leaves.

    Raises ConnectionResetError then. A request's body is read in a thread meanwhile, so the loop
    hears of no end.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=_LOOK_S))[0]:
            if client.is_gone:
                raise ConnectionResetError("the client went away")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _options(context: Context) -> BuildOptions:
    """Raises InvalidArgument, NotImplemented for the builder of version 2."""
    if context.text("version") == "2":
        raise NotImplemented(
            "this daemon takes BuildKit's whole Dockerfile syntax, but not its session protocol: "
            "set DOCKER_BUILDKIT=0, or use `estiba build`"
        )
    if context.text("isolation") not in ("", "default"):
        raise InvalidArgument(f"Unsupported isolation: {context.text('isolation')[:64]!r}")
    if any(context.texts("securityopt")):
        raise InvalidArgument(
            "securityopt: the daemon on this platform does not support setting security options "
            "on build: RUN --security=insecure with `estiba build --allow security.insecure` does"
        )
    if context.text("networkmode").startswith("container:"):
        raise InvalidArgument(
            "networkmode=container:…: a build joins no container's network namespace: give the "
            "name of a network that the container is on, host or none"
        )
    if context.text("outputs"):
        raise InvalidArgument("outputs= needs the builder of version 2: use `estiba build -o`")
    return BuildOptions(
        dockerfile=context.text("dockerfile"),
        tags=[text for text in context.texts("t") if text],
        extra_hosts=_list(context, "extrahosts"),
        remote=context.text("remote"),
        quiet=context.flag("q"),
        forces_removal=context.flag("forcerm"),
        no_cache=context.flag("nocache"),
        cache_from=_list(context, "cachefrom"),
        pull=context.flag("pull"),
        memory_bytes=context.number("memory") or 0,
        memory_swap_bytes=context.number("memswap") or 0,
        cpu_shares=context.number("cpushares") or 0,
        cpuset_cpus=context.text("cpusetcpus"),
        cpuset_mems=context.text("cpusetmems"),
        cpu_period_us=context.number("cpuperiod") or 0,
        cpu_quota_us=context.number("cpuquota") or 0,
        cgroup_parent=context.text("cgroupparent"),
        build_args=pairs(context, "buildargs"),
        shm_bytes=context.number("shmsize") or 0,
        ulimits=_ulimits(context),
        squash=context.flag("squash"),
        labels=pairs(context, "labels"),
        network=context.text("networkmode"),
        platform=context.text("platform"),
        target=context.text("target"),
    )


def _json(context: Context, name: str) -> object:
    text = context.text(name)
    if not text:
        return None
    if len(text) > _MAX_TEXT:
        raise InvalidArgument(f"{name}: longer than {_MAX_TEXT} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid {name}: not JSON: {error}") from error
    try:
        return checked(value, _MAX_DEPTH)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error}") from error


def pairs(context: Context, name: str) -> dict[str, str]:
    """A JSON object of strings; what is null is left out, as an argument without a value."""
    value = _json(context, name) or {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise InvalidArgument(f"invalid {name}: expected a JSON object of strings")
    return value


def _list(context: Context, name: str) -> list[str]:
    """A JSON array; or, as some clients send it, words with commas between."""
    text = context.text(name)
    if text and not text.startswith(("[", "null")):
        return [part for one in context.texts(name) for part in one.split(",") if part]
    value = _json(context, name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidArgument(f"invalid {name}: expected a JSON array of strings")
    return value


def _ulimits(context: Context) -> list[dict[str, object]]:
    value = _json(context, "ulimits") or []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidArgument("invalid ulimits: expected a JSON array of objects")
    return value
