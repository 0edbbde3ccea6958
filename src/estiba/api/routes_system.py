"""Routes of the system, of networks and of volumes."""

from __future__ import annotations

import msgspec

from estiba.api.bodies import pop_field
from estiba.api.context import Context, answer, decode, empty, head_first, json_lines, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.container import EndpointSettings
from estiba.model.errors import InvalidArgument


class SystemRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._system = backends.system

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("SystemPing", self.ping),
            ("SystemPingHead", self.ping),
            ("SystemVersion", self.version),
            ("SystemInfo", self.info),
            ("SystemEvents", self.events),
            ("SystemDataUsage", self.disk_usage),
            ("SystemAuth", self.authenticate),
        ):
            router.add(operation, handler)

    async def ping(self, context: Context) -> HttpResponse:
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Builder-Version": "1",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
            "Swarm": "inactive",
        }
        return HttpResponse(200, headers, b"OK")

    async def version(self, context: Context) -> HttpResponse:
        return answer(await self._system.version())

    async def info(self, context: Context) -> HttpResponse:
        view = await self._system.info()
        if context.version >= (1, 50):
            del view["BridgeNfIptables"], view["BridgeNfIp6tables"]
        if context.version < (1, 49):
            del view["FirewallBackend"]
            for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
                view[name] = {**view[name], "Expected": view[name]["ID"]}
        return answer(view)

    async def events(self, context: Context) -> HttpResponse:
        since, until = context.time_ns("since"), context.time_ns("until")
        if since and until and until < since:
            raise InvalidArgument("`since` cannot be after `until`")
        found = self._system.events(since_ns=since, until_ns=until, filters=context.filters())
        return stream(head_first(json_lines(found)), "application/json")

    async def disk_usage(self, context: Context) -> HttpResponse:
        return answer(await self._system.disk_usage(context.texts("type")))

    async def authenticate(self, context: Context) -> HttpResponse:
        return answer(await self._system.authenticate(await context.json()))


_ONLY_ANONYMOUS_SINCE = (1, 42)
"""Before, a prune of volumes took named ones too."""


class _Connection(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The body of connect and disconnect, but for the endpoint's settings."""

    container: str = ""
    force: bool = False


class NetworkRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._networks = backends.networks

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("NetworkList", self.list_all),
            ("NetworkInspect", self.inspect),
            ("NetworkCreate", self.create),
            ("NetworkDelete", self.delete),
            ("NetworkConnect", self.connect),
            ("NetworkDisconnect", self.disconnect),
            ("NetworkPrune", self.prune),
        ):
            router.add(operation, handler)

    async def list_all(self, context: Context) -> HttpResponse:
        return answer(await self._networks.list_all(context.filters()))

    async def inspect(self, context: Context) -> HttpResponse:
        return answer(
            await self._networks.inspect(
                context.id, verbose=context.flag("verbose"), scope=context.text("scope")
            )
        )

    async def create(self, context: Context) -> HttpResponse:
        return answer(await self._networks.create(await context.json()), 201)

    async def delete(self, context: Context) -> HttpResponse:
        await self._networks.remove(context.id)
        return empty()

    async def connect(self, context: Context) -> HttpResponse:
        body = await context.json()
        given = pop_field(body, "EndpointConfig") or {}
        settings, _ = decode(given, EndpointSettings, "EndpointConfig")
        wanted, _ = decode(body, _Connection)
        await self._networks.connect(context.id, wanted.container, settings)
        return empty(200)

    async def disconnect(self, context: Context) -> HttpResponse:
        wanted, _ = decode(await context.json(), _Connection)
        await self._networks.disconnect(context.id, wanted.container, force=wanted.force)
        return empty(200)

    async def prune(self, context: Context) -> HttpResponse:
        return answer(await self._networks.prune(context.filters()))


class VolumeRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._volumes = backends.volumes

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("VolumeList", self.list_all),
            ("VolumeInspect", self.inspect),
            ("VolumeCreate", self.create),
            ("VolumeUpdate", self.update),
            ("VolumeDelete", self.delete),
            ("VolumePrune", self.prune),
        ):
            router.add(operation, handler)

    async def list_all(self, context: Context) -> HttpResponse:
        return answer(await self._volumes.list_all(context.filters()))

    async def inspect(self, context: Context) -> HttpResponse:
        return answer(await self._volumes.inspect(context.parameters["name"]))

    async def create(self, context: Context) -> HttpResponse:
        return answer(await self._volumes.create(await context.json()), 201)

    async def update(self, context: Context) -> HttpResponse:
        await self._volumes.update(context.parameters["name"])
        return empty(200)

    async def delete(self, context: Context) -> HttpResponse:
        await self._volumes.remove(context.parameters["name"], force=context.flag("force"))
        return empty()

    async def prune(self, context: Context) -> HttpResponse:
        filters = context.filters()
        if context.version < _ONLY_ANONYMOUS_SINCE:
            filters.setdefault("all", ["true"])
        return answer(await self._volumes.prune(filters))
