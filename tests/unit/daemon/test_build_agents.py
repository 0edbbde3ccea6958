"""Connections to a client's ssh agent, lent to steps."""

from __future__ import annotations

import asyncio
import os
import socket

from estiba.daemon.adapters.build_agents import Agents


class Spare:
    """A client's connection whose agent says back what it is told."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._asked.get()

    async def write(self, stream: int, data: bytes) -> None:
        assert (stream, data) == (1, b"question")
        self._asked.put_nowait(b"answer")

    async def wait_gone(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_a_step_leaves_no_descriptor_behind() -> None:
    agents = Agents()
    connect = agents.open("session", ["default"])["default"]
    before = set(os.listdir("/proc/self/fd"))
    offering = asyncio.create_task(agents.offer("session", "", Spare()))
    descriptor, done = await connect()
    with socket.socket(fileno=os.dup(descriptor)) as agent:
        agent.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(agent, b"question")
        async with asyncio.timeout(10):
            assert await loop.sock_recv(agent, 100) == b"answer"
    done()
    async with asyncio.timeout(10):
        await offering
    assert set(os.listdir("/proc/self/fd")) == before
    agents.close("session")
