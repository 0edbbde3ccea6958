"""HTTP requests to registries: connections kept, redirects, retries. Knows no registry's paths.

Authorization stays with the origin that it is for. Every failure is told as the caller's errors:
Broken for a connection that ended or took too long, Unavailable for other bad behaviour.
"""

from __future__ import annotations

import http.client
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import estiba
from estiba.distribution.answer import Answer
from estiba.distribution.cancel import CancelToken
from estiba.distribution.connections import Connection, Pool
from estiba.distribution.failures import Broken, broken
from estiba.distribution.settings import RegistrySettings, Site
from estiba.distribution.urls import Origin, Url, follow, parse_url
from estiba.distribution.wire import Route
from estiba.model.errors import InvalidArgument, Unavailable

USER_AGENT = f"estiba/{estiba.__version__}"
MAX_REDIRECTS = 5
MAX_DELAY_S = 30.0
"""A registry that asks for a longer pause is told of instead of waited for."""

_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_RETRYING = (429, 500, 502, 503, 504)
_HEADER_VALUE = re.compile(r"[\t -~]*")


Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Streamed:
    """A body of `size` bytes that can be sent once."""

    size: int
    pieces: Iterator[Piece]


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


class Transport:
    """Ends with `cancel`; several threads may use it."""

    def __init__(
        self, settings: RegistrySettings, cancel: CancelToken, pool: Pool | None = None
    ) -> None:
        self.settings = settings
        self.cancel = cancel
        self._owns_pool = pool is None
        self._pool = pool or Pool(settings)

    def fork(self, cancel: CancelToken) -> Transport:
        """One that shares the connections, which are closed with the original."""
        return Transport(self.settings, cancel, self._pool)

    def close(self) -> None:
        """Connections in use are closed when their answers are."""
        if self._owns_pool:
            self._pool.close()

    def find_origin(self, site: Site) -> Origin:
        """HTTPS where the site may choose and speaks it, else HTTP. Raises as `request`."""
        if site.scheme:
            return parse_url(f"{site.scheme}://{site.host}/").origin
        origin = parse_url(f"https://{site.host}/").origin
        route = self._pool.route(origin, lenient=True)
        connection = self._connection(route)
        try:
            connection.connect()
        except (OSError, ValueError):
            self.cancel.check()
            return parse_url(f"http://{site.host}/").origin
        self._pool.keep(route, connection)
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
        route = self._pool.route(request.url.origin, lenient=request.lenient)
        kept = self._pool.take(route)
        try:
            return self._on(kept or self._connection(route), route, request)
        except Broken as error:
            # The other side may have ended an idle connection as this was under way.
            if kept is None or not error.again or not request.can_repeat:
                raise
        return self._on(self._connection(route), route, request)

    def _connection(self, route: Route) -> Connection:
        return Connection(route, self.settings.connect_timeout_s, self.cancel)

    def _on(self, connection: Connection, route: Route, request: Request) -> Answer:
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
                self._pool.keep(route, connection)
            else:
                connection.close()

        return Answer(response, request.method, request.url, self.cancel, release, wire)

    def _write(self, connection: Connection, route: Route, request: Request) -> bool:
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
