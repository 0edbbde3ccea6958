"""Routes of our own beside Docker's for volumes: copies, snapshots, names, backups."""

from __future__ import annotations

from estiba.api.context import Context, answer, empty, first, progress, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.api.routes_builds import pairs, unless_gone
from estiba.http1 import HttpResponse
from estiba.model.errors import InvalidArgument

BACKUP = "application/vnd.estiba.volume.v1.tar+zstd"
_MAX_NAME = 1024


class VolumeWorkRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._copies = backends.volume_copies
        self._backups = backends.volume_backups

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("VolumeClone", self.clone),
            ("VolumeRename", self.rename),
            ("VolumeResize", self.resize),
            ("VolumeSnapshotList", self.snapshots),
            ("VolumeSnapshotCreate", self.snapshot),
            ("VolumeSnapshotRestore", self.rollback),
            ("VolumeSnapshotDelete", self.remove_snapshot),
            ("VolumeBackup", self.backup),
            ("VolumeBackupPush", self.push),
            ("VolumeRestore", self.restore),
            ("VolumeRestorePull", self.pull),
        ):
            router.add(operation, handler)

    async def clone(self, context: Context) -> HttpResponse:
        view = await self._copies.clone(
            _name(context),
            _given(context, "name"),
            options=_options(context),
            labels=pairs(context, "labels"),
            pause=context.flag("pause"),
        )
        return answer(view, 201)

    async def rename(self, context: Context) -> HttpResponse:
        await self._copies.rename(_name(context), _given(context, "name"))
        return empty()

    async def resize(self, context: Context) -> HttpResponse:
        await self._copies.resize(_name(context), _given(context, "size"))
        return empty()

    async def snapshots(self, context: Context) -> HttpResponse:
        return answer(await self._copies.snapshots(_name(context)))

    async def snapshot(self, context: Context) -> HttpResponse:
        view = await self._copies.snapshot(
            _name(context), context.text("tag"), pause=context.flag("pause")
        )
        return answer(view, 201)

    async def rollback(self, context: Context) -> HttpResponse:
        await self._copies.rollback(_name(context), context.parameters["tag"])
        return empty()

    async def remove_snapshot(self, context: Context) -> HttpResponse:
        await self._copies.remove_snapshot(_name(context), context.parameters["tag"])
        return empty()

    async def backup(self, context: Context) -> HttpResponse:
        pieces = self._backups.backup(
            _name(context), pause=context.flag("pause"), plain=context.flag("plain")
        )
        return stream(await unless_gone(context.request.connection, first(pieces)), BACKUP)

    async def push(self, context: Context) -> HttpResponse:
        lines = self._backups.push(
            _name(context),
            _given(context, "ref"),
            pause=context.flag("pause"),
            plain=context.flag("plain"),
            auth=_auth(context),
        )
        return stream(progress(await first(lines)), "application/json")

    async def restore(self, context: Context) -> HttpResponse:
        view = await self._backups.restore(
            _name(context),
            context.body,
            options=_options(context),
            labels=pairs(context, "labels"),
        )
        return answer(view, 201)

    async def pull(self, context: Context) -> HttpResponse:
        lines = self._backups.pull(
            _name(context),
            _given(context, "ref"),
            options=_options(context),
            labels=pairs(context, "labels"),
            auth=_auth(context),
        )
        return stream(progress(await first(lines)), "application/json")


def _name(context: Context) -> str:
    return context.parameters["name"]


def _given(context: Context, parameter: str) -> str:
    """Raises InvalidArgument without it."""
    text = context.text(parameter)
    if not text or len(text) > _MAX_NAME:
        raise InvalidArgument(f"the parameter {parameter} must be given, of {_MAX_NAME} characters")
    return text


def _options(context: Context) -> dict[str, str] | None:
    """None when nothing is said of them, which is not the same as none."""
    return pairs(context, "options") if context.text("options") else None


def _auth(context: Context) -> str:
    return context.request.headers.get("x-registry-auth", "")
