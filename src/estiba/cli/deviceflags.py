"""Flags of run about devices: `--device`, `--gpus`, rates, and `--ulimit`."""

from __future__ import annotations

from estiba.cli.parse import Arguments, FlagError
from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def devices(given: Arguments) -> dict[str, Any]:
    requests = [gpu_request(given.gpus)] if given.gpus else []
    return {
        "Devices": [device(text) for text in given.device],
        "DeviceCgroupRules": given.device_cgroup_rule or None,
        "DeviceRequests": requests or None,
        "Ulimits": [ulimit(text) for text in given.ulimit] or None,
    }


def device(text: str) -> dict[str, str]:
    """`host[:container[:permissions]]`. Raises ClientError."""
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm"):
        permissions = parts.pop()
    if not parts[0] or len(parts) > 2 or not all(parts):
        raise ClientError(f"bad format for path: {text}")
    return {
        "PathOnHost": parts[0],
        "PathInContainer": parts[-1],
        "CgroupPermissions": permissions,
    }


def gpu_request(text: str) -> dict[str, Any]:
    """`all`, a number, or `device=…,driver=…,capabilities=…,count=…`."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "Capabilities": [["gpu"]], "Options": {}}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key == "count":
            if value != "all" and not value.isdecimal():
                raise FlagError(
                    f'invalid argument "{text}" for "--gpus" flag: invalid count: {value}'
                )
            request["Count"] = -1 if value == "all" else int(value)
        elif key == "driver":
            request["Driver"] = value
        elif key == "device":
            request.setdefault("DeviceIDs", []).append(value)
        elif key == "capabilities":
            request["Capabilities"] = [["gpu", *value.split("+")]]
        else:
            raise FlagError(
                f'invalid argument "{text}" for "--gpus" flag: unexpected key \'{key}\''
            )
    return request


def ulimit(text: str) -> dict[str, Any]:
    def wrong(reason: str) -> FlagError:
        return FlagError(f'invalid argument "{text}" for "--ulimit" flag: {reason}')

    name, equals, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if not equals:
        raise wrong(f"invalid ulimit argument: {text}")
    try:
        low, high = int(soft), int(hard or soft)
    except ValueError:
        raise wrong(f"invalid ulimit value: {value}") from None
    if high != -1 and (low > high or low == -1):
        raise wrong(f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}")
    return {"Name": name, "Soft": low, "Hard": high}


def rated(text: str, name: str) -> dict[str, Any]:
    from estiba.cli.quantities import integer, size_bytes

    path, colon, rate = text.rpartition(":")
    try:
        if not colon or not path.startswith("/dev/"):
            raise ValueError(f"bad format: {text}")
        value = size_bytes(rate) if name.endswith("bps") else integer(rate)
    except ValueError as error:
        flag = f"--{name.replace('_', '-')}"
        raise FlagError(f'invalid argument "{text}" for "{flag}" flag: {error}') from None
    return {"Path": path, "Rate": value}


def weighted(text: str) -> dict[str, Any]:
    path, colon, weight = text.rpartition(":")
    if not colon or not weight.isdecimal():
        raise FlagError(
            f'invalid argument "{text}" for "--blkio-weight-device" flag: bad format: {text}'
        )
    return {"Path": path, "Weight": int(weight)}
