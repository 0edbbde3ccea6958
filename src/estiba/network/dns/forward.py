"""Asking servers outside: the next one when one is silent or refuses, the first good answer wins.

Each try has a socket of its own, so a source port that the kernel picks at random, and a random
id; what does not come from the server, bear the id and repeat the question is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from estiba.network.dns.message import (
    MIN_UDP_SIZE,
    Answer,
    Malformed,
    Rcode,
    is_fitting_error,
    parse_answer,
)
from estiba.network.dns.upstream import Upstream

DEADLINE_S = 4.5
"""Clients wait 5 s: they must hear of the failure before they ask again."""

_LONGEST_WAIT_S = 1.5
_SHORTEST_WAIT_S = 0.4
_SHUNNED_S = 20.0
_MAX_STRANGERS = 100
_LENGTH = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent on. The id in `data` is replaced; `limit` is what the client can take."""

    data: bytes
    question: bytes
    limit: int
    tcp: bool = False


OpenSocket = Callable[[Upstream, int], socket.socket]
"""(server, SOCK_DGRAM or SOCK_STREAM) → a socket that does not block, connected or about to be."""


class Forwarder:
    """Asks; one for each container, for a server may be out of reach of one only."""

    def __init__(self, open_socket: OpenSocket) -> None:
        self._open = open_socket
        self._shunned: dict[Upstream, float] = {}

    async def ask(
        self, servers: Sequence[Upstream], message: Message
    ) -> tuple[Answer, Upstream] | None:
        """The answer and whose it is; a server's refusal if all refuse; None when none answers in
        time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        wait_s = wait_between(len(servers))
        tries = self._tries(servers)
        running: dict[asyncio.Task[Answer], Upstream] = {}
        refusal: tuple[Answer, Upstream] | None = None
        spent: set[Upstream] = set()
        try:
            while (left_s := deadline - loop.time()) > 0:
                server = next((each for each in tries if each not in spent), None)
                if server is not None:
                    task = loop.create_task(self._exchange(server, message))
                    # Of two that end at once one may never be looked at.
                    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                    running[task] = server
                elif not running:
                    break
                done, _ = await asyncio.wait(
                    running,
                    timeout=left_s if server is None else min(wait_s, left_s),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    server = running.pop(task)
                    # Only the silent ones are asked again.
                    spent.add(server)
                    answer = self._settle(server, task)
                    if answer is None:
                        continue
                    if answer.rcode not in (Rcode.SERVFAIL, Rcode.REFUSED):
                        self._shun(running.values())
                        return answer, server
                    refusal = answer, server
            self._shun(running.values())
        finally:
            for task in running:
                task.cancel()
        return refusal

    def _tries(self, servers: Sequence[Upstream]) -> Iterator[Upstream]:
        """Those that were silent lately come last; each is asked again while time is left."""
        now = time.monotonic()
        ranked = sorted(servers, key=lambda server: self._shunned.get(server, 0.0) > now)
        for _ in range(3 if len(servers) == 1 else 2):
            yield from ranked

    def _settle(self, server: Upstream, task: asyncio.Task[Answer]) -> Answer | None:
        try:
            answer = task.result()
        except (OSError, Malformed, asyncio.IncompleteReadError):
            self._shun([server])
            return None
        self._shunned.pop(server, None)
        return answer

    def _shun(self, servers: Iterable[Upstream]) -> None:
        until = time.monotonic() + _SHUNNED_S
        self._shunned.update(dict.fromkeys(servers, until))

    async def _exchange(self, server: Upstream, message: Message) -> Answer:
        if message.tcp:
            return await self._by_stream(server, message)
        answer = await self._by_datagram(server, message)
        if answer.truncated and message.limit > MIN_UDP_SIZE:
            # The client can take more than the server puts in a datagram.
            with contextlib.suppress(OSError, Malformed, asyncio.IncompleteReadError):
                whole = await self._by_stream(server, message)
                if len(whole.data) <= message.limit:
                    return whole
        return answer

    async def _by_datagram(self, server: Upstream, message: Message) -> Answer:
        loop = asyncio.get_running_loop()
        identity = secrets.token_bytes(2)
        with self._open(server, socket.SOCK_DGRAM) as handle:
            handle.send(identity + message.data[2:])
            for _ in range(_MAX_STRANGERS):
                data = await loop.sock_recv(handle, 65535)
                with contextlib.suppress(Malformed):
                    return _read(data, identity, message.question)
        raise Malformed

    async def _by_stream(self, server: Upstream, message: Message) -> Answer:
        identity = secrets.token_bytes(2)
        handle = self._open(server, socket.SOCK_STREAM)
        try:
            reader, writer = await asyncio.open_connection(sock=await _connected(handle))
        except BaseException:
            handle.close()
            raise
        try:
            writer.write(_LENGTH.pack(len(message.data)) + identity + message.data[2:])
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            return _read(await reader.readexactly(length), identity, message.question)
        finally:
            writer.transport.abort()


def wait_between(servers: int) -> float:
    """Seconds until the next server is asked too, so that all have their turn in time."""
    return max(_SHORTEST_WAIT_S, min(_LONGEST_WAIT_S, (DEADLINE_S - 0.9) / max(servers, 1)))


async def _connected(handle: socket.socket) -> socket.socket:
    """Waits for a connection under way. Raises OSError."""
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(handle, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(handle)
    code = handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connect to a name server")
    return handle


def _read(data: bytes, identity: bytes, question: bytes) -> Answer:
    """Raises Malformed for what is no answer to this question."""
    if data[:2] != identity:
        raise Malformed
    code = is_fitting_error(data)
    if code:
        return Answer(data, code, truncated=False, records=[])
    return parse_answer(data, question)
