"""Routes of containers and execs (OpenAPI tags Container, Exec)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from estiba.api.bodies import decode_create, decode_update, pop_field, terminal_size
from estiba.api.context import Context, answer, decode, empty, json_lines, stream
from estiba.api.http1 import HttpResponse
from estiba.api.ports import AttachOptions, Backends, CommitOptions, LogOptions
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
from estiba.model.container import Config, RestartPolicy
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.model.ids import check_name

_TAR = "application/x-tar"
_RECURSIVE_READ_ONLY_SINCE = (1, 44)
_ANNOTATIONS_LISTED_SINCE = (1, 46)
_LINE_BY_LINE_BYTES = 64 << 10
_WAIT_CONDITIONS = ("", "not-running", "next-exit", "removed")


class ContainerRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._queries = backends.queries
        self._commands = backends.commands
        self._streams = backends.streams
        self._archives = backends.archives
        self._cgroup_v2 = backends.cgroup_v2

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ContainerList", self.list_all),
            ("ContainerCreate", self.create),
            ("ContainerInspect", self.inspect),
            ("ContainerTop", self.top),
            ("ContainerLogs", self.logs),
            ("ContainerLogsTruncate", self.truncate_logs),
            ("ContainerChanges", self.changes),
            ("ContainerExport", self.export),
            ("ContainerStats", self.stats),
            ("ContainerResize", self.resize),
            ("ContainerStart", self.start),
            ("ContainerStop", self.stop),
            ("ContainerRestart", self.restart),
            ("ContainerKill", self.kill),
            ("ContainerUpdate", self.update),
            ("ContainerRename", self.rename),
            ("ContainerPause", self.pause),
            ("ContainerUnpause", self.unpause),
            ("ContainerAttach", self.attach),
            ("ContainerAttachWebsocket", self.attach_websocket),
            ("ContainerWait", self.wait),
            ("ContainerDelete", self.delete),
            ("ContainerArchiveInfo", self.stat_archive),
            ("ContainerArchive", self.get_archive),
            ("PutContainerArchive", self.put_archive),
            ("ContainerPrune", self.prune),
            ("ImageCommit", self.commit),
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
        return answer(await self._queries.inspect(_id(context), size=context.flag("size")))

    async def top(self, context: Context) -> HttpResponse:
        return answer(await self._queries.top(_id(context), context.text("ps_args")))

    async def changes(self, context: Context) -> HttpResponse:
        return answer(await self._queries.changes(_id(context)))

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
        tty, chunks = await self._queries.logs(_id(context), options)
        plain = tty or context.version < (1, 42)
        kind = RAW_STREAM if plain else MULTIPLEXED_STREAM
        return stream(_log_stream(chunks, tty=tty, follow=options.follow), kind)

    async def truncate_logs(self, context: Context) -> HttpResponse:
        await self._commands.truncate_log(_id(context))
        return empty()

    async def stats(self, context: Context) -> HttpResponse:
        streaming = context.flag("stream", default=True)
        samples = self._queries.stats(
            _id(context), stream=streaming, one_shot=context.flag("one-shot")
        )
        if streaming:
            return stream(json_lines(await _first(samples)), "application/json")
        async for sample in samples:
            return answer(sample)
        return answer({})

    async def export(self, context: Context) -> HttpResponse:
        return stream(await _first(self._archives.export(_id(context))), "application/octet-stream")

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
        warnings = [*warnings, *(f"Unknown field ignored: {field}" for field in unknown)]
        return answer({"Id": container_id, "Warnings": warnings}, 201)

    async def start(self, context: Context) -> HttpResponse:
        await self._commands.start(_id(context))
        return empty()

    async def stop(self, context: Context) -> HttpResponse:
        await self._commands.stop(_id(context), **_stop_options(context))
        return empty()

    async def restart(self, context: Context) -> HttpResponse:
        await self._commands.restart(_id(context), **_stop_options(context))
        return empty()

    async def kill(self, context: Context) -> HttpResponse:
        await self._commands.kill(_id(context), context.text("signal") or "SIGKILL")
        return empty()

    async def pause(self, context: Context) -> HttpResponse:
        await self._commands.pause(_id(context))
        return empty()

    async def unpause(self, context: Context) -> HttpResponse:
        await self._commands.unpause(_id(context))
        return empty()

    async def rename(self, context: Context) -> HttpResponse:
        name = context.text("name")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        await self._commands.rename(_id(context), check_name(name))
        return empty()

    async def update(self, context: Context) -> HttpResponse:
        body = await context.json()
        policy_body = pop_field(body, "RestartPolicy")
        resources, unknown = decode_update(body, context.version)
        policy = decode(policy_body, RestartPolicy, "RestartPolicy")[0] if policy_body else None
        warnings = await self._commands.update(_id(context), resources, policy)
        warnings = [*warnings, *(f"Unknown field ignored: {field}" for field in unknown)]
        return answer({"Warnings": warnings})

    async def resize(self, context: Context) -> HttpResponse:
        height, width = terminal_size(context)
        await self._commands.resize(_id(context), height, width)
        return empty(200)

    async def delete(self, context: Context) -> HttpResponse:
        await self._commands.remove(
            _id(context),
            force=context.flag("force"),
            volumes=context.flag("v"),
            link=context.flag("link"),
        )
        return empty()

    async def prune(self, context: Context) -> HttpResponse:
        return answer(await self._commands.prune(context.filters()))

    async def wait(self, context: Context) -> HttpResponse:
        condition = context.text("condition")
        if condition not in _WAIT_CONDITIONS:
            raise InvalidArgument(f"invalid condition: {condition!r}")
        outcome = self._commands.wait(_id(context), condition or "not-running")

        async def body() -> AsyncIterator[bytes]:
            # The head goes out at once: a client that waits before it starts relies on it.
            yield b""
            async for value in outcome:
                yield msgspec.json.encode(value) + b"\n"

        return stream(body(), "application/json")

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

    # -- streams ---------------------------------------------------------------------------

    async def attach(self, context: Context) -> HttpResponse:
        options = _attach_options(context)
        await self._streams.check_attach(_id(context), options)
        tty = await self._streams.has_tty(_id(context))
        hijacked = await RawStream.open(context.request, tty=tty, version=context.version)
        await self._attach(context, options, hijacked)
        return HttpResponse(hijacked=True)

    async def attach_websocket(self, context: Context) -> HttpResponse:
        options = _attach_options(context)
        await self._streams.check_attach(_id(context), options)
        hijacked = await WebSocketStream.open(context.request, wants_input=options.stdin)
        await self._attach(context, options, hijacked)
        return HttpResponse(hijacked=True)

    async def _attach(
        self, context: Context, options: AttachOptions, hijacked: ClientStream
    ) -> None:
        try:
            await self._streams.attach(_id(context), options, hijacked)
        except EstibaError as error:
            await hijacked.write(2, f"{error.message}\n".encode())
        finally:
            await hijacked.close()

    # -- archives --------------------------------------------------------------------------

    async def stat_archive(self, context: Context) -> HttpResponse:
        stat = await self._archives.stat(_id(context), _path(context))
        return HttpResponse(200, _stat_header(stat))

    async def get_archive(self, context: Context) -> HttpResponse:
        stat, pieces = await self._archives.get(_id(context), _path(context))
        response = stream(await _first(pieces), _TAR)
        response.headers.update(_stat_header(stat))
        return response

    async def put_archive(self, context: Context) -> HttpResponse:
        await self._archives.put(
            _id(context),
            _path(context),
            context.body,
            no_overwrite=context.flag("noOverwriteDirNonDir"),
            copy_owner=context.flag("copyUIDGID"),
        )
        return empty(200)


def _id(context: Context) -> str:
    return context.parameters["id"]


def _path(context: Context) -> str:
    path = context.text("path")
    if not path:
        raise InvalidArgument("Bad parameter: the path must be given")
    return path


def _tail(text: str) -> int | None:
    if text in ("", "all"):
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number >= 0 else None


def _stop_options(context: Context) -> dict[str, Any]:
    timeout = context.number("t")
    return {
        "signal": context.text("signal") or None,
        "timeout_s": None if timeout is None else float(timeout),
    }


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


def _stat_header(stat: dict[str, Any]) -> dict[str, str]:
    encoded = base64.b64encode(msgspec.json.encode(stat)).decode()
    return {"X-Docker-Container-Path-Stat": encoded, "Content-Type": _TAR}


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


async def _first(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Takes the first piece now, so that an error is still an HTTP status."""
    try:
        head = await anext(pieces)
    except StopAsyncIteration:
        head = None

    async def rest() -> AsyncIterator[Any]:
        if head is not None:
            yield head
        async for piece in pieces:
            yield piece

    return rest()
