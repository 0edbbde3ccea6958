"""Listeners, and from a request to its handler's answer.

Refuses what a browser could be tricked into: a foreign Host on TCP (DNS rebinding) and an
Origin that is not the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import ipaddress
import logging
import os
import socket
import ssl
from dataclasses import InitVar, dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from estiba import __version__
from estiba.api.context import Context, parse_query
from estiba.api.errors import status_of, told
from estiba.api.router import API_VERSION, Router, parse_version
from estiba.http1 import Connection, HttpRequest, HttpResponse
from estiba.http1.responses import error_body
from estiba.http1.targets import split_target
from estiba.http1.tls import TlsProtocol
from estiba.model.errors import EstibaError, Forbidden, InvalidArgument, Unavailable

_log = logging.getLogger(__name__)

SOCKET_MODE = 0o660
_BACKLOG = 1024
_ENDING_S = (1.0, 5.0)
"""For handlers at the end: to send what is under way, then to put away what they hold."""

_LISTEN_FDS_START = 3
_COMMON = {
    "Api-Version": API_VERSION,
    "Ostype": "linux",
    "Server": f"Estiba/{__version__} (linux)",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """One place to listen; `tls` is None for plain TCP and UNIX sockets."""

    url: str
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class Server:
    """Serves a router on its listeners."""

    router: Router
    allowed_hosts: frozenset[str] = frozenset()
    socket_group: str = ""
    is_experimental: InitVar[bool] = False
    _common: dict[str, str] = field(init=False)
    """Headers of every answer."""

    _servers: list[asyncio.Server] = field(default_factory=list)
    _sockets: list[Path] = field(default_factory=list)
    _connections: set[Connection] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Of connections; one lasts until its handler has ended, wherever its client is."""
    _is_closing: bool = False

    def __post_init__(self, is_experimental: bool) -> None:
        self._common = {**_COMMON, "Docker-Experimental": str(is_experimental).lower()}

    async def listen(self, listener: Listener) -> None:
        """Raises InvalidArgument for a bad address, Unavailable when it is taken."""
        url = urlsplit(listener.url)
        try:
            if url.scheme == "unix":
                await self._listen_unix(Path(url.path))
            elif url.scheme == "tcp":
                await self._listen_tcp(url.hostname or "0.0.0.0", url.port, listener.tls)
            elif url.scheme == "fd":
                await self._listen_fds()
            else:
                raise InvalidArgument(
                    f"cannot listen on {listener.url!r}: use unix://PATH, tcp://HOST:PORT or fd://"
                )
        except OSError as error:
            raise Unavailable(f"cannot listen on {listener.url}: {error.strerror}") from error

    async def _listen_unix(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _is_served(path):
            raise Unavailable(f"another daemon serves {path}: stop it or choose another --host")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, 0, self._group())
        path.chmod(SOCKET_MODE)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: self._connection("unix"), sock=listening, backlog=_BACKLOG
        )
        self._servers.append(server)
        self._sockets.append(path)

    async def _listen_tcp(self, host: str, port: int | None, tls: ssl.SSLContext | None) -> None:
        number = port or (2376 if tls else 2375)
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            connection = self._connection("tcp")
            return connection if tls is None else TlsProtocol(tls, connection)

        server = await loop.create_server(accept, host, number, backlog=_BACKLOG)
        self._servers.append(server)

    async def _listen_fds(self) -> None:
        """Sockets from systemd (sd_listen_fds(3))."""
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            raise InvalidArgument("no sockets were passed: fd:// works under socket activation")
        loop = asyncio.get_running_loop()
        for offset in range(int(os.environ.get("LISTEN_FDS", "0"))):
            passed = socket.socket(fileno=_LISTEN_FDS_START + offset)
            kind = "unix" if passed.family == socket.AF_UNIX else "tcp"
            server = await loop.create_server(partial(self._connection, kind), sock=passed)
            self._servers.append(server)

    def _group(self) -> int:
        if not self.socket_group:
            return 0
        if self.socket_group.isdecimal():
            return int(self.socket_group)
        try:
            return grp.getgrnam(self.socket_group).gr_gid
        except KeyError:
            raise InvalidArgument(f"the group {self.socket_group!r} does not exist") from None

    def _connection(self, peer: str) -> Connection:
        connection = Connection(self.handle, peer=peer)
        connection.on_made = lambda: self._made(connection)
        connection.on_closed = lambda: self._connections.discard(connection)
        return connection

    def _made(self, connection: Connection) -> None:
        self._connections.add(connection)
        if connection.task is not None:
            self._tasks.add(connection.task)
            connection.task.add_done_callback(self._tasks.discard)
        if self._is_closing:
            # It was accepted before, and nobody would end it any more.
            connection.abort()

    async def close(self) -> None:
        """Stops listening and ends all connections, with what their handlers still hold."""
        self._is_closing = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close()
        for path in self._sockets:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        # A build, for instance, ends its steps; who does not read what is sent waits in vain.
        for patience_s in _ENDING_S:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=patience_s)
            for connection in list(self._connections):
                connection.abort()
        if self._tasks:
            _log.warning("%d requests have not ended with their connections", len(self._tasks))

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The answer to one request; errors become answers here and nowhere else."""
        try:
            host, path, query = split_target(request.target)
            self._check_origin(request, host)
            match = self.router.match(request.method, path)
            context = Context(request, match.parameters, parse_query(query), match.version)
            response = await self.router.handler(match.operation)(context)
            if match.version != parse_version(API_VERSION):
                version = f"{match.version[0]}.{match.version[1]}"
                response.headers.setdefault("Api-Version", version)
        except EstibaError as error:
            response = _error(status_of(error), error.message)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            response = _error(500, told(error, f"{request.method} {request.target[:200]}"))
        for name, value in self._common.items():
            response.headers.setdefault(name, value)
        return response

    def _check_origin(self, request: HttpRequest, host: str) -> None:
        """`host` stands in the target, if it is there at all, and then counts."""
        origin = request.headers.get("origin")
        if origin is not None and not _is_same(origin, request.headers.get("host", "")):
            raise Forbidden("requests from web pages (with a foreign Origin header) are refused")
        if "host" not in request.headers and request.version != "1.0":
            raise InvalidArgument("missing required Host header")
        host = host or request.headers.get("host", "")
        if request.connection.peer == "unix" or not host:
            return
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = host
        if name == "localhost" or name in self.allowed_hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Forbidden(
                f"the Host header {name[:64]!r} is not accepted: use an address, localhost, "
                "or start the daemon with --allow-host"
            ) from None


def _error(status: int, message: str) -> HttpResponse:
    if status == 304:
        return HttpResponse(304)
    return HttpResponse(status, {"Content-Type": "application/json"}, error_body(message))


def _is_same(origin: str, host: str) -> bool:
    """Clients that speak WebSocket name the server itself as the origin."""
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and bool(host) and authority.lower() == host.lower()


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
