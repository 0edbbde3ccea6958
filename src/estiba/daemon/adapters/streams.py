"""Attach for the routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from estiba.api.ports import AttachOptions
from estiba.api.streams import ClientStream
from estiba.containers import logs
from estiba.containers.actor import Actor
from estiba.containers.attach import Chunk
from estiba.containers.engine import Engine
from estiba.containers.ports import Paths
from estiba.model.detach_keys import DEFAULT, DetachScanner, parse_keys
from estiba.model.errors import Conflict, EstibaError
from estiba.model.state import ContainerState

_LAST_INPUT_S = 5.0


@dataclass(slots=True)
class ContainerStreams:
    """`api.ports.ContainerStreams`."""

    engine: Engine
    paths: Paths

    async def has_tty(self, ref: str) -> bool:
        return self.engine.find(ref).record.config.tty

    async def check_attach(self, ref: str, options: AttachOptions) -> None:
        record = self.engine.find(ref).record
        parse_keys(options.detach_keys or DEFAULT)
        if record.state == ContainerState.PAUSED:
            raise Conflict(
                f"container {record.name} is paused, unpause the container before attach"
            )

    async def attach(self, ref: str, options: AttachOptions, stream: ClientStream) -> None:
        actor = self.engine.find(ref)
        if not options.stream:
            if options.logs:
                await self._replay(actor, options, stream)
            return
        # Of a run that goes on the log has it all: followed, it neither repeats nor misses a line.
        record = actor.record
        has_log = record.host_config.log_config.type != "none"
        from_log = options.logs and has_log and record.state.is_up
        client = actor.runs.hub.join(
            stdout=options.stdout and not from_log, stderr=options.stderr and not from_log
        )
        try:
            if options.logs and not from_log:
                await self._replay(actor, options, stream)
            await self._connect(actor)
            await actor.announce("attach")
            output = self._log(actor, options, follow=True) if from_log else client
            await self._pump(actor, options, stream, output)
        finally:
            actor.runs.hub.leave(client)

    async def _connect(self, actor: Actor) -> None:
        """Joins a container that runs; one that does not is waited for."""
        if actor.record.state.is_up and not actor.runs.hub.is_connected:
            with contextlib.suppress(EstibaError):
                console = await self.engine.world.steps.open_console(actor.record)
                if actor.runs.hub.is_connected:
                    await console.close()
                else:
                    actor.runs.hub.connect(console, name=actor.record.name)

    async def _replay(self, actor: Actor, options: AttachOptions, stream: ClientStream) -> None:
        async for number, data in self._log(actor, options, follow=False):
            await stream.write(number, data)

    def _log(self, actor: Actor, options: AttachOptions, *, follow: bool) -> AsyncIterator[Chunk]:
        query = logs.LogQuery(stdout=options.stdout, stderr=options.stderr, follow=follow)
        return logs.read_log(self.paths.log(actor.record.id), query, actor.runs.ended)

    async def _pump(
        self,
        actor: Actor,
        options: AttachOptions,
        stream: ClientStream,
        chunks: AsyncIterable[Chunk],
    ) -> None:
        """Until the output ends, the client leaves, or it types the detach keys."""

        async def output() -> None:
            async for number, data in chunks:
                await stream.write(number, data)

        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(output(), name="attach output")]
        tasks.append(asyncio.create_task(stream.wait_gone(), name="attach gone"))
        if options.stdin and actor.record.config.open_stdin:
            tasks.append(
                asyncio.create_task(self._input(actor, options, stream), name="attach input")
            )
        try:
            while True:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finished = done.pop()
                if finished.get_name() == "attach gone":
                    await take_last_input(tasks)
                if finished.get_name() != "attach input" or finished.exception():
                    break
                if finished.result():
                    await actor.announce("detach")
                    break
                tasks.remove(finished)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _input(self, actor: Actor, options: AttachOptions, stream: ClientStream) -> bool:
        """True when the user detached; at the end of input the program's is closed."""
        keys = parse_keys(options.detach_keys or DEFAULT) if actor.record.config.tty else b""
        scanner = DetachScanner(keys)
        while data := await stream.read():
            passed, detached = scanner.feed(data)
            if passed:
                await actor.runs.hub.write_stdin(passed)
            if detached:
                return True
        if actor.record.config.stdin_once and not actor.record.config.tty:
            await actor.runs.hub.close_stdin()
        return False


async def take_last_input(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Lets the program have what its client sent before it went, if it takes it soon."""
    inputs = [task for task in tasks if task.get_name().endswith(" input")]
    if inputs:
        await asyncio.wait(inputs, timeout=_LAST_INPUT_S)
