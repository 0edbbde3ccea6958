"""Whether a registry takes a user's credentials (distribution-spec, token protocol)."""

from __future__ import annotations

from estiba.distribution.credentials import Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.model.errors import NotImplemented


def check_credentials(server: str, credentials: Credentials, settings: RegistrySettings) -> str:
    """Returns the identity token that the registry gives instead of a password, or "".

    `server` is a host, or a URL as docker's client sends it for Docker Hub. Raises Unauthorized
    when the registry refuses them, Internal without an answer, InvalidArgument for what is no
    host.
    """
    raise NotImplemented("registries cannot be asked yet")
