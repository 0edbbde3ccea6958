"""Request bodies of containers and execs as records."""

from __future__ import annotations

import shlex
from typing import Any

from estiba.api.context import Context, decode
from estiba.model.container import Config, HostConfig, NetworkingConfig
from estiba.model.errors import InvalidArgument

_CREATE_PARTS = ("HostConfig", "NetworkingConfig")


def decode_create(
    body: dict[str, Any],
) -> tuple[Config, HostConfig, NetworkingConfig, list[str]]:
    """The three parts of a create body, and the fields that nobody knows."""
    parts = {name: pop_field(body, name) or {} for name in _CREATE_PARTS}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise InvalidArgument(f"invalid JSON: {name} must be an object")
    config, unknown = decode(strings_as_lists(body, ("Cmd", "Entrypoint")), Config)
    host_body = parts["HostConfig"]
    if host_body.get("ConsoleSize") == []:
        del host_body["ConsoleSize"]
    host, unknown_host = decode(host_body, HostConfig)
    networking, unknown_net = decode(parts["NetworkingConfig"], NetworkingConfig)
    known_elsewhere = {"hostconfig", "networkingconfig"}
    unknown = [field for field in unknown if field.lower() not in known_elsewhere]
    unknown += [f"HostConfig.{field}" for field in unknown_host]
    unknown += [f"NetworkingConfig.{field}" for field in unknown_net]
    return config, host, networking, unknown


def pop_field(body: dict[str, Any], name: str) -> Any:
    for key in list(body):
        if key.lower() == name.lower():
            return body.pop(key)
    return None


def strings_as_lists(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A command may be one string (OpenAPI: oneOf string, array)."""
    for key, value in body.items():
        if isinstance(value, str) and key.lower() in [name.lower() for name in names]:
            try:
                body[key] = shlex.split(value) if key.lower() == "cmd" else [value]
            except ValueError as error:
                raise InvalidArgument(f"invalid {key}: {error}") from error
    return body


def terminal_size(context: Context) -> tuple[int, int]:
    height, width = context.number("h"), context.number("w")
    if height is None or width is None or not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidArgument("invalid terminal size: h and w must be numbers up to 65535")
    return height, width
