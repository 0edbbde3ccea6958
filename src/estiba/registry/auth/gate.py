"""Who may pass: from a request's Authorization header to an identity, and what that may do.

A request without credentials is somebody unknown; wrong ones are refused, whatever the policy
allows to everybody. Tokens say what they were issued for, and the policy of now has to allow it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Iterable

from estiba.http1 import HttpRequest
from estiba.registry.auth.htpasswd import Htpasswd
from estiba.registry.auth.identity import ANONYMOUS, CATALOG, Action, Identity
from estiba.registry.auth.policy import Policy
from estiba.registry.auth.scopes import CATALOG_SCOPE, scope_of
from estiba.registry.auth.throttle import Throttle
from estiba.registry.auth.tokens import TokenInvalid, TokenMaker
from estiba.registry.errors import Denied, NotAuthenticated

_log = logging.getLogger(__name__)

REALM = "estiba registry"
_MAX_CREDENTIALS_LENGTH = 2048
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Gate:
    """Without `htpasswd` everybody is unknown; with `tokens` clients are sent to fetch one."""

    def __init__(
        self,
        policy: Policy,
        htpasswd: Htpasswd | None = None,
        tokens: TokenMaker | None = None,
        *,
        public_url: str = "",
        is_secure: bool = False,
    ) -> None:
        self.policy = policy
        self.htpasswd = htpasswd
        self.tokens = tokens
        self._public_url = public_url.rstrip("/")
        self._scheme = "https" if is_secure else "http"
        self._throttle = Throttle()

    # -- who -------------------------------------------------------------------------------

    async def identify(self, request: HttpRequest, address: str) -> Identity:
        """Raises NotAuthenticated for wrong credentials, TooManyRequests after too many."""
        header = request.headers.get("authorization")
        if self.htpasswd is None or header is None:
            return ANONYMOUS
        scheme, _, credentials = header.partition(" ")
        if scheme.lower() == "basic":
            return Identity(await self.user_of(credentials.strip(), request, address))
        if scheme.lower() == "bearer" and self.tokens is not None:
            try:
                return self.tokens.read_access(credentials.strip())
            except TokenInvalid as error:
                raise NotAuthenticated(
                    f"{error}: fetch another", headers=self._bearer(request, [], "invalid_token")
                ) from error
        raise NotAuthenticated(
            "this kind of credentials is not accepted here", headers=self.challenge(request)
        )

    async def user_of(self, credentials: str, request: HttpRequest, address: str) -> str:
        """The name in credentials of Basic (RFC 7617) that are right. Raises as `identify`."""
        try:
            if len(credentials) > _MAX_CREDENTIALS_LENGTH:
                raise ValueError("too long")
            text = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise NotAuthenticated(
                "the credentials are malformed", headers=self.challenge(request)
            ) from error
        user, _, password = text.partition(":")
        await self.verify(user, password, address, self.challenge(request))
        return user

    async def verify(
        self, user: str, password: str, address: str, challenge: dict[str, str]
    ) -> None:
        """Returns when the password is right. Raises NotAuthenticated, TooManyRequests."""
        self._throttle.check(address, user)
        if self.htpasswd is not None and user and await self.htpasswd.verify(user, password):
            return
        self._throttle.failed(address, user)
        _log.warning("failed attempt to sign in as %r from %s", user[:64], address)
        raise NotAuthenticated("the name or the password is wrong", headers=challenge)

    # -- what ------------------------------------------------------------------------------

    def allows(self, identity: Identity, repository: str, action: Action) -> bool:
        grants = identity.grants
        if grants is not None and action not in grants.get(repository, ()):
            return False
        return self.policy.allows(identity.user, repository, action)

    def check(
        self,
        request: HttpRequest,
        identity: Identity,
        repository: str,
        action: Action,
        more: Iterable[str] = (),
    ) -> None:
        """Raises NotAuthenticated when a client can do something about it, else Denied.

        `more` are scopes that the request needs besides.
        """
        if self.allows(identity, repository, action):
            return
        wanted = {Action.PULL, action} if action is Action.PUSH else {action}
        scopes = [scope_of(repository, sorted(wanted)), *more]
        self._refuse(
            request,
            identity,
            scopes,
            is_hopeless=not self.policy.allows(identity.user, repository, action),
            words=f"{action} of {repository}",
        )

    def check_catalog(self, request: HttpRequest, identity: Identity) -> None:
        """Raises as `check`. Whoever may ask is told of what they may pull."""
        if self.htpasswd is None or (identity.user and identity.grants is None):
            return
        if identity.grants is not None and CATALOG in identity.grants:
            return
        self._refuse(
            request, identity, [CATALOG_SCOPE], is_hopeless=False, words="the list of repositories"
        )

    def check_known(self, request: HttpRequest, identity: Identity) -> None:
        """Raises NotAuthenticated unless the client has shown credentials, or needs none.

        Docker's client asks `/v2/` whether it has to sign in.
        """
        if self.htpasswd is not None and identity == ANONYMOUS:
            raise NotAuthenticated("sign in with docker login", headers=self.challenge(request))

    def may_see(self, identity: Identity, repository: str) -> bool:
        """Whether lists of repositories show it."""
        return self.policy.allows(identity.user, repository, Action.PULL)

    def _refuse(
        self,
        request: HttpRequest,
        identity: Identity,
        scopes: list[str],
        *,
        is_hopeless: bool,
        words: str,
    ) -> None:
        if self.htpasswd is None or (identity.user and is_hopeless):
            raise Denied(f"{words} is denied: the registry's policy decides")
        error = "insufficient_scope" if identity.grants is not None else ""
        raise NotAuthenticated(
            f"{words} needs authentication: sign in with docker login",
            headers=self._bearer(request, scopes, error) if self.tokens else _basic(),
        )

    # -- challenges (RFC 9110, section 11.6.1) -----------------------------------------------

    def challenge(self, request: HttpRequest) -> dict[str, str]:
        """What a client that has not shown who it is has to answer to."""
        return self._bearer(request, [], "") if self.tokens else _basic()

    def _bearer(self, request: HttpRequest, scopes: list[str], error: str) -> dict[str, str]:
        assert self.tokens is not None
        parts = [f'realm="{self._realm(request)}"', f'service="{self.tokens.service}"']
        parts += [f'scope="{scope}"' for scope in [" ".join(scopes)] if scope]
        parts += [f'error="{error}"'] if error else []
        return {"Www-Authenticate": "Bearer " + ",".join(parts)}

    def _realm(self, request: HttpRequest) -> str:
        if self._public_url:
            return f"{self._public_url}/token"
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise Denied("the Host header is malformed")
        return f"{self._scheme}://{host}/token"


def _basic() -> dict[str, str]:
    return {"Www-Authenticate": f'Basic realm="{REALM}", charset="UTF-8"'}


BASIC_CHALLENGE = _basic()
