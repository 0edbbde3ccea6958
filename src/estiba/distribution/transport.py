"""HTTP requests to registries: connections kept, redirects, retries. Knows no registry's paths.

Authorization stays with the origin that it is for. Every failure is told as the caller's errors:
Broken for a connection that ended or took too long, Unavailable for other bad behaviour.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import estiba
from estiba.distribution.answer import Answer
from estiba.distribution.cancel import CancelToken
from estiba.distribution.certs import tls_context
from estiba.distribution.failures import Broken, broken
from estiba.distribution.settings import RegistrySettings, Site
from estiba.distribution.urls import Origin, Url, follow, parse_url
from estiba.distribution.wire import Route, Wire, open_wire
from estiba.model.errors import InvalidArgument, Unavailable

USER_AGENT = f"estiba/{estiba.__version__}"
MAX_REDIRECTS = 5
MAX_DELAY_S = 30.0
"""A registry that asks for a longer pause is told of instead of waited for."""

_MAX_IDLE = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_RETRYING = (429, 500, 502, 503, 504)
_HEADER_VALUE = re.compile(r"[\t -~]*")


@dataclass(frozen=True, slots=True)
class Streamed:
    """A body of `size` bytes that can be sent once."""

    size: int
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`repeatable` requests are retried; those with a streamed body never are.

    `lenient` allows TLS that nobody vouches for. Without `redirects` they are answers as others.
    `answer_timeout_s` counts from the last byte
    sent to the end of the answer's head.
    """

    method: str
    url: Url
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    body: bytes | Streamed = b""
    repeatable: bool = True
    lenient: bool = False
    redirects: bool = True
    answer_timeout_s: float | None = None

    @property
    def can_repeat(self) -> bool:
        return self.repeatable and isinstance(self.body, bytes)


class _Connection(http.client.HTTPConnection):
    """To one origin; `wire` is what it stands on."""

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


