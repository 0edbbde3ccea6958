"""One site of a registry, asked with authorization: the paths below `/v2/`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from estiba.distribution.answer import Answer
from estiba.distribution.auth import Authorizer, Grants, Scopes
from estiba.distribution.challenge import parse_challenges
from estiba.distribution.credentials import Credentials
from estiba.distribution.refusals import refusal
from estiba.distribution.settings import Site
from estiba.distribution.transport import Request, Streamed, Transport
from estiba.distribution.urls import Origin, Url, follow, parse_url
from estiba.model.errors import Unauthorized, Unavailable


@dataclass(slots=True)
class _Learned:
    """What the first requests find out for all."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    origin: Origin | None = None
    grants: Grants = field(default_factory=Grants)


class Session:
    """Several threads may use it."""

    def __init__(
        self,
        site: Site,
        credentials: Credentials,
        transport: Transport,
        *,
        offline: bool = False,
        learned: _Learned | None = None,
    ) -> None:
        """`offline` as for `Authorizer`."""
        self.site = site
        self.transport = transport
        self._credentials = credentials
        self._offline = offline
        self._learned = learned or _Learned()

    def fork(self, transport: Transport) -> Session:
        """The same over another transport; what either learns serves both."""
        return Session(
            self.site,
            self._credentials,
            transport,
            offline=self._offline,
            learned=self._learned,
        )

    @property
    def identity_token(self) -> str:
        """What the token service gave to be kept for the password."""
        return self._learned.grants.identity_token

    @property
    def origin(self) -> Origin:
        """Connects, the first time, where the scheme is still to be found out."""
        with self._learned.lock:
            if self._learned.origin is None:
                self._learned.origin = self.transport.find_origin(self.site)
            return self._learned.origin

    def _authorizer(self) -> Authorizer:
        return Authorizer(
            self.origin,
            self._credentials,
            self.transport,
            self._learned.grants,
            offline=self._offline,
        )

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
        authorizer = self._authorizer()
        given = authorizer.header(scopes) if own else ""
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
            answer = self._authorized(answer, request, authorizer, scopes, what)
        if 200 <= answer.status < 300 or answer.status in allow:
            return answer
        with answer:
            raise refusal(answer, what)

    def _authorized(
        self, refused: Answer, request: Request, authorizer: Authorizer, scopes: Scopes, what: str
    ) -> Answer:
        """The answer to the same request with what a 401 asks for, or that 401 itself."""
        challenges = parse_challenges(refused.header_values("WWW-Authenticate"))
        renewed = authorizer.answer(challenges, scopes, request.authorization)
        if renewed:
            refused.close()
            return self.transport.request(replace(request, authorization=renewed))
        if not request.authorization and any(one.scheme == "basic" for one in challenges):
            refused.close()
            raise Unauthorized(
                f"{what}: no basic auth credentials: log in to {refused.url.origin.authority} first"
            )
        return refused
