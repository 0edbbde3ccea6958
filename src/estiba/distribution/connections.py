"""Connections of `http.client` over our own wires, kept between requests, and the way to each."""

from __future__ import annotations

import http.client
import socket
import threading
from typing import cast

from estiba.distribution.cancel import CancelToken
from estiba.distribution.certs import tls_context
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.urls import Origin
from estiba.distribution.wire import Route, Wire, open_wire

_MAX_IDLE = 8


class Connection(http.client.HTTPConnection):
    """To one origin; `wire` is what it stands on, once it is connected."""

    def __init__(self, route: Route, timeout_s: float, cancel: CancelToken) -> None:
        super().__init__(route.origin.host, route.origin.port)
        self._route = route
        self._timeout_s = timeout_s
        self._cancel = cancel

    def connect(self) -> None:
        wire = open_wire(self._route, self._timeout_s, self._cancel)
        self.sock = cast(socket.socket, wire)

    @property
    def wire(self) -> Wire:
        return cast(Wire, self.sock)


class Pool:
    """Idle connections of a job and its parts; used from several threads."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._routes: dict[tuple[Origin, bool], Route] = {}
        self._idle: dict[Route, list[Connection]] = {}
        self._closed = False

    def close(self) -> None:
        """Connections in use are closed when their answers are."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def route(self, origin: Origin, *, lenient: bool) -> Route:
        """Raises InvalidArgument for a bad proxy, FailedPrecondition for bad files in certs.d."""
        key = (origin, lenient)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._find(origin, lenient)
        return route

    def _find(self, origin: Origin, lenient: bool) -> Route:
        settings = self._settings
        proxy = settings.proxies.choose(origin.scheme, origin.host, origin.port)
        if origin.scheme != "https":
            return Route(origin, proxy, None)
        names = settings.names_of(origin)
        lenient = lenient or any(map(settings.is_insecure, names))
        folders = [folder / name for folder in settings.certs_dirs for name in names]
        return Route(origin, proxy, tls_context(folders, verify=not lenient))

    def take(self, route: Route) -> Connection | None:
        """An idle connection that the other side has not ended."""
        while True:
            with self._lock:
                kept = self._idle.get(route)
                if not kept:
                    return None
                connection = kept.pop()
            if connection.wire.is_usable():
                return connection
            connection.close()

    def keep(self, route: Route, connection: Connection) -> None:
        with self._lock:
            kept = self._idle.setdefault(route, [])
            if not self._closed and len(kept) < _MAX_IDLE:
                kept.append(connection)
                return
        connection.close()
