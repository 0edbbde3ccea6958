"""Connections to clients' ssh agents, lent to RUN steps one by one.

A client keeps a spare connection open; a step that asks takes it, and the client opens the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from estiba.api.streams import ClientStream
from estiba.model.errors import AlreadyExists, NotFound, Unavailable

_PATIENCE_S = 15.0
_CHUNK_BYTES = 1 << 16

Lent = tuple[int, Callable[[], None]]


@dataclass(slots=True)
class _Offer:
    stream: ClientStream
    done: asyncio.Future[None]
    taken: asyncio.Future[socket.socket]


@dataclass(slots=True)
class Agents:
    """All of an engine; a session is a build's."""

    _sessions: dict[str, dict[str, asyncio.Queue[_Offer]]] = field(default_factory=dict)

    def open(self, session: str, names: list[str]) -> dict[str, Callable[[], Awaitable[Lent]]]:
        """How the steps of a build connect, by the agent's name. Raises AlreadyExists."""
        if session in self._sessions:
            raise AlreadyExists("another build has this session: choose a random one")
        queues: dict[str, asyncio.Queue[_Offer]] = {name: asyncio.Queue() for name in names}
        self._sessions[session] = queues
        return {name: partial(_connect, queue) for name, queue in queues.items()}

    def close(self, session: str) -> None:
        """Lets all spare connections go."""
        for queue in self._sessions.pop(session, {}).values():
            while not queue.empty():
                offer = queue.get_nowait()
                if not offer.done.done():
                    offer.done.set_result(None)

    def check(self, session: str) -> None:
        if session not in self._sessions:
            raise NotFound(f"no build has the session {session[:64]!r}")

    async def offer(self, session: str, name: str, stream: ClientStream) -> None:
        """Holds the connection until a step took it and is done with it."""
        queue = self._sessions.get(session, {}).get(name or "default")
        if queue is None:
            return
        loop = asyncio.get_running_loop()
        offer = _Offer(stream, loop.create_future(), loop.create_future())
        queue.put_nowait(offer)
        gone = asyncio.ensure_future(stream.wait_gone())
        waits: list[asyncio.Future[object]] = [gone, offer.done, offer.taken]  # type: ignore[list-item]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if offer.taken.done():
                await _pump(stream, offer.taken.result())
        finally:
            gone.cancel()
            if not offer.done.done():
                offer.done.set_result(None)


async def _connect(queue: asyncio.Queue[_Offer]) -> Lent:
    """Raises Unavailable when the client offers no connection."""
    while True:
        try:
            offer = await asyncio.wait_for(queue.get(), _PATIENCE_S)
        except TimeoutError:
            raise Unavailable("the client's ssh agent did not answer") from None
        if not offer.done.done():
            break
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    offer.taken.set_result(ours)

    def done() -> None:
        theirs.close()
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)

    return theirs.fileno(), done


async def _pump(stream: ClientStream, end: socket.socket) -> None:
    """Copies both ways until one side ends."""
    loop = asyncio.get_running_loop()

    async def inwards() -> None:
        while data := await stream.read():
            await loop.sock_sendall(end, data)

    async def outwards() -> None:
        while data := await loop.sock_recv(end, _CHUNK_BYTES):
            await stream.write(1, data)

    ways = [asyncio.ensure_future(inwards()), asyncio.ensure_future(outwards())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        end.close()
