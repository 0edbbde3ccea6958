"""Plugins that the engine runs itself, for the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.daemon.adapters.image_filters import parse_bool
from estiba.daemon.adapters.registries import credentials_of, progress_lines
from estiba.distribution.cancel import CancelToken
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.kernel.blocking import run_apart
from estiba.managed.catalog import local_name
from estiba.managed.config import Privilege
from estiba.managed.plugins import ManagedPlugins
from estiba.managed.record import PluginRecord, plugin_view
from estiba.model.decoding import from_plain
from estiba.model.errors import InvalidArgument
from estiba.model.reference import Reference, parse_reference

Json = dict[str, Any]
Filters = Mapping[str, list[str]]


@dataclass(slots=True)
class PluginAdapter:
    """`api.ports.Plugins`."""

    plugins: ManagedPlugins

    async def list_all(self, filters: Filters) -> list[Json]:
        records = self.plugins.catalog.all()
        for name, values in filters.items():
            if name == "enabled":
                wanted = [parse_bool(name, value) for value in values]
                records = [record for record in records if record.enabled in wanted]
            elif name == "capability":
                records = [r for r in records if any(_can(r, value) for value in values)]
            else:
                raise InvalidArgument(f"invalid filter '{name}'")
        return [plugin_view(record) for record in records]

    async def inspect(self, name: str) -> Json:
        return plugin_view(self.plugins.catalog.find(name))

    async def privileges(self, remote: str, auth: str) -> list[Json]:
        reference = _remote(remote)
        found = await run_apart(self.plugins.catalog.privileges, reference, credentials_of(auth))
        return [msgspec.to_builtins(one) for one in found]

    def local_name(self, remote: str, name: str) -> str:
        """Of a reference with a digest the name and the tag."""
        if name:
            return local_name(name)
        reference = _remote(remote)
        return Reference(reference.domain, reference.path, reference.tag).tagged.familiar

    def pull(self, remote: str, name: str, granted: list[Any], auth: str) -> AsyncIterator[Json]:
        cancel = CancelToken()
        work = self.plugins.catalog.pull(
            _remote(remote), name, _granted(granted), credentials_of(auth), cancel
        )
        return progress_lines(work, cancel)

    def upgrade(self, name: str, remote: str, granted: list[Any], auth: str) -> AsyncIterator[Json]:
        cancel = CancelToken()
        record = self.plugins.catalog.find(name)
        work = self.plugins.catalog.upgrade(
            record, _remote(remote), _granted(granted), credentials_of(auth), cancel
        )
        return progress_lines(work, cancel)

    def push(self, name: str, auth: str) -> AsyncIterator[Json]:
        cancel = CancelToken()
        record = self.plugins.catalog.find(name)
        return progress_lines(
            self.plugins.catalog.push(record, credentials_of(auth), cancel), cancel
        )

    async def create(self, name: str, body: Body) -> None:
        with closing(Upload(body)) as upload:
            await run_apart(self.plugins.catalog.create, name, upload)

    async def enable(self, name: str, timeout_s: float) -> None:
        await self.plugins.enable(name, timeout_s)

    async def disable(self, name: str, *, force: bool) -> None:
        await self.plugins.disable(name, force=force)

    async def remove(self, name: str, *, force: bool) -> Json:
        view = await self.inspect(name)
        await self.plugins.remove(name, force=force)
        return {**view, "Enabled": False}

    async def set(self, name: str, arguments: list[str]) -> None:
        await self.plugins.set(name, arguments)


def _can(record: PluginRecord, capability: str) -> bool:
    """`volumedriver`, or with what comes before and after it."""
    for kind in record.config.interface.types:
        name = kind.partition("/")[0]
        if capability.lower() in (kind, name, name.partition(".")[2]):
            return True
    return False


def _remote(text: str) -> Reference:
    return parse_reference(text).tagged


def _granted(items: list[Any]) -> list[Privilege]:
    try:
        return from_plain(items, list[Privilege])
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"failed to parse privileges: {error}") from error
