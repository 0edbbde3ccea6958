"""Contexts: named daemons, kept where Docker keeps them."""

from __future__ import annotations

import json
import os
from typing import Any

from estiba.cli.output import print_rows
from estiba.cli.parse import Arguments
from estiba.client.errors import ClientError
from estiba.client.host import DEFAULT, config_directory, context_path, read_config
from estiba.client.http import Client

_COLUMNS = (("NAME", "Name"), ("DESCRIPTION", "Description"), ("DOCKER ENDPOINT", "DockerEndpoint"))


def show(client: Client, given: Arguments) -> int:
    print(_current())
    return 0


def _current() -> str:
    return os.environ.get("DOCKER_CONTEXT") or str(read_config().get("currentContext") or "default")


def ls(client: Client, given: Arguments) -> int:
    rows = [_row("default", "The default daemon", os.environ.get("DOCKER_HOST") or DEFAULT)]
    folder = os.path.join(config_directory(), "contexts", "meta")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name, "meta.json")) as file:
                stored = json.load(file)
        except (OSError, ValueError):
            continue
        endpoint = stored.get("Endpoints", {}).get("docker", {}).get("Host", "")
        description = stored.get("Metadata", {}).get("Description", "")
        rows.append(_row(stored.get("Name", ""), description, endpoint))
    print_rows(rows, _COLUMNS, given.format, quiet_key="Plain" if given.quiet else "")
    return 0


def _row(name: str, description: str, endpoint: str) -> dict[str, Any]:
    mark = " *" if name == _current() else ""
    return {
        "Name": name + mark,
        "Plain": name,
        "Description": description,
        "DockerEndpoint": endpoint,
        "Current": bool(mark),
    }


def use(client: Client, given: Arguments) -> int:
    name = given.words[0]
    if name != "default" and not os.path.exists(context_path(name)):
        raise ClientError(f'context "{name}" does not exist: see `estiba context ls`')
    path = os.path.join(config_directory(), "config.json")
    config = read_config()
    if name == "default":
        config.pop("currentContext", None)
    else:
        config["currentContext"] = name
    os.makedirs(config_directory(), mode=0o700, exist_ok=True)
    with open(f"{path}.part", "w") as file:
        json.dump(config, file, indent="\t")
    os.rename(f"{path}.part", path)
    print(name)
    return 0
