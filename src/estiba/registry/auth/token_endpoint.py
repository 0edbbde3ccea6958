"""`/token`: where clients fetch their bearer tokens.

GET with Basic credentials, or none for what everybody may do (Docker's token authentication
specification), and POST with a password or a refresh token (its OAuth2 variant).
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from estiba.http1 import HttpRequest, HttpResponse
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.registry.answers import json_answer
from estiba.registry.auth.gate import BASIC_CHALLENGE, Gate
from estiba.registry.auth.scopes import granted
from estiba.registry.auth.tokens import TokenInvalid, TokenMaker
from estiba.registry.call import parse_query
from estiba.registry.errors import MethodInvalid, NotAuthenticated

_MAX_FORM_BYTES = 32 << 10

Form = dict[str, list[str]]


class TokenEndpoint:
    """Issues what the policy allows of the scopes that are asked for, which may be nothing."""

    def __init__(self, gate: Gate, tokens: TokenMaker) -> None:
        self._gate = gate
        self._tokens = tokens

    async def answer(self, request: HttpRequest, query: str, address: str) -> HttpResponse:
        """Raises NotAuthenticated, TooManyRequests, MethodInvalid, InvalidArgument."""
        if request.method == "GET":
            return await self._get(request, parse_query(query), address)
        if request.method == "POST":
            return await self._post(request, address)
        raise MethodInvalid("tokens are fetched by GET or POST", headers={"Allow": "GET, POST"})

    async def _get(self, request: HttpRequest, form: Form, address: str) -> HttpResponse:
        user = ""
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, credentials = header.partition(" ")
            if scheme.lower() != "basic":
                raise NotAuthenticated(
                    "tokens are issued for a name and a password", headers=BASIC_CHALLENGE
                )
            user = await self._gate.user_of(credentials.strip(), request, address)
        wants_refresh = _text(form, "offline_token").lower() in ("true", "1")
        return self._issue(user, form, refresh=wants_refresh)

    async def _post(self, request: HttpRequest, address: str) -> HttpResponse:
        form = await _read_form(request)
        kind = _text(form, "grant_type")
        if kind == "password":
            user = _text(form, "username")
            await self._gate.verify(user, _text(form, "password"), address, BASIC_CHALLENGE)
            return self._issue(user, form, refresh=_text(form, "access_type") == "offline")
        if kind == "refresh_token":
            return self._issue(self._user_of(_text(form, "refresh_token")), form)
        raise InvalidArgument(f"unknown grant_type {kind[:32]!r}: password or refresh_token")

    def _user_of(self, token: str) -> str:
        try:
            user, fingerprint = self._tokens.read_refresh(token)
        except TokenInvalid as error:
            raise NotAuthenticated(f"{error}: sign in again", headers=BASIC_CHALLENGE) from error
        current = self._gate.htpasswd.fingerprint(user) if self._gate.htpasswd else None
        if current is None or not hmac.compare_digest(current, fingerprint):
            raise NotAuthenticated(
                "the account has changed: sign in again", headers=BASIC_CHALLENGE
            )
        return user

    def _issue(self, user: str, form: Form, *, refresh: bool = False) -> HttpResponse:
        grants = granted(self._gate.policy, user, form.get("scope", []))
        issued = self._tokens.access(user, grants)
        answer: dict[str, object] = {
            "token": issued.token,
            "access_token": issued.token,
            "expires_in": issued.expires_in,
            "issued_at": datetime.fromtimestamp(issued.issued_at, UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
        }
        fingerprint = self._gate.htpasswd.fingerprint(user) if self._gate.htpasswd else None
        if refresh and fingerprint is not None:
            answer["refresh_token"] = self._tokens.refresh(user, fingerprint)
        return json_answer(answer, Cache_Control="no-store")


async def _read_form(request: HttpRequest) -> Form:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidArgument("send a form (application/x-www-form-urlencoded)")
    pieces, size = [], 0
    while piece := await request.body.read():
        size += len(piece)
        if size > _MAX_FORM_BYTES:
            raise LimitExceeded(f"the form is larger than {_MAX_FORM_BYTES} bytes")
        pieces.append(piece)
    return parse_query(b"".join(pieces).decode("utf-8", "replace"))


def _text(form: Form, name: str) -> str:
    return (form.get(name) or [""])[0]
