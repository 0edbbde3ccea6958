"""Routes of containers: what they are, and what is done to them (OpenAPI tag Container)."""

from __future__ import annotations

from typing import Any

from estiba.api.bodies import decode_create, decode_ports, decode_update, pop_field
from estiba.api.context import Context, answer, decode, empty, first, json_lines, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.container import RestartPolicy
from estiba.model.errors import InvalidArgument
from estiba.model.ids import check_name

_RECURSIVE_READ_ONLY_SINCE = (1, 44)
_ANNOTATIONS_LISTED_SINCE = (1, 46)
_NO_CONTAINER_MAC_SINCE = (1, 44)
_DNS_NAMES_APART_SINCE = (1, 45)
_OLD_MAC = (
    "The container-wide MacAddress field is now deprecated. It should be specified in "
    "EndpointsConfig instead."
)


class ContainerRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._queries = backends.queries
        self._commands = backends.commands
        self._cgroup_v2 = backends.cgroup_v2

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ContainerList", self.list_all),
            ("ContainerCreate", self.create),
            ("ContainerInspect", self.inspect),
            ("ContainerTop", self.top),
            ("ContainerChanges", self.changes),
            ("ContainerStats", self.stats),
            ("ContainerStart", self.start),
            ("ContainerStop", self.stop),
            ("ContainerRestart", self.restart),
            ("ContainerKill", self.kill),
            ("ContainerUpdate", self.update),
            ("ContainerRename", self.rename),
            ("ContainerPause", self.pause),
            ("ContainerUnpause", self.unpause),
            ("ContainerDelete", self.delete),
            ("ContainerPrune", self.prune),
        ):
            router.add(operation, handler)

    # -- queries ---------------------------------------------------------------------------

    async def list_all(self, context: Context) -> HttpResponse:
        limit = max(0, context.number("limit") or 0)
        listed = await self._queries.list_all(
            all=context.flag("all") or limit > 0,
            limit=limit,
            size=context.flag("size"),
            filters=context.filters(),
        )
        for entry in listed if context.version < _ANNOTATIONS_LISTED_SINCE else []:
            entry["HostConfig"].pop("Annotations", None)
        return answer(listed)

    async def inspect(self, context: Context) -> HttpResponse:
        view = await self._queries.inspect(context.id, size=context.flag("size"))
        return answer(_inspect_as_of(view, context.version))

    async def top(self, context: Context) -> HttpResponse:
        return answer(await self._queries.top(context.id, context.text("ps_args")))

    async def changes(self, context: Context) -> HttpResponse:
        return answer(await self._queries.changes(context.id))

    async def stats(self, context: Context) -> HttpResponse:
        streaming = context.flag("stream", default=True)
        samples = self._queries.stats(
            context.id, stream=streaming, one_shot=context.flag("one-shot")
        )
        if streaming:
            return stream(json_lines(await first(samples)), "application/json")
        async for sample in samples:
            return answer(sample)
        return answer({})

    # -- commands --------------------------------------------------------------------------

    async def create(self, context: Context) -> HttpResponse:
        body = await context.json()
        if not body:
            raise InvalidArgument("config cannot be empty in order to create a container")
        name = context.text("name")
        config, host, networking, unknown = decode_create(
            body, context.version, cgroup_v2=self._cgroup_v2
        )
        container_id, warnings = await self._commands.create(
            check_name(name) if name else "",
            context.text("platform"),
            config,
            host,
            networking,
            read_only_recursive=context.version >= _RECURSIVE_READ_ONLY_SINCE,
        )
        if config.mac_address and context.version >= _NO_CONTAINER_MAC_SINCE:
            warnings = [_OLD_MAC, *warnings]
        warnings = [*warnings, *(f"Unknown field ignored: {field}" for field in unknown)]
        return answer({"Id": container_id, "Warnings": warnings}, 201)

    async def start(self, context: Context) -> HttpResponse:
        await self._commands.start(context.id)
        return empty()

    async def stop(self, context: Context) -> HttpResponse:
        await self._commands.stop(context.id, **_stop_options(context))
        return empty()

    async def restart(self, context: Context) -> HttpResponse:
        await self._commands.restart(context.id, **_stop_options(context))
        return empty()

    async def kill(self, context: Context) -> HttpResponse:
        await self._commands.kill(context.id, context.text("signal") or "SIGKILL")
        return empty()

    async def pause(self, context: Context) -> HttpResponse:
        await self._commands.pause(context.id)
        return empty()

    async def unpause(self, context: Context) -> HttpResponse:
        await self._commands.unpause(context.id)
        return empty()

    async def rename(self, context: Context) -> HttpResponse:
        name = context.text("name")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        await self._commands.rename(context.id, check_name(name))
        return empty()

    async def update(self, context: Context) -> HttpResponse:
        body = await context.json()
        policy_body = pop_field(body, "RestartPolicy")
        added, removed = (decode_ports(body, name) for name in ("PublishAdd", "PublishRemove"))
        resources, unknown = decode_update(body, context.version)
        policy = decode(policy_body, RestartPolicy, "RestartPolicy")[0] if policy_body else None
        own: dict[str, Any] = {}
        if added or removed:
            own["Ports"] = await self._commands.publish(context.id, added, removed)
        warnings = await self._commands.update(context.id, resources, policy)
        warnings = [*warnings, *(f"Unknown field ignored: {field}" for field in unknown)]
        return answer({"Warnings": warnings, **own})

    async def delete(self, context: Context) -> HttpResponse:
        await self._commands.remove(
            context.id,
            force=context.flag("force"),
            volumes=context.flag("v"),
            link=context.flag("link"),
        )
        return empty()

    async def prune(self, context: Context) -> HttpResponse:
        return answer(await self._commands.prune(context.filters()))


def _inspect_as_of(view: dict[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """Old versions had the MAC address in Config, and the short id among the aliases.

    The latter from the first start on: by it docker-compose 1.29 sees whether it still has to
    connect a container with its links and link-local addresses.
    """
    networks = view["NetworkSettings"]["Networks"]
    if version < _NO_CONTAINER_MAC_SINCE:
        main = networks.get(view["HostConfig"]["NetworkMode"], {})
        view["Config"]["MacAddress"] = main.get("MacAddress", "")
    was_started = not view["State"]["StartedAt"].startswith("0001-")
    shows_id = version < _DNS_NAMES_APART_SINCE and was_started
    for name, endpoint in networks.items() if shows_id else ():
        if name not in ("bridge", "host", "none"):
            short = view["Id"][:12]
            endpoint["Aliases"] = [*(endpoint["Aliases"] or []), short]
    return view


def _stop_options(context: Context) -> dict[str, Any]:
    timeout = context.number("t")
    return {
        "signal": context.text("signal") or None,
        "timeout_s": None if timeout is None else float(timeout),
    }
