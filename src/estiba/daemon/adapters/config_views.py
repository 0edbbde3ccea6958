"""Config and HostConfig as inspect shows them. Pure.

What is empty is null or absent as in Docker's own answers: clients compare with those, though
the OpenAPI document knows no null there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from estiba.containers.record import ContainerRecord
from estiba.model.container import HostConfig

Json = dict[str, Any]

_NULL_WHEN_EMPTY = (
    "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps", "BlkioWeightDevice", "CapAdd", "CapDrop", "DeviceCgroupRules",
    "DeviceRequests", "Devices", "ExtraHosts", "GroupAdd",
    "Links", "SecurityOpt", "Ulimits", "VolumesFrom",
)  # fmt: skip
_ABSENT_WHEN_EMPTY = (
    "Annotations", "KernelMemory", "KernelMemoryTCP", "Mounts", "StorageOpt", "Sysctls", "Tmpfs",
)  # fmt: skip
_ABSENT_IN_CONFIG = (
    "ArgsEscaped", "ExposedPorts", "Healthcheck", "MacAddress", "NetworkDisabled", "Shell",
    "StopSignal",
)  # fmt: skip


def host_config_view(
    host: HostConfig, *, masked_paths: list[str], readonly_paths: list[str]
) -> Json:
    """`masked_paths` and `readonly_paths` are those in force when the request named none."""
    view: Json = msgspec.to_builtins(host)
    for name in _NULL_WHEN_EMPTY:
        view[name] = view[name] or None
    view["Mounts"] = [_without_empty(mount) for mount in view["Mounts"]]
    _drop_empty(view, _ABSENT_WHEN_EMPTY)
    view["RestartPolicy"]["Name"] = host.restart_policy.name or "no"
    if not host.privileged:
        view["MaskedPaths"] = masked_paths if host.masked_paths is None else host.masked_paths
        view["ReadonlyPaths"] = (
            readonly_paths if host.readonly_paths is None else host.readonly_paths
        )
    return view


def config_view(record: ContainerRecord) -> Json:
    config = record.config
    view: Json = msgspec.to_builtins(config)
    view["Hostname"] = config.hostname or record.id[:12]
    view["Volumes"] = view["Volumes"] or None
    if config.healthcheck is not None:
        view["Healthcheck"] = _without_empty(view["Healthcheck"])
    if config.stop_timeout is None:
        del view["StopTimeout"]
    _drop_empty(view, _ABSENT_IN_CONFIG)
    return view


def _drop_empty(view: Json, names: Iterable[str]) -> None:
    for name in names:
        if not view[name]:
            del view[name]


def _without_empty(value: Json) -> Json:
    """Without zero values, in the objects within too; options that were given stay."""
    kept = {}
    for key, item in value.items():
        inner = _without_empty(item) if isinstance(item, dict) else item
        if inner or (isinstance(item, dict) and key.endswith("Options")):
            kept[key] = inner
    return kept
