"""Routes of what containers say and hear: logs, attach, terminals, and waiting for the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from estiba.api.bodies import terminal_size
from estiba.api.context import Context, empty, stream
from estiba.api.ports import AttachOptions, Backends, LogOptions
from estiba.api.router import Router
from estiba.api.streams import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    ClientStream,
    RawStream,
    WebSocketStream,
    frame,
    frames_by_line,
)
from estiba.api.through import through
from estiba.http1 import HttpResponse
from estiba.model.errors import EstibaError, InvalidArgument

_LINE_BY_LINE_BYTES = 64 << 10
_WAIT_CONDITIONS = ("", "not-running", "next-exit", "removed")


class StreamRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._queries = backends.queries
        self._commands = backends.commands
        self._streams = backends.streams

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ContainerLogs", self.logs),
            ("ContainerLogsTruncate", self.truncate_logs),
            ("ContainerAttach", self.attach),
            ("ContainerAttachWebsocket", self.attach_websocket),
            ("ContainerResize", self.resize),
            ("ContainerWait", self.wait),
        ):
            router.add(operation, handler)

    async def logs(self, context: Context) -> HttpResponse:
        stdout, stderr = context.flag("stdout"), context.flag("stderr")
        if not stdout and not stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        options = LogOptions(
            stdout=stdout,
            stderr=stderr,
            follow=context.flag("follow"),
            timestamps=context.flag("timestamps"),
            details=context.flag("details"),
            since_ns=context.time_ns("since"),
            until_ns=context.time_ns("until"),
            tail=_tail(context.text("tail")),
        )
        tty, chunks = await self._queries.logs(context.id, options)
        plain = tty or context.version < (1, 42)
        kind = RAW_STREAM if plain else MULTIPLEXED_STREAM
        return stream(_log_stream(chunks, tty=tty, follow=options.follow), kind)

    async def truncate_logs(self, context: Context) -> HttpResponse:
        await self._commands.truncate_log(context.id)
        return empty()

    async def attach(self, context: Context) -> HttpResponse:
        options = _attach_options(context)
        await self._streams.check_attach(context.id, options)
        tty = await self._streams.has_tty(context.id)
        hijacked = await RawStream.open(context.request, tty=tty, version=context.version)
        await self._attach(context, options, hijacked)
        return HttpResponse(hijacked=True)

    async def attach_websocket(self, context: Context) -> HttpResponse:
        options = _attach_options(context)
        await self._streams.check_attach(context.id, options)
        hijacked = await WebSocketStream.open(context.request, wants_input=options.stdin)
        await self._attach(context, options, hijacked)
        return HttpResponse(hijacked=True)

    async def _attach(
        self, context: Context, options: AttachOptions, hijacked: ClientStream
    ) -> None:
        try:
            await self._streams.attach(context.id, options, hijacked)
        except EstibaError as error:
            await hijacked.write(2, f"{error.message}\n".encode())
        finally:
            await hijacked.close()

    async def resize(self, context: Context) -> HttpResponse:
        height, width = terminal_size(context)
        await self._commands.resize(context.id, height, width)
        return empty(200)

    async def wait(self, context: Context) -> HttpResponse:
        condition = context.text("condition")
        if condition not in _WAIT_CONDITIONS:
            raise InvalidArgument(f"invalid condition: {condition!r}")
        outcome = self._commands.wait(context.id, condition or "not-running")
        return stream(_outcome(outcome), "application/json")


def _tail(text: str) -> int | None:
    if text in ("", "all"):
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number >= 0 else None


def _attach_options(context: Context) -> AttachOptions:
    keys = context.query.get("detachKeys")
    return AttachOptions(
        logs=context.flag("logs"),
        stream=context.flag("stream"),
        stdin=context.flag("stdin"),
        stdout=context.flag("stdout"),
        stderr=context.flag("stderr"),
        detach_keys=keys[0] if keys else None,
    )


@through
async def _outcome(values: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    # The head goes out at once: a client that waits before it starts relies on it.
    yield b""
    async for value in values:
        yield msgspec.json.encode(value) + b"\n"


@through
async def _log_stream(
    chunks: AsyncIterator[tuple[int, bytes]], *, tty: bool, follow: bool
) -> AsyncIterator[bytes]:
    """Clients take a frame for a line, as Docker sends them; a large log comes in large frames."""
    yield b""
    sent_bytes = 0
    async for number, data in chunks:
        if tty:
            yield data
        elif follow or sent_bytes + len(data) <= _LINE_BY_LINE_BYTES:
            yield frames_by_line(number, data)
        else:
            yield frame(number, data)
        sent_bytes += len(data)
