"""What the routes of `routes_volumes` need of the engine: a part of `ports`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from estiba.http1 import Body

Json = dict[str, Any]


class VolumeCopies(Protocol):
    """`options` None: those of the volume that is copied. `pause` freezes its users meanwhile."""

    async def clone(
        self,
        name: str,
        new: str,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
        pause: bool,
    ) -> Json: ...

    async def rename(self, name: str, new: str) -> None: ...

    async def resize(self, name: str, size: str) -> None: ...

    async def snapshots(self, name: str) -> list[Json]: ...

    async def snapshot(self, name: str, tag: str, *, pause: bool) -> Json: ...

    async def rollback(self, name: str, tag: str) -> None: ...

    async def remove_snapshot(self, name: str, tag: str) -> None: ...


class VolumeBackups(Protocol):
    """`auth` is the header X-Registry-Auth as it came; `options` None: those of the backup."""

    def backup(self, name: str, *, pause: bool, plain: bool) -> AsyncIterator[bytes]:
        """Raises NotFound, Conflict before the first piece."""

    def push(
        self, name: str, ref: str, *, pause: bool, plain: bool, auth: str
    ) -> AsyncIterator[Json]: ...

    async def restore(
        self,
        name: str,
        body: Body,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
    ) -> Json: ...

    def pull(
        self,
        name: str,
        ref: str,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
        auth: str,
    ) -> AsyncIterator[Json]: ...
