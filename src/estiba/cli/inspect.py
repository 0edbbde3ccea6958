"""inspect of everything."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from estiba.cli.parse import Arguments
from estiba.client.errors import ApiError
from estiba.client.http import Client

Fetch = Callable[[str], Any]

_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def _fetch(client: Client, kind: str, *, size: bool = False) -> Fetch:
    query = {"size": True} if size and kind == "container" else None
    return lambda name: client.get(_PATHS[kind].format(name), query)


def containers(client: Client, given: Arguments) -> int:
    return show(given, _fetch(client, "container", size=given.size))


def images(client: Client, given: Arguments) -> int:
    return show(given, _fetch(client, "image"))


def networks(client: Client, given: Arguments) -> int:
    return show(given, _fetch(client, "network"))


def volumes(client: Client, given: Arguments) -> int:
    return show(given, _fetch(client, "volume"))


def anything(client: Client, given: Arguments) -> int:
    kinds = [given.type] if given.type else list(_PATHS)

    def fetch(name: str) -> Any:
        for kind in kinds:
            try:
                return _fetch(client, kind, size=given.size)(name)
            except ApiError as error:
                if error.status != 404:
                    raise
        raise ApiError(404, f"No such object: {name}")

    return show(given, fetch)


def show(given: Arguments, fetch: Fetch) -> int:
    """All that are there, as one JSON list or by the template; 1 when one is missing."""
    found, code = [], 0
    errors = []
    for name in given.words:
        try:
            found.append(fetch(name))
        except ApiError as error:
            errors.append(f"Error: {error}" if error.status == 404 else str(error))
            code = 1
    if not given.format:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    elif given.format == "json":
        for value in found:
            print(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    else:
        from estiba.cli.template import compile_template

        run = compile_template(given.format)
        for value in found:
            print(run(value))
    for text in errors:
        print(text, file=sys.stderr)
    return code
