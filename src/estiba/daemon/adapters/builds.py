"""Builds for the routes: the classic stream and that of `estiba build`, prune, what was put out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from estiba.api.build_ports import BuildOptions
from estiba.api.streams import ClientStream
from estiba.build import progress
from estiba.build.builder import Builder, Finished
from estiba.build.cache import Cache
from estiba.build.classic import ClassicStream, tagged
from estiba.build.dockerfile.errors import DockerfileError, excerpt
from estiba.build.dockerfile.instructions import Dockerfile
from estiba.build.dockerfile.parser import parse
from estiba.build.effects import finished as to_its_end
from estiba.build.effects import settled
from estiba.build.exchange import Elsewhere, Exchange, ForClient
from estiba.build.failure import StepFailed
from estiba.build.prune import PruneOptions
from estiba.build.pruner import Pruner
from estiba.build.request import BuildRequest
from estiba.build.underway import UnderWay
from estiba.daemon.adapters.bridging import iterate
from estiba.daemon.adapters.build_agents import Agents
from estiba.daemon.adapters.build_inputs import Inputs
from estiba.daemon.adapters.image_filters import Filters
from estiba.distribution.cancel import CancelToken
from estiba.http1 import Body
from estiba.http1.uploads import Upload
from estiba.images import removal
from estiba.kernel.blocking import run_apart, run_blocking, start_blocking, start_clearing
from estiba.kernel.trees import discard_tree
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.event import EventType, prune_event
from estiba.model.ids import new_id
from estiba.storage.tar import Source

Json = dict[str, Any]
Read = Callable[[Source, CancelToken], BuildRequest]
_MAX_WAITING_BYTES = 32 << 20
"""Of what steps print, for a client that does not read; more is left out."""

_LEFT_OUT = b"\n[output left out: the client reads too slowly]\n"

_LIFETIME_S = 600.0
"""How long an output waits for its client."""


@dataclass(frozen=True, slots=True)
class _Output:
    make: Callable[[], Iterator[bytes]]
    close: Callable[[], None]
    made_s: float


@dataclass(slots=True)
class Builds:
    """`api.ports.Builds`."""

    builder: Builder
    cache: Cache
    elsewhere: Elsewhere
    inputs: Inputs
    pruner: Pruner
    work: Path
    under_way: UnderWay
    agents: Agents = field(default_factory=Agents)
    _outputs: dict[str, _Output] = field(default_factory=dict)

    # -- the classic form ------------------------------------------------------------------

    async def build(
        self, body: Body, options: BuildOptions, registries: str
    ) -> AsyncIterator[Json]:
        work = await run_blocking(self._make_work)
        try:
            request = await self._received(
                body,
                lambda source, cancel: self.inputs.classic(
                    source, options, registries, work, cancel
                ),
            )
            if options.cache_from and not self._any_is_here(options.cache_from):
                # The classic builder then looks nowhere else.
                request = replace(request, ignored_stages=None)
            stream = ClassicStream(is_quiet=options.quiet)
            async with contextlib.aclosing(self._built(request, stream)) as lines:
                async for line in lines:
                    yield line
        finally:
            # Nobody need wait until a large context is gone.
            start_clearing(discard_tree, work)

    def _any_is_here(self, names: list[str]) -> bool:
        for name in names:
            with contextlib.suppress(NotFound, InvalidArgument):
                self.elsewhere.images.resolve(name)
                return True
        return False

    async def _built(
        self, request: BuildRequest, stream: ClassicStream
    ) -> AsyncGenerator[Json, None]:
        run = _Run(self, request)
        try:
            async with contextlib.aclosing(run.events()) as events:
                async for event in events:
                    for line in stream.feed(event):
                        yield line
            result = run.result()
        except StepFailed as error:
            for line in stream.failed(error.failure.state):
                yield line
            code = error.failure.exit_code
            detail: Json = {"message": str(error)}
            if code is not None:
                detail["code"] = code
            yield {"errorDetail": detail, "error": str(error)}
            return
        for line in stream.closing(result.built[-1].image):
            yield line
        for tag in request.tags if not stream.is_quiet else ():
            yield tagged(tag.familiar)

    # -- the form of `estiba build` --------------------------------------------------------

    async def build_bundle(self, body: Body, registries: str) -> AsyncIterator[Json]:
        work = await run_blocking(self._make_work)
        sessions: list[str] = []

        def open_agents(session: str, names: list[str]) -> Any:
            loop_agents = self.agents.open(session, names)
            sessions.append(session)
            return loop_agents

        try:
            request = await self._received(
                body,
                lambda source, cancel: self.inputs.bundle(
                    source, registries, work, open_agents, cancel
                ),
            )
            async with contextlib.aclosing(self._told(request)) as lines:
                async for line in lines:
                    yield line
        finally:
            for session in sessions:
                self.agents.close(session)
            # Nobody need wait until a large context is gone.
            start_clearing(discard_tree, work)

    async def _told(self, request: BuildRequest) -> AsyncGenerator[Json, None]:
        run = _Run(self, request)
        texts = progress.Texts()
        try:
            async with contextlib.aclosing(run.events()) as events:
                async for event in events:
                    if isinstance(event, progress.Noticed) or not event.vertex.is_silent:
                        yield progress.as_json(event, texts)
            view = run.view()
        except (DockerfileError, StepFailed) as error:
            yield _failed(error, request)
            return
        finally:
            await run.drop()
        yield {"result": view}

    async def output(self, token: str) -> AsyncIterator[bytes]:
        self._forget_old()
        found = self._outputs.pop(token, None)
        if found is None:
            raise NotFound("no such output: each is given once, within ten minutes of its build")
        given = self._given(found)
        # Closed before it has begun, it would give nothing back.
        await anext(given)
        return given

    async def _given(self, output: _Output) -> AsyncIterator[bytes]:
        try:
            yield b""
            async with contextlib.aclosing(iterate(output.make())) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await run_blocking(output.close)

    def keep_output(self, wanted: ForClient) -> str:
        """The token that the client fetches it with. What it stands on stays until then."""
        self._forget_old()
        token = new_id()[:32]
        self.elsewhere.images.leases.take(wanted.needs)
        self._outputs[token] = _Output(
            wanted.make, partial(self._give_back, wanted), time.monotonic()
        )
        asyncio.get_running_loop().call_later(_LIFETIME_S + 1, self._forget_old)
        return token

    def _give_back(self, wanted: ForClient) -> None:
        """Also what only the output needed. Blocks."""
        self.elsewhere.images.leases.release(wanted.needs)
        removal.collect(self.elsewhere.images)

    def _forget_old(self) -> None:
        limit = time.monotonic() - _LIFETIME_S
        for token, output in list(self._outputs.items()):
            if output.made_s < limit:
                del self._outputs[token]
                start_blocking(output.close)

    # -- agents, prune ---------------------------------------------------------------------

    def check_agent(self, session: str) -> None:
        self.agents.check(session)

    async def agent(self, session: str, name: str, stream: ClientStream) -> None:
        await self.agents.offer(session, name, stream)

    async def prune(
        self,
        *,
        everything: bool,
        filters: Filters,
        reserved_bytes: int | None,
        max_used_bytes: int | None,
        min_free_bytes: int | None,
    ) -> Json:
        options = PruneOptions(
            everything=everything,
            filters=filters,
            reserved_bytes=reserved_bytes,
            max_used_bytes=max_used_bytes,
            min_free_bytes=min_free_bytes,
        )
        gone, freed = await self.pruner.prune(options)
        event = prune_event(EventType.BUILDER, freed)
        await self.elsewhere.images.store.commit(lambda tx: tx.add_event(event))
        return {"CachesDeleted": [record.id for record in gone] or None, "SpaceReclaimed": freed}

    # -- small things ----------------------------------------------------------------------

    def _make_work(self) -> Path:
        work = self.work / f"build-{new_id()[:16]}"
        work.mkdir(mode=0o700, parents=True)
        return work

    async def _received(self, body: Body, read: Read) -> BuildRequest:
        """A client that leaves ends it; the thread is gone then, and writes nothing any more."""
        source, cancel = Upload(body), CancelToken()
        task = asyncio.ensure_future(run_apart(read, source, cancel))
        is_open = True
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancel.cancel()
            source.close()
            is_open = False
            await to_its_end(asyncio.wait([task]))
            if not task.cancelled():
                task.exception()  # nobody else will look
            raise
        finally:
            if is_open:
                source.close()


class _Run:
    """One build as a stream of events, ended when its reader leaves."""

    def __init__(self, builds: Builds, request: BuildRequest) -> None:
        """Raises InvalidArgument for outputs and caches that cannot be."""
        self._builds = builds
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[progress.Event | None] = asyncio.Queue()
        self._exchange = Exchange(builds.elsewhere, request, self._tell)
        self._task: asyncio.Task[Finished] | None = None
        self._warnings = 0
        self._waiting_bytes = 0
        self._is_clipped = False

    async def events(self) -> AsyncGenerator[progress.Event, None]:
        """Raises what the build raises, after its last event."""
        dockerfile = await run_blocking(parse, self._request.dockerfile)
        self._task = self._builds.under_way.start(self._work(dockerfile))
        self._task.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (event := await self._queue.get()) is not None:
                if isinstance(event, progress.Log):
                    self._waiting_bytes -= _size(event)
                yield event
        finally:
            if not self._task.done():
                self._task.cancel()
                await to_its_end(asyncio.wait([self._task]))
        self._task.result()

    async def _work(self, dockerfile: Dockerfile) -> Finished:
        builds, request = self._builds, self._request
        if request.checks_only:
            await builds.builder.check(request, dockerfile, self._tell)
            return Finished()
        with builds.cache.session() as session:
            finished = await builds.builder.build(
                request, dockerfile, self._tell, session, self._exchange
            )
        if not finished.passing:
            self._loop.call_soon(builds.pruner.start_collection)
        return finished

    def _tell(self, event: progress.Event) -> None:
        self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: progress.Event) -> None:
        self._warnings += isinstance(event, progress.Noticed)
        if isinstance(event, progress.Log):
            is_over = self._waiting_bytes > _MAX_WAITING_BYTES
            if is_over and self._is_clipped:
                return
            if is_over:
                event = replace(event, data=_LEFT_OUT)
            self._is_clipped = is_over
            self._waiting_bytes += _size(event)
        self._queue.put_nowait(event)

    def result(self) -> Finished:
        return self._task.result() if self._task is not None else Finished()

    async def drop(self) -> None:
        """The images that were made only to be put out."""
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.exception():
            return
        if passing := task.result().passing:
            await settled(self._builds.builder.tools.passing.drop, passing)
            # Until now their layers were no part of the cache alone.
            self._builds.pruner.start_collection()

    def view(self) -> Json:
        """The last line for `estiba build`."""
        result = self.result()
        image = result.built[0].image.id if result.built else ""
        tags = [tag.familiar for tag in self._request.tags]
        metadata: Json = {"containerimage.config.digest": image} if image else {}
        if result.pushed:
            metadata["containerimage.digest"] = result.pushed[-1][1]
        if tags:
            metadata["image.name"] = ",".join(tags)
        return {
            "image": image,
            "tags": tags,
            "metadata": metadata,
            "outputs": [
                {
                    "index": one.index,
                    "type": one.type,
                    "token": self._builds.keep_output(one),
                }
                for one in result.for_client
            ],
            "warnings": self._warnings,
        }


def _size(event: progress.Log) -> int:
    """In memory, where many short ones cost more than their text."""
    return len(event.data) + 500


def _failed(error: DockerfileError | StepFailed, request: BuildRequest) -> Json:
    span = error.failure.span if isinstance(error, StepFailed) else error.span
    text = request.dockerfile.decode(errors="replace")
    failed: Json = {
        "excerpt": excerpt(text, span),
        "line": span.start.line,
        "end_line": span.end.line,
        "column": span.start.column,
        "vertex": 0,
        "exit_code": None,
        "output": "",
        "state": "",
    }
    if isinstance(error, StepFailed):
        failure = error.failure
        failed |= {
            "vertex": failure.vertex.id,
            "exit_code": failure.exit_code,
            "output": failure.output,
            "state": failure.state,
        }
    return {"error": str(error), "errorDetail": {"message": str(error)}, "failed": failed}
