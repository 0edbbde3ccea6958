"""From a request to its handler's answer: the path, who asks, what they may, what went wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from estiba.http1 import HttpRequest, HttpResponse
from estiba.http1.targets import split_target
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.registry import blobs, lists, manifests, uploads
from estiba.registry.accesslog import AccessLog
from estiba.registry.answers import json_answer
from estiba.registry.auth.gate import BASIC_CHALLENGE
from estiba.registry.auth.identity import Action
from estiba.registry.auth.scopes import scope_of
from estiba.registry.auth.token_endpoint import TokenEndpoint
from estiba.registry.call import Call, parse_query
from estiba.registry.errors import Denied, MethodInvalid, NotAuthenticated, PathUnknown, answer_to
from estiba.registry.metrics import CONTENT_TYPE, Metrics
from estiba.registry.page.pages import Pages
from estiba.registry.routes import Endpoint, find_route, is_name
from estiba.registry.service import Service

_CLIENT_GONE = 499
"""What is logged of a request whose client left before it could be answered."""

Handler = Callable[[Service, Call], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler, and what it does to the repository."""

    handler: Handler
    action: Action

    @property
    def is_write(self) -> bool:
        return self.action is not Action.PULL


_OPERATIONS: dict[Endpoint, dict[str, Operation]] = {
    Endpoint.TAGS: {"GET": Operation(lists.list_tags, Action.PULL)},
    Endpoint.REFERRERS: {"GET": Operation(manifests.list_referrers, Action.PULL)},
    Endpoint.MANIFEST: {
        "GET": Operation(manifests.get_manifest, Action.PULL),
        "PUT": Operation(manifests.put_manifest, Action.PUSH),
        "DELETE": Operation(manifests.delete_manifest, Action.DELETE),
    },
    Endpoint.BLOB: {
        "GET": Operation(blobs.get_blob, Action.PULL),
        "DELETE": Operation(blobs.delete_blob, Action.DELETE),
    },
    Endpoint.UPLOADS: {"POST": Operation(uploads.begin_upload, Action.PUSH)},
    Endpoint.UPLOAD: {
        "GET": Operation(uploads.upload_status, Action.PUSH),
        "PATCH": Operation(uploads.patch_upload, Action.PUSH),
        "PUT": Operation(uploads.finish_upload, Action.PUSH),
        "DELETE": Operation(uploads.cancel_upload, Action.PUSH),
    },
}
"""A HEAD is served as a GET whose body stays here."""


@dataclass(slots=True)
class Seen:
    """What the log says of a request."""

    address: str
    endpoint: str = "other"
    path: str = ""
    user: str = ""


