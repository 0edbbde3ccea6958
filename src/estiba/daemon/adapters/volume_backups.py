"""Backups of volumes for the routes: archives in and out, artifacts of registries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from estiba.containers.actor import Actor
from estiba.containers.engine import Engine
from estiba.daemon.adapters.bridging import iterate
from estiba.daemon.adapters.pausing import paused
from estiba.daemon.adapters.volume_copies import users, warnings
from estiba.daemon.adapters.volumes import volume_view
from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials, decode_auth_header
from estiba.distribution.settings import RegistrySettings
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.model.errors import InvalidArgument
from estiba.model.reference import Reference, parse_reference
from estiba.storage.unpack import Limits
from estiba.volumes.backup import Description, archive, describe, restore
from estiba.volumes.spool import Spool
from estiba.volumes.volumes import Volumes

Json = dict[str, Any]
T = TypeVar("T")

_TELL_S = 0.5


@dataclass(slots=True)
class VolumeBackups:
    """`api.ports.VolumeBackups`. What speaks with registries is imported when used."""

    volumes: Volumes
    engine: Engine
    settings: RegistrySettings
    limits: Limits
    work: Path

    async def backup(self, name: str, *, pause: bool, plain: bool) -> AsyncIterator[bytes]:
        description = describe(self.volumes, name, plain=plain)
        live = users(self.engine, name) if pause else []
        async with (
            self._archive(description, live) as source,
            aclosing(iterate(source)) as pieces,
        ):
            async for piece in pieces:
                yield piece
        await run_blocking(self.volumes.catalog.announce, name, "backup", {})

    async def push(
        self, name: str, ref: str, *, pause: bool, plain: bool, auth: str
    ) -> AsyncIterator[Json]:
        from estiba.volumes.artifacts import push

        reference = parse_reference(ref).tagged
        description = describe(self.volumes, name, plain=plain)
        cancel, sent = CancelToken(), _Amount()
        live = users(self.engine, name)
        yield {"status": f"The backup goes to repository [{reference.repository}]"}
        for warning in [] if pause else warnings(name, live):
            yield {"status": f"Warning: {warning}"}

        def work(source: Iterator[bytes]) -> Json:
            stored = push(
                self.volumes,
                description,
                source,
                reference,
                settings=self.settings,
                credentials=_credentials(auth),
                cancel=cancel,
                now=datetime.now(UTC),
                told=sent.set,
            )
            return {"status": f"{reference.tag}: digest: {stored.digest} size: {stored.size}"}

        async with (
            self._archive(description, live if pause else []) as source,
            aclosing(_told(partial(work, source), sent, "Sending", name, cancel)) as lines,
        ):
            async for line in lines:
                yield line

    @asynccontextmanager
    async def _archive(
        self, description: Description, still: list[Actor]
    ) -> AsyncIterator[Iterator[bytes]]:
        """The volume's archive, all of it at the moment at which `still` are paused if there are
        any. They wait for this host's disk alone, not for whoever takes the archive."""
        pieces = archive(self.volumes, description)
        if not still:
            yield pieces
            return
        spool = await run_blocking(Spool, self.work)
        try:
            async with paused(still), aclosing(iterate(spool.fill(pieces))) as written:
                async for _ in written:
                    pass
            yield spool.pieces()
        finally:
            await run_blocking(spool.close)

    async def restore(
        self,
        name: str,
        body: Body,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
    ) -> Json:
        source = Upload(body)
        try:
            record = await run_apart(
                restore,
                self.volumes,
                name,
                source,
                limits=self.limits,
                options=options,
                labels=labels,
            )
        finally:
            source.close()
        return await run_blocking(volume_view, record, self.volumes)

    async def pull(
        self,
        name: str,
        ref: str,
        *,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
        auth: str,
    ) -> AsyncIterator[Json]:
        reference = parse_reference(ref)
        cancel, came = CancelToken(), _Amount()
        yield {"status": f"The backup comes from repository [{reference.repository}]"}

        def work() -> Json:
            self._pull(name, reference, options, labels, _credentials(auth), cancel, came.set)
            return {"status": f"Restored volume {name}"}

        async with aclosing(_told(work, came, "Receiving", name, cancel)) as lines:
            async for line in lines:
                yield line

    def _pull(
        self,
        name: str,
        reference: Reference,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str],
        credentials: Credentials,
        cancel: CancelToken,
        told: Callable[[int], None],
    ) -> None:
        from estiba.volumes.artifacts import pull

        pull(
            self.volumes,
            name,
            reference,
            settings=self.settings,
            credentials=credentials,
            cancel=cancel,
            limits=self.limits,
            options=options,
            labels=labels,
            told=told,
        )


class _Amount:
    """How many bytes have gone; written by the thread that sends them."""

    def __init__(self) -> None:
        self.bytes = 0

    def set(self, size: int) -> None:
        self.bytes = size


async def _told(
    work: Callable[[], Json], amount: _Amount, verb: str, name: str, cancel: CancelToken
) -> AsyncGenerator[Json, None]:
    """Runs `work` in a thread and tells how far it is. A client that leaves ends it."""
    task = asyncio.ensure_future(run_apart(work))
    try:
        while not (await asyncio.wait([task], timeout=_TELL_S))[0]:
            detail = {"current": amount.bytes} if amount.bytes else {}
            yield {"id": name, "status": verb, "progressDetail": detail}
        yield task.result()
    finally:
        cancel.cancel()
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else will look


def _credentials(auth: str) -> Credentials:
    """Nobody's when the header is none."""
    try:
        return decode_auth_header(auth)
    except InvalidArgument:
        return ANONYMOUS
