"""Where the registry listens, and its connections: how many, how long idle, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from dataclasses import dataclass

from estiba.http1 import Connection
from estiba.http1.messages import Handler
from estiba.http1.tls import TlsProtocol
from estiba.model.errors import InvalidArgument, Unavailable

MAX_CONNECTIONS = 4096
PATIENCE_S = 120.0
"""How long a client may send nothing of a body, or read nothing of an answer."""
_IDLE_S = 180.0
_SWEEP_S = 10.0
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT; an empty host is every address, port 0 any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises InvalidArgument."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"invalid address {text!r}: expected HOST:PORT, [IPV6]:PORT or :PORT")
    return Address(host, int(port))


class Listeners:
    """All sockets of the server."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        return len(self._connections)

    async def listen(
        self, address: Address, handler: Handler, tls: ssl.SSLContext | None = None
    ) -> list[Address]:
        """The addresses that are listened on. Raises Unavailable."""
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            if len(self._connections) >= MAX_CONNECTIONS:
                return _Refusal()
            connection = Connection(handler, peer="tcp", patience_s=PATIENCE_S)
            connection.on_made = lambda: self._made(connection)
            connection.on_closed = lambda: self._gone(connection)
            return connection if tls is None else TlsProtocol(tls, connection)

        try:
            server = await loop.create_server(
                accept, address.host or None, address.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise Unavailable(f"cannot listen on {address}: {error.strerror}") from error
        self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep(), name="idle connections")
        return [Address(*wire.getsockname()[:2]) for wire in server.sockets]

    def _made(self, connection: Connection) -> None:
        self._connections.add(connection)
        if connection.task is not None:
            self._tasks.add(connection.task)
            connection.task.add_done_callback(self._tasks.discard)

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.close_idle(_IDLE_S)

    def close_idle(self, seconds: float) -> None:
        """Ends connections that have waited for a request for so long."""
        before = asyncio.get_running_loop().time() - seconds
        for connection in list(self._connections):
            if connection.idle_since is not None and connection.idle_since <= before:
                connection.close()

    async def close(self, patience_s: float) -> None:
        """Stops listening, lets requests under way end, and then ends their connections.

        Returns when no handler works any more: what came of an upload is kept by then.
        """
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        deadline = asyncio.get_running_loop().time() + patience_s
        while self._connections and asyncio.get_running_loop().time() < deadline:
            self.close_idle(0)
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._all_gone.wait()
        for connection in list(self._connections):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)


class _Refusal(asyncio.Protocol):
    """Takes a connection that is one too many, and ends it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
