"""Whether a registry takes a user's credentials (distribution-spec, token protocol)."""

from __future__ import annotations

import json
from dataclasses import replace

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import Credentials
from estiba.distribution.failures import Broken
from estiba.distribution.session import Session
from estiba.distribution.settings import DEFAULT_HOST, RegistrySettings
from estiba.distribution.transport import Transport
from estiba.model.errors import Internal, InvalidArgument, Unauthorized, Unavailable
from estiba.model.reference import DEFAULT_DOMAIN, parse_reference

_DEFAULT_NAMES = ("", DEFAULT_DOMAIN, "index.docker.io", DEFAULT_HOST)
_ALL = tuple(range(300, 600))


def domain_of(server: str) -> str:
    """The registry that is meant by a host, or by a URL as docker's client sends it.

    Raises InvalidArgument for what is no host.
    """
    text = server.partition("://")[2] or server
    host = text.partition("/")[0]
    if host in _DEFAULT_NAMES:
        return DEFAULT_DOMAIN
    try:
        # `x` keeps a host without dot or port from being taken for a path.
        parse_reference(f"{host if set('.:') & set(host) else 'x.' + host}/x")
    except InvalidArgument:
        raise InvalidArgument(f"invalid registry address: {host[:64]!r}") from None
    return host


def check_credentials(
    server: str,
    credentials: Credentials,
    settings: RegistrySettings,
    cancel: CancelToken | None = None,
) -> str:
    """Returns the identity token that the registry gives to be kept for the password, or "".

    Raises Unauthorized when the registry refuses them, Internal without an answer,
    InvalidArgument for what is no host.
    """
    site = settings.site(domain_of(server))
    transport = Transport(replace(settings, attempts=1), cancel or CancelToken())
    session = Session(site, credentials, transport, offline=True)
    try:
        url = session.url("")
        with session.call("GET", url, what="login", allow=_ALL) as answer:
            status = answer.status
        if status in (401, 403):
            what = f"Get {json.dumps(str(url))}"
            raise Unauthorized(f"{what}: unauthorized: incorrect username or password")
        if status != 200:
            raise Internal(f"login attempt to {url} failed with status: {status}")
        return session.identity_token
    except (Broken, Unavailable) as error:
        raise Internal(str(error)) from error
    finally:
        transport.close()
