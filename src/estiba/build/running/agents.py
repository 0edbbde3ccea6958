"""The ssh agent of a build's client in a step: a socket whose connections are carried to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from pathlib import Path

from estiba.build.ports import ConnectAgent, SshMount
from estiba.model.errors import EstibaError

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 32
_CONNECT_S = 30.0
_LAST_ANSWER_S = 10.0
_CHUNK_BYTES = 1 << 16
_PAUSE_S = 0.5
"""While the engine has no descriptor left."""


class AgentSocket:
    """Listens at `path` from the beginning until `close`. Belongs to the event loop."""

    def __init__(self, mount: SshMount, path: Path) -> None:
        self._connect: ConnectAgent = mount.connect
        self._connections: set[asyncio.Task[None]] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(path)
            os.chown(path, mount.uid, mount.gid)
            path.chmod(mount.mode)
            self._listener.listen(_MAX_CONNECTIONS)
            self._listener.setblocking(False)
        except BaseException:
            self._listener.close()
            raise
        self._accepting = asyncio.create_task(self._accept(), name="build: ssh agent")

    def _bind(self, path: Path) -> None:
        """By its directory's descriptor: an address has room for 108 bytes only (unix(7))."""
        fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{fd}/{path.name}")
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Hangs up on everybody."""
        tasks = [self._accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                _log.warning("an agent's connection is taken later: %s", error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._connections) >= _MAX_CONNECTIONS:
                client.close()
                continue
            task = asyncio.create_task(self._serve(client), name="build: agent connection")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, client: socket.socket) -> None:
        with client:
            client.setblocking(False)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    fd, done = await self._connect()
            except (EstibaError, OSError, TimeoutError) as error:
                _log.warning("the client's ssh agent cannot be reached: %s", error)
                return
            try:
                with socket.socket(fileno=os.dup(fd)) as agent:
                    agent.setblocking(False)
                    await _carry(client, agent)
                    with contextlib.suppress(OSError):
                        agent.shutdown(socket.SHUT_RDWR)
            finally:
                done()


async def _carry(client: socket.socket, agent: socket.socket) -> None:
    """Both ways, until the agent has no more to say or the client is gone."""
    asking = asyncio.create_task(_pump(client, agent))
    answering = asyncio.create_task(_pump(agent, client))
    try:
        await asyncio.wait([asking, answering], return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and not _is_gone(client):
            # It has only ended its side, and waits for the answer.
            with contextlib.suppress(OSError):
                agent.shutdown(socket.SHUT_WR)
            await asyncio.wait([answering], timeout=_LAST_ANSWER_S)
    finally:
        asking.cancel()
        answering.cancel()
        await asyncio.gather(asking, answering, return_exceptions=True)


def _is_gone(peer: socket.socket) -> bool:
    """Whether the other end is closed in both directions."""
    poll = select.poll()
    poll.register(peer, 0)
    return bool(poll.poll(0))


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, _CHUNK_BYTES):
            await loop.sock_sendall(target, data)
