"""Request bodies of containers and execs as records."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from estiba.api.context import Context, decode
from estiba.model.container import Config, HostConfig, NetworkingConfig, PortBinding, Resources
from estiba.model.errors import InvalidArgument

_PIDS_UPDATE_SINCE = (1, 40)
_PRIVATE_IPC_SINCE = (1, 40)
_PRIVATE_CGROUPS_SINCE = (1, 41)
_MANY_ENDPOINTS_SINCE = (1, 44)
_ENDPOINT_MAC_SINCE = (1, 44)
_MAX_SIDE = 65535
_CREATE_PARTS = ("HostConfig", "NetworkingConfig")


def decode_create(
    body: dict[str, Any], version: tuple[int, int], *, cgroup_v2: bool
) -> tuple[Config, HostConfig, NetworkingConfig, list[str]]:
    """The three parts of a create body, and the fields that nobody knows."""
    parts = {name: pop_field(body, name) or {} for name in _CREATE_PARTS}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise InvalidArgument(f"invalid JSON: {name} must be an object")
    config, unknown = decode(strings_as_lists(body, ("Cmd", "Entrypoint")), Config)
    host_body = parts["HostConfig"]
    if "ConsoleSize" in host_body:
        host_body["ConsoleSize"] = console_size(host_body)
    host, unknown_host = decode(host_body, HostConfig)
    networking, unknown_net = decode(parts["NetworkingConfig"], NetworkingConfig)
    if len(networking.endpoints_config) > 1 and version < _MANY_ENDPOINTS_SINCE:
        names = ", ".join(networking.endpoints_config)
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {names}"
        )
    if version < _ENDPOINT_MAC_SINCE:
        networking = _without_macs(networking)
    known_elsewhere = {"hostconfig", "networkingconfig"}
    unknown = [field for field in unknown if field.lower() not in known_elsewhere]
    unknown += [f"HostConfig.{field}" for field in unknown_host]
    unknown += [f"NetworkingConfig.{field}" for field in unknown_net]
    return config, _as_of(host, version, cgroup_v2=cgroup_v2), networking, unknown


def decode_update(body: dict[str, Any], version: tuple[int, int]) -> tuple[Resources, list[str]]:
    """The limits of an update body, and the fields that nobody knows."""
    resources, unknown = decode(body, Resources)
    if resources.pids_limit is not None and version < _PIDS_UPDATE_SINCE:
        resources = msgspec.structs.replace(resources, pids_limit=None)
    elif resources.pids_limit is not None and resources.pids_limit < 0:
        resources = msgspec.structs.replace(resources, pids_limit=0)
    return resources, unknown


def _without_macs(networking: NetworkingConfig) -> NetworkingConfig:
    """Old versions knew the container's address alone, and ignored those of endpoints."""
    return NetworkingConfig(
        endpoints_config={
            name: msgspec.structs.replace(settings, mac_address="")
            for name, settings in networking.endpoints_config.items()
        }
    )


def decode_ports(body: dict[str, Any], name: str) -> dict[str, list[PortBinding]]:
    """Takes a field out of the body that has the form of HostConfig.PortBindings.

    It is the engine's own: what Docker's clients send has no such field.
    """
    host, _ = decode({"PortBindings": pop_field(body, name) or {}}, HostConfig)
    return host.port_bindings


def _as_of(host: HostConfig, version: tuple[int, int], *, cgroup_v2: bool) -> HostConfig:
    """What the version leaves open had other defaults once; "no limit" has one form.

    On cgroup v2 the cgroup namespace is private for clients of any age, as in Docker.
    """
    changed: dict[str, Any] = {}
    if version < _PRIVATE_IPC_SINCE and not host.ipc_mode:
        changed["ipc_mode"] = "shareable"
    if version < _PRIVATE_CGROUPS_SINCE and not (cgroup_v2 or host.cgroupns_mode):
        changed["cgroupns_mode"] = "host"
    if host.pids_limit is not None and host.pids_limit <= 0:
        changed["pids_limit"] = None
    return msgspec.structs.replace(host, **changed)


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
    """Height and width; more than a terminal can be is the most that it can be."""
    return _side(context, "h", "height"), _side(context, "w", "width")


def console_size(body: dict[str, Any]) -> list[int]:
    """Height and width, 0 where they are not given, no larger than a terminal can be.

    Raises InvalidArgument for what is no such pair.
    """
    size = body.get("ConsoleSize") or [0, 0]
    is_pair = isinstance(size, list) and len(size) == 2
    if not is_pair or not all(type(side) is int and side >= 0 for side in size):
        raise InvalidArgument("invalid JSON: ConsoleSize must be two numbers, height and width")
    return [min(side, _MAX_SIDE) for side in size]


def _side(context: Context, name: str, what: str) -> int:
    text = context.text(name)
    if not text.removeprefix("-").isdecimal():
        raise InvalidArgument(f'invalid resize {what} "{text[:32]}": invalid syntax')
    if len(text) > 10 or not 0 <= int(text) < 2**32:
        raise InvalidArgument(f'invalid resize {what} "{text[:32]}": value out of range')
    return min(int(text), _MAX_SIDE)
