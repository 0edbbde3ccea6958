"""One site of a registry, asked with authorization: the paths below `/v2/`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from estiba.distribution.answer import Answer
from estiba.distribution.auth import Authorizer, Scopes
from estiba.distribution.challenge import parse_challenges
from estiba.distribution.credentials import Credentials
from estiba.distribution.refusals import refusal
from estiba.distribution.settings import Site
from estiba.distribution.transport import Request, Streamed, Transport
from estiba.distribution.urls import Origin, Url, follow, parse_url
from estiba.model.errors import Unavailable


class Session:
    """Several threads may use it."""

    def __init__(
        self,
        site: Site,
        credentials: Credentials,
        transport: Transport,
        *,
        offline: bool = False,
    ) -> None:
        """`offline` as for `Authorizer`."""
        self.site = site
        self.transport = transport
        self._credentials = credentials
        self._offline = offline
        self._lock = threading.Lock()
        self._authorizer: Authorizer | None = None
        self._origin: Origin | None = None

    @property
    def origin(self) -> Origin:
        """Connects, the first time, where the scheme is still to be found out."""
        with self._lock:
            if self._origin is None:
                self._origin = self.transport.find_origin(self.site)
            return self._origin

    @property
    def authorizer(self) -> Authorizer:
        origin = self.origin
        with self._lock:
            if self._authorizer is None:
                self._authorizer = Authorizer(
                    origin, self._credentials, self.transport, offline=self._offline
                )
            return self._authorizer

    def url(self, path: str) -> Url:
        """`path` below `/v2/`, with its query."""
        return parse_url(f"{self.origin}/v2/{path}")

    def located(self, answer: Answer) -> Url:
        """Where an answer's Location points. Raises Unavailable for HTTP instead of HTTPS."""
        url = follow(answer.url, answer.header("Location"))
        if self.origin.scheme == "https" and url.origin.scheme != "https":
            raise Unavailable(f"{answer.url} leads from HTTPS to plain HTTP, which is refused")
        return url

    def call(
        self,
        method: str,
        url: Url,
        *,
        what: str,
        scopes: Scopes = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Streamed = b"",
        allow: tuple[int, ...] = (),
        answer_timeout_s: float | None = None,
        once: bool = False,
    ) -> Answer:
        """An answer below 300, or one that `allow` names.

        Raises what `refusal` makes of others, and as `Transport.request`. Authorization goes to
        the session's own origin. With `once` nothing is retried.
        """
        own = url.origin == self.origin
        given = self.authorizer.header(scopes) if own else ""
        request = Request(
            method=method,
            url=url,
            headers=headers or {},
            authorization=given,
            body=body,
            answer_timeout_s=answer_timeout_s,
            repeatable=not once,
        )
        answer = self.transport.request(request)
        if answer.status == 401 and own and isinstance(body, bytes):
            challenges = parse_challenges(answer.header_values("WWW-Authenticate"))
            renewed = self.authorizer.answer(challenges, scopes, given)
            if renewed:
                answer.close()
                answer = self.transport.request(replace(request, authorization=renewed))
        if 200 <= answer.status < 300 or answer.status in allow:
            return answer
        with answer:
            raise refusal(answer, what)