class Transport:
    """Lives as long as a job; several threads may use it."""

    def __init__(self, settings: RegistrySettings, cancel: CancelToken) -> None:
        self.settings = settings
        self.cancel = cancel
        self._lock = threading.Lock()
        self._routes: dict[tuple[Origin, bool], Route] = {}
        self._idle: dict[Route, list[_Connection]] = {}
        self._closed = False

    def close(self) -> None:
        """Connections in use are closed when their answers are."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def find_origin(self, site: Site) -> Origin:
        """HTTPS where the site may choose and speaks it, else HTTP. Raises as `request`."""
        if site.scheme:
            return parse_url(f"{site.scheme}://{site.host}/").origin
        origin = parse_url(f"https://{site.host}/").origin
        route = self._route(origin, lenient=True)
        connection = self._new(route)
        try:
            connection.connect()
        except (OSError, ValueError):
            self.cancel.check()
            return parse_url(f"http://{site.host}/").origin
        self._keep(route, connection)
        return origin

    def request(self, request: Request) -> Answer:
        """The answer after redirects; after retries of what may be repeated, whatever it is.

        Raises Broken, Unavailable, Cancelled, FailedPrecondition (files in certs.d).
        """
        for attempt in range(1, self.settings.attempts + 1):
            last = attempt == self.settings.attempts or not request.can_repeat
            delay = self.settings.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            try:
                answer = self._redirected(request)
            except Broken as error:
                if last or not error.again:
                    raise
            else:
                asked = answer.retry_after_s
                if last or answer.status not in _WORTH_RETRYING or asked > MAX_DELAY_S:
                    return answer
                delay = max(delay, asked)
                answer.close()
            self.cancel.wait(min(delay, MAX_DELAY_S))
        raise AssertionError("the last attempt ends the loop")

    # -- redirects -----------------------------------------------------------------------------

    def _redirected(self, request: Request) -> Answer:
        seen = {request.url}
        while True:
            answer = self._exchange(request)
            if answer.status not in _REDIRECTS or not request.redirects:
                return answer
            where, location = request.url, answer.header("Location")
            answer.close()
            url = follow(where, location)
            if url in seen:
                raise Unavailable(f"{where} redirects in a loop")
            if len(seen) > MAX_REDIRECTS:
                raise Unavailable(f"{where} redirects more than {MAX_REDIRECTS} times")
            if where.origin.scheme == "https" and url.origin.scheme != "https":
                raise Unavailable(f"{where} redirects from HTTPS to plain HTTP, which is refused")
            is_read = request.method in ("GET", "HEAD")
            if not is_read and (answer.status not in (307, 308) or not request.can_repeat):
                raise Unavailable(
                    f"{where} redirects {request.method} with status {answer.status}, "
                    "which cannot be followed"
                )
            seen.add(url)
            if url.origin != where.origin:
                request = replace(request, authorization="", lenient=False)
            request = replace(request, url=url)

    # -- one request, one answer -----------------------------------------------------------------

    def _exchange(self, request: Request) -> Answer:
        route = self._route(request.url.origin, request.lenient)
        kept = self._reuse(route)
        try:
            return self._on(kept or self._new(route), route, request)
        except Broken as error:
            # The other side may have ended an idle connection as this was under way.
            if kept is None or not error.again or not request.can_repeat:
                raise
        return self._on(self._new(route), route, request)

    def _on(self, connection: _Connection, route: Route, request: Request) -> Answer:
        patience = self.settings.read_timeout_s
        handle = None
        try:
            if connection.sock is None:
                connection.connect()
            wire = connection.wire
            handle = self.cancel.attach(wire.shut)
            wire.arm(patience)
            sent = self._write(connection, route, request)
            wire.arm(request.answer_timeout_s or patience)
            response = connection.getresponse()
        except BaseException as error:
            connection.close()
            self.cancel.detach(handle)
            if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
                self.cancel.check()
                raise broken(request.method, request.url, error) from error
            raise

        def release(whole: bool) -> None:
            self.cancel.detach(handle)
            if whole and sent:
                self._keep(route, connection)
            else:
                connection.close()

        return Answer(response, request.method, request.url, self.cancel, release, wire)

    def _write(self, connection: _Connection, route: Route, request: Request) -> bool:
        """False when the registry hung up before all was sent; its answer may say why."""
        target = request.url.target
        headers = {"Host": request.url.origin.authority, "User-Agent": USER_AGENT}
        headers |= {"Accept-Encoding": "identity", **request.headers}
        if request.authorization:
            headers["Authorization"] = request.authorization
        if route.proxy is not None and route.context is None:
            target = f"{request.url.origin}{target}"
            if route.proxy.authorization:
                headers["Proxy-Authorization"] = route.proxy.authorization
        body = request.body
        if request.method not in ("GET", "HEAD") or body:
            headers["Content-Length"] = str(len(body) if isinstance(body, bytes) else body.size)
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if not _HEADER_VALUE.fullmatch(value):
                raise InvalidArgument(f"illegal characters in the value for the header {name}")
            connection.putheader(name, value)
        if isinstance(body, bytes):
            connection.endheaders(body or None)
            return True
        connection.endheaders()
        for piece in body.pieces:
            connection.wire.arm(self.settings.read_timeout_s)
            try:
                connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                return False
        return True

    # -- connections -----------------------------------------------------------------------------

    def _route(self, origin: Origin, lenient: bool) -> Route:
        key = (origin, lenient)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._find_route(origin, lenient)
        return route

    def _find_route(self, origin: Origin, lenient: bool) -> Route:
        settings = self.settings
        proxy = settings.proxies.choose(origin.scheme, origin.host, origin.port)
        if origin.scheme != "https":
            return Route(origin, proxy, None)
        names = settings.names_of(origin)
        lenient = lenient or any(map(settings.is_insecure, names))
        folders = [folder / name for folder in settings.certs_dirs for name in names]
        return Route(origin, proxy, tls_context(folders, verify=not lenient))

    def _new(self, route: Route) -> _Connection:
        return _Connection(route, self.settings.connect_timeout_s, self.cancel)

    def _reuse(self, route: Route) -> _Connection | None:
        while True:
            with self._lock:
                kept = self._idle.get(route)
                if not kept:
                    return None
                connection = kept.pop()
            if connection.wire.is_usable():
                return connection
            connection.close()

    def _keep(self, route: Route, connection: _Connection) -> None:
        with self._lock:
            kept = self._idle.setdefault(route, [])
            if not self._closed and len(kept) < _MAX_IDLE:
                kept.append(connection)
                return
        connection.close()
