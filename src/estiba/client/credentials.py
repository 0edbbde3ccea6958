"""The user's credentials for registries: config.json, or the helper programs that it names.

    auths        {SERVER: {"auth": base64 of USER:PASSWORD, "identitytoken": …}}
    credHelpers  {SERVER: HELPER}
    credsStore   HELPER of all other servers; without one `auths` keeps what is secret

A credential is a dictionary with the API's names: username, password, auth, serveraddress,
identitytoken, registrytoken. Docker Hub's server is `https://index.docker.io/v1/`.
"""

from __future__ import annotations

import binascii

from estiba.client import credhelper
from estiba.client.configfile import update_config
from estiba.client.errors import ClientError
from estiba.client.host import config_path, read_config
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = ("", "docker.io", "index.docker.io")
_FIELDS = ("username", "password", "auth", "serveraddress", "identitytoken", "registrytoken")


def server_of(registry: str) -> str:
    """What credentials of a registry are kept under: its host and port, Docker Hub's old URL."""
    return HUB if registry in _HUB_NAMES else registry


def hostname(server: str) -> str:
    """`https://host:port/v1/` as `host:port`."""
    return server.removeprefix("http://").removeprefix("https://").partition("/")[0]


def header(registry: str) -> dict[str, str]:
    """The X-Registry-Auth header for requests that lead to a registry."""
    found = usable(registry)
    ordered = {name: found[name] for name in _FIELDS if found.get(name)}
    return {"X-Registry-Auth": _encoded(ordered)}


def config_header() -> dict[str, str]:
    """The X-Registry-Config header for requests that may lead to any registry: all there is."""
    every = {server: usable(server) for server in servers()}
    found = {
        server: {name: known[name] for name in _FIELDS if known.get(name)}
        for server, known in every.items()
        if known
    }
    return {"X-Registry-Config": _encoded(found)} if found else {}


def _encoded(value: dict[str, Any]) -> str:
    text = binascii.b2a_base64(dumps(value).encode(errors="surrogateescape"), newline=False)
    return text.decode().translate({ord("+"): "-", ord("/"): "_"})


def usable(registry: str) -> dict[str, str]:
    """What there is for a registry; it may do without what cannot be had."""
    try:
        return find(server_of(registry))
    except ClientError:
        return {}


def find(server: str) -> dict[str, str]:
    """Empty when there is none. Raises ClientError when a helper fails or an entry is damaged."""
    helper = _helper(server)
    if not helper:
        return _from_file(server)
    try:
        kept = _from_file(server)
    except ClientError:
        kept = {}
    return {**kept, **credhelper.get(helper, server)}


def keep(auth: dict[str, str]) -> bool:
    """Keeps it under its `serveraddress`; whether that put a password into the file unencrypted.

    Raises ClientError.
    """
    server = auth["serveraddress"]
    helper = _helper(server)
    entry: dict[str, str] = {}
    if helper:
        credhelper.store(helper, auth)
    else:
        if auth.get("username") or auth.get("password"):
            pair = f"{auth.get('username', '')}:{auth.get('password', '')}"
            entry["auth"] = binascii.b2a_base64(pair.encode(), newline=False).decode()
        if auth.get("identitytoken"):
            entry["identitytoken"] = auth["identitytoken"]
    if _auths(read_config()).get(server) == entry:
        return False

    def change(config: dict[str, Any]) -> None:
        # A helper's servers are listed too, with nothing that is secret.
        config["auths"] = {**_auths(config), server: entry}

    update_config(change)
    return not helper and bool(auth.get("password"))


def forget(server: str) -> None:
    """Raises ClientError."""
    helper = _helper(server)
    if helper:
        credhelper.erase(helper, server)
    if server not in _auths(read_config()):
        return

    def change(config: dict[str, Any]) -> None:
        auths = _auths(config)
        auths.pop(server, None)
        config["auths"] = auths

    update_config(change)


def servers() -> list[str]:
    """All that there are credentials for, as far as that can be found out."""
    config = read_config()
    found = set(_auths(config)) | set(_strings(config.get("credHelpers")))
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        try:
            found.update(credhelper.servers(store))
        except ClientError:
            pass
    return sorted(found)


def _helper(server: str) -> str:
    config = read_config()
    return _strings(config.get("credHelpers")).get(server) or str(config.get("credsStore") or "")


def _strings(value: Any) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}


def _auths(config: dict[str, Any]) -> dict[str, Any]:
    auths = config.get("auths")
    return auths if isinstance(auths, dict) else {}


def _from_file(server: str) -> dict[str, str]:
    """Entries of old clients, such as `https://host/v1/`, count for their host."""
    auths = _auths(read_config())
    for name in [server, *(name for name in auths if hostname(name) == server)]:
        entry = auths.get(name)
        if isinstance(entry, dict):
            return {**_decoded(name, entry), "serveraddress": name}
    return {}


def _decoded(server: str, entry: dict[str, Any]) -> dict[str, str]:
    """Raises ClientError for an entry that is none; it is not shown."""
    found = {name: text for name in _FIELDS if isinstance(text := entry.get(name), str) and text}
    encoded = found.pop("auth", "")
    if not encoded:
        return found
    try:
        user, colon, password = binascii.a2b_base64(encoded).decode().partition(":")
    except ValueError:
        user = colon = password = ""
    if not colon or not user:
        raise ClientError(
            f"{config_path()}: the credentials of {server} are damaged: `estiba logout {server}` "
            "and log in again"
        )
    found["username"] = user
    if password := password.strip("\0"):
        found["password"] = password
    return found
