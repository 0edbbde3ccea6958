"""Routes of plugins (OpenAPI tag Plugin)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from estiba.api.context import Context, answer, empty, first, progress, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.errors import InvalidArgument

_NAME_HEADER = "Docker-Plugin-Name"
_MAX_TIMEOUT_S = 3600


class PluginRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._plugins = backends.plugins

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("PluginList", self.list_all),
            ("GetPluginPrivileges", self.privileges),
            ("PluginPull", self.pull),
            ("PluginInspect", self.inspect),
            ("PluginDelete", self.delete),
            ("PluginEnable", self.enable),
            ("PluginDisable", self.disable),
            ("PluginUpgrade", self.upgrade),
            ("PluginCreate", self.create),
            ("PluginPush", self.push),
            ("PluginSet", self.set),
        ):
            router.add(operation, handler)

    async def list_all(self, context: Context) -> HttpResponse:
        return answer(await self._plugins.list_all(context.filters()))

    async def privileges(self, context: Context) -> HttpResponse:
        remote = _remote(context)
        # Null for none, as Docker's own.
        return answer(await self._plugins.privileges(remote, _auth(context)) or None)

    async def inspect(self, context: Context) -> HttpResponse:
        return answer(await self._plugins.inspect(_name(context)))

    async def create(self, context: Context) -> HttpResponse:
        name = context.text("name")
        if not name:
            raise InvalidArgument("the name of the plugin must be given (name=)")
        await self._plugins.create(name, context.body)
        return empty()

    async def pull(self, context: Context) -> HttpResponse:
        granted, remote = await context.json_list(), _remote(context)
        name = self._plugins.local_name(remote, context.text("name"))
        lines = self._plugins.pull(remote, name, granted, _auth(context))
        return await _told(lines, name)

    async def upgrade(self, context: Context) -> HttpResponse:
        granted, remote, name = await context.json_list(), _remote(context), _name(context)
        lines = self._plugins.upgrade(name, remote, granted, _auth(context))
        return await _told(lines, name)

    async def push(self, context: Context) -> HttpResponse:
        lines = self._plugins.push(_name(context), _auth(context))
        return stream(progress(await first(lines)), "application/json")

    async def enable(self, context: Context) -> HttpResponse:
        timeout_s = context.number("timeout") or 0
        if not 0 <= timeout_s <= _MAX_TIMEOUT_S:
            raise InvalidArgument(f"invalid timeout: use 0 to {_MAX_TIMEOUT_S} seconds")
        await self._plugins.enable(_name(context), timeout_s)
        return empty(200)

    async def disable(self, context: Context) -> HttpResponse:
        await self._plugins.disable(_name(context), force=context.flag("force"))
        return empty(200)

    async def delete(self, context: Context) -> HttpResponse:
        return answer(await self._plugins.remove(_name(context), force=context.flag("force")))

    async def set(self, context: Context) -> HttpResponse:
        arguments = await context.json_list()
        if not all(isinstance(one, str) for one in arguments):
            raise InvalidArgument("invalid JSON: expected an array of strings")
        await self._plugins.set(_name(context), arguments)
        return empty()


async def _told(lines: AsyncIterator[Any], name: str) -> HttpResponse:
    """What fails before there is anything to tell has a status of its own."""
    response = stream(progress(await first(lines)), "application/json")
    response.headers[_NAME_HEADER] = name
    return response


def _remote(context: Context) -> str:
    remote = context.text("remote")
    if not remote:
        raise InvalidArgument("the reference of the plugin must be given (remote=)")
    return remote


def _auth(context: Context) -> str:
    return context.request.headers.get("x-registry-auth", "")


def _name(context: Context) -> str:
    return context.parameters["name"]