class Dispatcher:
    """Serves one registry; `handle` is the connections' handler."""

    def __init__(
        self,
        service: Service,
        log: AccessLog,
        *,
        tokens: TokenEndpoint | None = None,
        pages: Pages | None = None,
        serves_metrics: bool = True,
        checks_host: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._service = service
        self._log = log
        self._tokens = tokens
        self._pages = pages
        self._serves_metrics = serves_metrics
        self._checks_host = checks_host

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The answer to one request; errors become answers here and nowhere else."""
        started = time.perf_counter()
        seen = Seen(request.connection.address)
        self._service.metrics.in_flight += 1
        try:
            response = await self._answer(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            gone = HttpResponse(_CLIENT_GONE)
            self._record(request, seen, gone, started, is_whole=False)
            raise
        except Exception as error:
            response = answer_to(error, f"{request.method} {seen.path[:200]!r}")
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        response.on_end = partial(self._record, request, seen, response, started)
        return response

    def _record(
        self,
        request: HttpRequest,
        seen: Seen,
        response: HttpResponse,
        started: float,
        is_whole: bool,
    ) -> None:
        seconds = time.perf_counter() - started
        length = 0 if request.method == "HEAD" else int(response.headers.get("Content-Length", 0))
        metrics = self._service.metrics
        metrics.in_flight -= 1
        metrics.sent_bytes += length
        metrics.observe(seen.endpoint, request.method, response.status, seconds)
        self._log.add(
            address=seen.address,
            user=seen.user,
            method=request.method,
            path=seen.path,
            status=response.status,
            size=length,
            seconds=seconds,
            agent=request.headers.get("user-agent", ""),
            is_whole=is_whole,
        )

    async def _answer(self, request: HttpRequest, seen: Seen) -> HttpResponse:
        host, seen.path, query = split_target(request.target)
        self._check_origin(request, host)
        if seen.path == "/v2" or seen.path.startswith("/v2/"):
            return await self._answer_api(request, seen, query)
        return await self._answer_other(request, seen, query)

    async def _answer_api(self, request: HttpRequest, seen: Seen, query: str) -> HttpResponse:
        identity = await self._service.gate.identify(request, seen.address)
        seen.user = identity.user
        route = find_route(seen.path)
        seen.endpoint = route.endpoint.value
        method = "GET" if request.method == "HEAD" else request.method
        call = Call(request, route, parse_query(query), identity, seen.address)
        call.quick = self._service.registry.local
        if route.endpoint in (Endpoint.BASE, Endpoint.CATALOG):
            if method != "GET":
                raise _no_method(request.method, ["GET"])
            return await self._answer_whole(call)
        operations = _OPERATIONS[route.endpoint]
        operation = operations.get(method)
        if operation is None:
            raise _no_method(request.method, list(operations))
        more = _mount_scopes(call) if method == "POST" else []
        self._service.gate.check(request, identity, route.repository, operation.action, more)
        if operation.is_write and self._service.read_only:
            raise MethodInvalid("this registry is read-only", headers={"Allow": "GET, HEAD"})
        return await operation.handler(self._service, call)

    async def _answer_whole(self, call: Call) -> HttpResponse:
        """What belongs to no repository."""
        gate = self._service.gate
        if call.route.endpoint is Endpoint.BASE:
            gate.check_known(call.request, call.identity)
            return json_answer({})
        gate.check_catalog(call.request, call.identity)
        return await lists.list_repositories(self._service, call)

    async def _answer_other(self, request: HttpRequest, seen: Seen, query: str) -> HttpResponse:
        path, is_get = seen.path, request.method in ("GET", "HEAD")
        if path == "/token" and self._tokens is not None:
            seen.endpoint = "token"
            return await self._tokens.answer(request, query, seen.address)
        if path == "/healthz" and is_get:
            seen.endpoint = "health"
            return HttpResponse(200, {"Content-Type": "text/plain"}, b"ok\n")
        if path == "/metrics" and is_get and self._serves_metrics:
            seen.endpoint = "metrics"
            gate = self._service.gate
            gate.check_known(request, await gate.identify(request, seen.address))
            return metrics_answer(self._service.metrics)
        if self._pages is not None and is_get and self._pages.knows(path):
            return await self._answer_page(self._pages, request, seen, query)
        raise PathUnknown("no such path: the registry's API is below /v2/")

    async def _answer_page(
        self, pages: Pages, request: HttpRequest, seen: Seen, query: str
    ) -> HttpResponse:
        seen.endpoint = "page"
        try:
            identity = await self._service.gate.identify(request, seen.address)
        except NotAuthenticated as error:
            # A browser asks for a name and a password again.
            raise NotAuthenticated(error.message, headers=BASIC_CHALLENGE) from error
        seen.user = identity.user
        return await pages.answer(request, seen.path, parse_query(query), identity)

    def _check_origin(self, request: HttpRequest, host: str) -> None:
        """Refuses what a web page elsewhere could make a browser send."""
        own = host or request.headers.get("host", "")
        if not own and request.version != "1.0":
            raise InvalidArgument("missing required Host header")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != own.lower():
            raise Denied("requests from web pages elsewhere are refused")
        if not self._checks_host(own):
            raise Denied(
                f"the Host header {own[:64]!r} is not accepted: use an address or localhost, or "
                "start the registry with --allow-host"
            )


def _mount_scopes(call: Call) -> list[str]:
    source = call.text("from")
    if call.text("mount") is None or source is None or not is_name(source):
        return []
    return [scope_of(source, [Action.PULL])]


def _no_method(method: str, allowed: list[str]) -> EstibaError:
    named = [*allowed, "HEAD"] if "GET" in allowed else allowed
    return MethodInvalid(f"{method[:16]} is not served here", headers={"Allow": ", ".join(named)})


def metrics_answer(metrics: Metrics) -> HttpResponse:
    """For Prometheus."""
    return HttpResponse(200, {"Content-Type": CONTENT_TYPE}, metrics.render())
