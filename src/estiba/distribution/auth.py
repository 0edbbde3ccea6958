"""Authorization at one registry: basic, and bearer tokens with their cache (token protocol).

Tokens and passwords go to the registry's origin and to the token service that it names only.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

from estiba.distribution.challenge import Challenge
from estiba.distribution.credentials import Credentials
from estiba.distribution.transport import Request, Transport
from estiba.distribution.urls import Origin, Url, parse_url
from estiba.model.errors import Unauthorized, Unavailable

CLIENT_ID = "estiba"
_MAX_ANSWER_BYTES = 1 << 20
_MAX_SCOPES = 16
_SHORTEST_LIFE_S, _LONGEST_LIFE_S = 60, 24 * 3600
_TOKEN = re.compile(r"[!-~]{1,65536}")

Scopes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Service:
    realm: Url
    name: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    good_until: float


@dataclass(slots=True)
class Grants:
    """What a registry wants, and the tokens for it. One thread at a time asks for another."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    service: _Service | None = None
    basic: str = ""
    tokens: dict[tuple[_Service, Scopes], _Token] = field(default_factory=dict)
    widened: dict[Scopes, Scopes] = field(default_factory=dict)
    identity_token: str = ""


class Authorizer:
    """Several threads may use it, and several authorizers the same grants."""

    def __init__(
        self,
        origin: Origin,
        credentials: Credentials,
        transport: Transport,
        grants: Grants,
        *,
        offline: bool = False,
    ) -> None:
        """With `offline` the token service is asked for a refresh token too."""
        self._credentials = credentials
        self._transport = transport
        self._offline = offline
        settings = transport.settings
        self._lenient = any(map(settings.is_insecure, settings.names_of(origin)))
        self._may_be_plain = self._lenient or origin.scheme == "http"
        self._grants = grants

    def header(self, scopes: Scopes) -> str:
        """The value of Authorization, as far as the registry has said what it wants.

        Raises Unauthorized when the token service refuses.
        """
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        with self._grants.lock:
            grants = self._grants
            if grants.service is None:
                return grants.basic
            return f"Bearer {self._token(grants.service, grants.widened.get(scopes, scopes))}"

    def answer(self, challenges: list[Challenge], scopes: Scopes, refused: str) -> str:
        """What to send after a 401 to `refused`; empty when there is nothing left to try.

        Raises as `header`.
        """
        if self._credentials.registry_token:
            return ""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        with self._grants.lock:
            if "bearer" in by_scheme:
                value = self._bearer(by_scheme["bearer"], scopes, refused)
            elif "basic" in by_scheme:
                self._grants.service = None
                value = self._grants.basic = self._credentials.basic
            else:
                value = ""
        return "" if value == refused else value

    def _bearer(self, challenge: Challenge, scopes: Scopes, refused: str) -> str:
        self._grants.service = service = self._named_by(challenge)
        asked = re.findall(r"[!-~]+", challenge.parameters.get("scope", ""))
        wanted = tuple(dict.fromkeys((*scopes, *asked)))[:_MAX_SCOPES]
        self._grants.widened[scopes] = wanted
        token = self._grants.tokens.get((service, wanted))
        if token is not None and f"Bearer {token.value}" == refused:
            del self._grants.tokens[service, wanted]
        return f"Bearer {self._token(service, wanted)}"

    def _named_by(self, challenge: Challenge) -> _Service:
        realm = challenge.parameters.get("realm", "")
        try:
            url = parse_url(realm)
        except Unavailable:
            url = None
        if url is None or (url.origin.scheme != "https" and not self._may_be_plain):
            raise Unavailable(f"the registry names no usable token service: {realm[:128]!r}")
        return _Service(url, challenge.parameters.get("service", ""))

    # -- the token service -----------------------------------------------------------------------

    def _token(self, service: _Service, scopes: Scopes) -> str:
        key = (service, scopes)
        token = self._grants.tokens.get(key)
        if token is None or token.good_until < time.monotonic():
            token = self._grants.tokens[key] = self._fetch(service, scopes)
        return token.value

    def _fetch(self, service: _Service, scopes: Scopes) -> _Token:
        url = service.realm
        with self._transport.request(self._request(service, scopes)) as answer:
            status, body = answer.status, answer.read(_MAX_ANSWER_BYTES)
        if status in (400, 401, 403):
            named = self._credentials.username or self._credentials.identity_token
            why = "incorrect username or password" if named else "authentication required"
            raise Unauthorized(f"Get {json.dumps(str(url))}: unauthorized: {why}")
        try:
            fields = json.loads(body) if status == 200 else {}
            value = fields.get("token") or fields["access_token"]
            life = fields.get("expires_in") or 0
            renewal = fields.get("refresh_token") or ""
            if not _TOKEN.fullmatch(value) or not isinstance(life, int | float):
                raise ValueError("no token")
            if renewal and not _TOKEN.fullmatch(renewal):
                raise ValueError("no token")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unavailable(f"{url} gave no token (status {status})") from None
        self._grants.identity_token = renewal or self._grants.identity_token
        life = min(max(life, _SHORTEST_LIFE_S), _LONGEST_LIFE_S)
        # Renewed a little early: an upload that begins now is authorized at its end as well.
        return _Token(value, time.monotonic() + 0.9 * life)

    def _request(self, service: _Service, scopes: Scopes) -> Request:
        """A GET with basic authorization, or a POST (OAuth 2) with a refresh token.

        Redirects are not followed: they would carry secrets away.
        """
        credentials = self._credentials
        fields = [("service", service.name)] if service.name else []
        if credentials.identity_token:
            fields += [("client_id", CLIENT_ID), ("grant_type", "refresh_token")]
            fields += [("refresh_token", credentials.identity_token)]
            fields += [("scope", " ".join(scopes))] if scopes else []
            return Request(
                method="POST",
                url=service.realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(fields).encode(),
                lenient=self._lenient,
                redirects=False,
            )
        if credentials.username:
            fields += [("account", credentials.username), ("client_id", CLIENT_ID)]
        if self._offline:
            fields += [("offline_token", "true")]
        fields += [("scope", scope) for scope in scopes]
        realm = service.realm
        joint = "&" if "?" in realm.target else "?"
        return Request(
            method="GET",
            url=Url(
                realm.origin,
                f"{realm.target}{joint}{urlencode(fields)}" if fields else realm.target,
            ),
            authorization=credentials.basic,
            lenient=self._lenient,
            redirects=not credentials.basic,
        )
