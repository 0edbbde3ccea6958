"""`build.ports.Executor` on the real kernel: RUN in the engine's sandbox, without a monitor.

Nothing of a run outlives it; of an engine that died in the middle the next one sweeps what is left.
"""

from __future__ import annotations

import logging
import posixpath
from contextlib import nullcontext
from dataclasses import replace

from estiba.build.effects import settled
from estiba.build.ports import CacheMount, Output, RunEnd, RunRequest, Waiting
from estiba.build.running.cache_mounts import CacheMounts
from estiba.build.running.ending import end_run
from estiba.build.running.request import check_request
from estiba.build.running.run import Engine, Run
from estiba.build.running.sandbox import Sandbox
from estiba.kernel.cgroup_moves import expect_move
from estiba.kernel.trees import discard_tree
from estiba.model.errors import Conflict
from estiba.model.ids import short

_log = logging.getLogger(__name__)


class KernelExecutor:
    """Made once an engine: `sweep` first, then any number of `run` at once."""

    def __init__(self, engine: Engine, caches: CacheMounts) -> None:
        self._engine = engine
        self._caches = caches
        self._under_way: set[str] = set()

    async def run(
        self, request: RunRequest, output: Output, waiting: Waiting = nullcontext
    ) -> RunEnd:
        """Runs it to its end. A cancelled caller ends it; nothing is left in either case.

        Raises CommandNotFound, CommandNotExecutable, InvalidArgument, NotFound for a network,
        Conflict for an id that runs, Unavailable, Internal.
        """
        check_request(request)
        request = replace(request, cwd=posixpath.normpath(posixpath.join("/", request.cwd)))
        run = Run(self._engine, request)
        if request.id in self._under_way:
            raise Conflict(f"the step {short(request.id)} runs already")
        self._under_way.add(request.id)
        try:
            wanted = [each for each in request.mounts if isinstance(each, CacheMount)]
            async with self._caches.held(wanted, waiting) as caches:
                expect_move()
                return await run.perform(caches, output)
        finally:
            self._under_way.discard(request.id)

    async def sweep(self) -> None:
        """Ends and removes what runs of an earlier engine left; harmless twice."""
        places = self._engine.places
        places.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in sorted(places.runs.iterdir()):
            try:
                await self._sweep_one(entry.name)
            except (OSError, TimeoutError):
                _log.exception("build step %s: left for the next start", short(entry.name))
        await settled(discard_tree, places.scratches)

    async def _sweep_one(self, run_id: str) -> None:
        engine, sandbox = self._engine, Sandbox(self._engine.places, run_id)
        group = sandbox.group()
        runtime = engine.runtime_of(sandbox)
        await end_run(runtime, engine.hierarchies, sandbox, run_id, group)
        await settled(engine.networks.close_sandbox, run_id)
        if group:
            await settled(engine.hierarchies.remove, group)
        await settled(sandbox.remove)
        _log.info("build step %s of an earlier engine is swept", short(run_id))
