"""The runtime as a child with pipes: its output passed on as it comes, its end awaited."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
from collections.abc import Sequence
from typing import Any

from estiba.build.ports import Output as Sink
from estiba.build.progress import STDERR, STDOUT
from estiba.kernel import spawn
from estiba.runtime.streams import Input, Output

_PIPE_BYTES = 1 << 18
_DRAIN_S = 2.0


class Program:
    """One running program and this side of its streams. `follow` it, then `close`."""

    def __init__(self, command: Sequence[str], stdin: bytes) -> None:
        """Starts it. Raises OSError when it cannot be executed."""
        self.child = spawn.start(
            command,
            stdin=spawn.PIPE if stdin else spawn.DEVNULL,
            stdout=spawn.PIPE,
            stderr=spawn.PIPE,
            new_session=True,
        )
        wanted, stdout, stderr = self.child.take_pipes()
        assert stdout is not None
        assert stderr is not None
        # Wide pipes mean few wake-ups. A user over the kernel's limit keeps 64 KiB.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._output = Output({STDOUT: stdout, STDERR: stderr})
        self._input = Input(wanted) if wanted is not None else None
        self._stdin = stdin

    async def follow(self, sink: Sink) -> int:
        """Passes the output on until the program has ended; returns its exit code.

        What it left behind may hold a stream open no longer than a moment. Cancelling it leaves
        the program running.
        """
        ended = asyncio.create_task(self.child.wait(), name="build: program")
        ended.add_done_callback(lambda _: self._output.interrupt())
        tasks: list[asyncio.Task[Any]] = [ended]
        if self._input is not None:
            tasks.append(asyncio.create_task(self._feed(self._input), name="build: stdin"))
        try:
            await self._pass_on(sink, ended)
            code = await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return code if code >= 0 else 128 - code

    async def _pass_on(self, sink: Sink, ended: asyncio.Task[int]) -> None:
        deadline = None
        while not self._output.is_finished:
            if ended.done() and deadline is None:
                deadline = time.monotonic() + _DRAIN_S
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            for stream, data in await self._output.read(patience_s=left_s):
                sink(stream, data)
            # A read that has something at once does not suspend: others have their turn.
            await asyncio.sleep(0)

    async def _feed(self, target: Input) -> None:
        await target.write(self._stdin)
        await target.finish()

    def close(self) -> None:
        self._output.close()
        if self._input is not None:
            self._input.close()
