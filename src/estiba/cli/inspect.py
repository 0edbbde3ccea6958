"""inspect of everything."""

from __future__ import annotations

import sys

from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError, NoDaemon
from estiba.client.http import Client, image_part, part
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KINDS = ("container", "image", "network", "volume")
_TEMPLATE_ERROR = 64


def _fetcher(client: Client, kind: str, given: Arguments) -> Callable[[str], Any]:
    size = {"size": True} if given.get("size") else None
    verbose = {"verbose": True} if given.get("verbose") else None

    wanted = None
    if given.get("platform"):
        from estiba.cli.refs import platform

        client.require("1.49", "--platform")
        wanted = {"platform": platform(given.platform)}

    def fetch(name: str) -> Any:
        if kind == "container":
            return client.get(f"/containers/{part(name)}/json", size)
        if kind == "image":
            return client.get(f"/images/{image_part(name)}/json", wanted)
        return client.get(f"/{kind}s/{part(name)}", verbose)

    return fetch


def containers(client: Client, given: Arguments) -> int:
    return show(given, _fetcher(client, "container", given))


def images(client: Client, given: Arguments) -> int:
    return show(given, _fetcher(client, "image", given))


def networks(client: Client, given: Arguments) -> int:
    return show(given, _fetcher(client, "network", given))


def volumes(client: Client, given: Arguments) -> int:
    return show(given, _fetcher(client, "volume", given))


def anything(client: Client, given: Arguments) -> int:
    if given.type and given.type not in _KINDS:
        known = ", ".join(f'"{kind}"' for kind in _KINDS)
        raise UsageError(f'unknown type: "{given.type}": must be one of {known}')
    if given.type:
        return show(given, _fetcher(client, given.type, given))
    fetchers = [_fetcher(client, kind, given) for kind in _KINDS]

    def fetch(name: str) -> Any:
        for fetcher in fetchers:
            try:
                return fetcher(name)
            except ApiError as error:
                # A name that is no image's is refused (400) rather than not found.
                if error.status not in (400, 404):
                    raise
        raise ClientError(f"Error: No such object: {name}")

    return show(given, fetch)


def show(given: Arguments, fetch: Callable[[str], Any], *, html: bool = False) -> int:
    """All that are there, as one JSON list or by the template; 1 when one is missing."""
    run = None
    if given.format and given.format != "json":
        from estiba.cli.template import compile_template

        try:
            run = compile_template(given.format)
        except UsageError as error:
            raise UsageError(str(error), exit_code=_TEMPLATE_ERROR) from None
    found, errors = [], []
    for name in given.words:
        try:
            found.append(fetch(name))
        except NoDaemon:
            raise
        except ClientError as error:
            prefix = "Error response from daemon: " if isinstance(error, ApiError) else ""
            errors.append(f"{prefix}{error}")
    if run is not None:
        for value in found:
            try:
                print(run(value))
            except UsageError:
                print()
                raise
        if not found:
            print()
    else:
        print(dumps(found, indent="" if given.format else "    ", html=html))
    sys.stdout.flush()
    for text in errors:
        print(text, file=sys.stderr)
    return 1 if errors else 0
