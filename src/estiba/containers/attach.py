"""Attached clients of one container: every one sees all output, none can hold it back.

The monitor waits for a reader that does not read, and with it the container. So the hub
always reads; what a client does not take at once goes to memory, then to the disk, and a
client too far behind is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from estiba.containers.spill import Spill
from estiba.kernel.blocking import run_blocking

_log = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 1 << 20
MAX_SPILL_BYTES = 1 << 30

Chunk = tuple[int, bytes]


class Console(Protocol):
    """The container's side: what the monitor offers while the container runs."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def close(self) -> None: ...


class SpillQueue:
    """A queue of output with bounded memory; put by one task, taken by another."""

    def __init__(self, directory: Path) -> None:
        self._memory: deque[Chunk] = deque()
        self._memory_bytes = 0
        self._spill = Spill(directory)
        self._closed = False
        self._discarded = False
        self._changed = asyncio.Event()
        self._lock = threading.Lock()
        """Held in the threads that use the file: a cancelled reader's call runs to its end."""

    async def put(self, chunk: Chunk) -> bool:
        """Adds a chunk; False when the reader must be dropped.

        It is so far behind, or there is no room on the disk for what it has not read.
        """
        if self._closed:
            return True
        if self._spill.is_empty and self._memory_bytes + len(chunk[1]) <= MAX_MEMORY_BYTES:
            self._memory.append(chunk)
            self._memory_bytes += len(chunk[1])
        elif self._spill.unread_bytes > MAX_SPILL_BYTES:
            return False
        else:
            try:
                await run_blocking(self._append, chunk)
            except OSError as error:
                _log.warning("an attached client is dropped, its output has no room: %s", error)
                return False
        self._changed.set()
        return True

    async def take(self) -> list[Chunk]:
        """The next chunks, oldest first; empty when the queue is closed and drained."""
        while True:
            if self._memory:
                chunks = list(self._memory)
                self._memory.clear()
                self._memory_bytes = 0
                return chunks
            if not self._spill.is_empty:
                chunk = await run_blocking(self._next)
                if chunk is not None:
                    return [chunk]
            if self._closed:
                return []
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        """No more chunks will come."""
        self._closed = True
        self._changed.set()

    def discard(self) -> None:
        """Frees everything; what was not taken is lost."""
        self.end()
        self._discarded = True
        self._memory.clear()
        if self._lock.acquire(blocking=False):
            try:
                self._spill.close()
            finally:
                self._lock.release()

    def _append(self, chunk: Chunk) -> None:
        with self._lock:
            if self._discarded:
                return
            self._spill.append(*chunk)
            if self._discarded:
                self._spill.close()

    def _next(self) -> Chunk | None:
        with self._lock:
            if self._discarded:
                self._spill.close()
            return self._spill.next()


class AttachClient:
    """One attached client; iterate it for output, write to the hub for input."""

    def __init__(self, queue: SpillQueue, *, stdout: bool, stderr: bool) -> None:
        self.queue = queue
        self._streams = {1: stdout, 2: stderr}

    def wants(self, stream: int) -> bool:
        return self._streams.get(stream, False)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while chunks := await self.queue.take():
            for chunk in chunks:
                yield chunk


class AttachHub:
    """Fans one container's output out to its clients and gathers their input."""

    def __init__(self, spill_directory: Path) -> None:
        self._directory = spill_directory
        self._clients: set[AttachClient] = set()
        self._console: Console | None = None
        self._console_ready = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def has_clients(self) -> bool:
        return bool(self._clients)

    @property
    def is_connected(self) -> bool:
        return self._console is not None

    def join(self, *, stdout: bool, stderr: bool) -> AttachClient:
        """A new client, which sees all output from now on."""
        client = AttachClient(SpillQueue(self._directory), stdout=stdout, stderr=stderr)
        self._clients.add(client)
        return client

    def leave(self, client: AttachClient) -> None:
        self._clients.discard(client)
        client.queue.discard()

    def connect(self, console: Console, *, name: str) -> None:
        """Starts to read `console`; it ends with the container."""
        self._console = console
        self._console_ready.set()
        self._pump = asyncio.create_task(self._run(console), name=f"attach {name}")

    async def write_stdin(self, data: bytes) -> None:
        """Input from a client; waits for the container to run and to take it."""
        await self._console_ready.wait()
        if self._console is not None:
            await self._console.write_stdin(data)

    async def close_stdin(self) -> None:
        await self._console_ready.wait()
        if self._console is not None:
            await self._console.close_stdin()

    async def finish(self) -> None:
        """Waits until all output was handed to the clients' queues; then they end."""
        if self._pump is not None:
            await asyncio.gather(self._pump, return_exceptions=True)
        self.end_clients()

    def end_clients(self) -> None:
        for client in self._clients:
            client.queue.end()
        self._clients.clear()

    async def close(self) -> None:
        """Lets go of the container without waiting for its output."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self.end_clients()

    async def _run(self, console: Console) -> None:
        try:
            async for chunk in console:
                for client in list(self._clients):
                    if client.wants(chunk[0]) and not await client.queue.put(chunk):
                        client.queue.end()
                        self._clients.discard(client)
        except OSError as error:
            _log.warning("the output of a container broke off: %s", error)
        finally:
            self._console = None
            self._console_ready.clear()
            await console.close()
