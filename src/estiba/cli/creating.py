"""A container made of the flags of run and create, with all that happens before and after."""

from __future__ import annotations

import os
import sys

from estiba.cli.parse import Arguments
from estiba.cli.runspec import build
from estiba.client.errors import ApiError, ClientError
from estiba.client.host import read_config
from estiba.client.http import Client, version_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NO_PULL = ("always", "never")
"""Policies under which an image that is missing stays so."""
_ENDPOINT_MAC_SINCE = (1, 44)
"""Since then the address is the network's, and that of the container is no more."""
_API_SOCKET = "/var/run/docker.sock"
_PROXIES = {
    "httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY", "allProxy": "ALL_PROXY",
}  # fmt: skip


def built(given: Arguments) -> dict[str, Any]:
    """The request's body. Raises ClientError and FlagError."""
    if given.pull not in ("", "always", "missing", "never"):
        raise ClientError(
            f'invalid pull option: \'{given.pull}\': must be one of "always", "missing" or "never"'
        )
    return build(given)


class _IdFile:
    """`--cidfile`: made before the container, so that none is left behind when it cannot be; gone
    when no container came of it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = False

    def __enter__(self) -> _IdFile:
        if self._path:
            try:
                self._file = open(self._path, "x")
            except FileExistsError:
                raise ClientError(
                    "container ID file found, make sure the other container isn't running or "
                    f"delete {self._path}"
                ) from None
            except OSError as error:
                raise ClientError(
                    "failed to create the container ID file: "
                    f"open {self._path}: {str(error.strerror).lower()}"
                ) from error
        return self

    def write(self, container: str) -> None:
        self._written = True
        if self._path:
            self._file.write(container)

    def __exit__(self, *_: object) -> None:
        if self._path:
            self._file.close()
            if not self._written:
                os.unlink(self._path)


def create_container(client: Client, given: Arguments, body: dict[str, Any]) -> str:
    """Its id. Raises ClientError."""
    if given.use_api_socket:
        _mount_socket(client, body)
    if version_key(client.version) >= _ENDPOINT_MAC_SINCE:
        body.pop("MacAddress", None)
    body["Env"] = [*proxies(client, body["Env"]), *body["Env"]]
    with _IdFile(given.cidfile) as file:
        container = _created(client, given, body)
        file.write(container)
    return container


def proxies(client: Client, own: list[str]) -> list[str]:
    """`proxies` of the user's config.json, by the daemon's address or `default`, in capitals and
    not; what the user sets stays.
    """
    known = read_config().get("proxies")
    chosen = known.get(client.host.url) or known.get("default") if isinstance(known, dict) else None
    if not isinstance(chosen, dict):
        return []
    names = {entry.partition("=")[0] for entry in own}
    return [
        f"{name}={chosen[key]}"
        for key, upper in _PROXIES.items()
        for name in (upper, upper.lower())
        if chosen.get(key) and name not in names
    ]


def _mount_socket(client: Client, body: dict[str, Any]) -> None:
    """The daemon's own socket, at docker's usual place. Raises ClientError for one far away."""
    if client.host.kind != "unix":
        raise ClientError(f"--use-api-socket needs a daemon on a socket, not {client.host.url}")
    mounts = body["HostConfig"].setdefault("Mounts", [])
    mounts.append({"Type": "bind", "Source": client.host.address, "Target": _API_SOCKET})


def _created(client: Client, given: Arguments, body: dict[str, Any]) -> str:
    asked = given.platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    query = {"name": given.name or None, "platform": asked or None}
    image = body["Image"]
    if given.pull == "always":
        _pull(client, given, image)
    try:
        answer = client.post("/containers/create", query, body)
    except ApiError as error:
        if error.status == 400 and "invalid reference format" in str(error):
            raise _bad_name(image, error) from error
        if error.status != 404 or "o such image" not in str(error) or given.pull in _NO_PULL:
            raise
        if not given.quiet:
            print(f"Unable to find image '{_with_tag(image)}' locally", file=sys.stderr)
        _pull(client, given, image)
        answer = client.post("/containers/create", query, body)
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    return str(answer["Id"])


def _bad_name(image: str, error: ApiError) -> ClientError:
    """Docker's client has looked at the name first, and says more of it."""
    from estiba.cli.refs import reference

    try:
        reference(image)
    except ClientError as own:
        return ClientError(str(own))
    return error


def _pull(client: Client, given: Arguments, image: str) -> None:
    from estiba.cli.transfer import pull_missing

    pull_missing(client, image, given.platform, quiet=given.quiet)


def _with_tag(image: str) -> str:
    """As people write it: no docker.io, no library/."""
    from estiba.cli.refs import reference

    return reference(image).tagged.familiar
