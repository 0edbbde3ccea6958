"""Routes of the files of containers: archives in and out, export, commit."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from estiba.api.context import Context, answer, decode, empty, first, stream
from estiba.api.ports import Backends, CommitOptions
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.container import Config
from estiba.model.errors import InvalidArgument

_TAR = "application/x-tar"


class ArchiveRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._archives = backends.archives

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ContainerExport", self.export),
            ("ContainerArchiveInfo", self.stat_archive),
            ("ContainerArchive", self.get_archive),
            ("PutContainerArchive", self.put_archive),
            ("ImageCommit", self.commit),
        ):
            router.add(operation, handler)

    async def export(self, context: Context) -> HttpResponse:
        return stream(await first(self._archives.export(context.id)), "application/octet-stream")

    async def stat_archive(self, context: Context) -> HttpResponse:
        stat = await self._archives.stat(context.id, _path(context))
        return HttpResponse(200, _stat_header(stat))

    async def get_archive(self, context: Context) -> HttpResponse:
        stat, pieces = await self._archives.get(context.id, _path(context))
        response = stream(await first(pieces), _TAR)
        response.headers.update(_stat_header(stat))
        return response

    async def put_archive(self, context: Context) -> HttpResponse:
        await self._archives.put(
            context.id,
            _path(context),
            context.body,
            no_overwrite=context.flag("noOverwriteDirNonDir"),
            copy_owner=context.flag("copyUIDGID"),
        )
        return empty(200)

    async def commit(self, context: Context) -> HttpResponse:
        body = await context.json()
        if not context.text("container"):
            raise InvalidArgument('invalid name or ID supplied: ""')
        config = decode(body, Config)[0] if body else None
        image_id = await self._archives.commit(
            CommitOptions(
                container=context.text("container"),
                repository=context.text("repo"),
                tag=context.text("tag"),
                comment=context.text("comment"),
                author=context.text("author"),
                pause=context.flag("pause", default=True),
                changes=context.texts("changes"),
                config=config,
            )
        )
        return answer({"Id": image_id}, 201)


def _path(context: Context) -> str:
    path = context.text("path")
    if not path:
        raise InvalidArgument("Bad parameter: the path must be given")
    return path


def _stat_header(stat: dict[str, Any]) -> dict[str, str]:
    encoded = base64.b64encode(msgspec.json.encode(stat)).decode()
    return {"X-Docker-Container-Path-Stat": encoded, "Content-Type": _TAR}
