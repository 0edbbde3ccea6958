"""`-v`, `--mount` and `-p` as the API wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from estiba.cli.parse import TRUE, UsageError
from estiba.cli.quantities import size_bytes

Json = dict[str, Any]


def parse_volume(text: str) -> str | None:
    """A bind for the API; None for an anonymous volume. Relative paths are the user's."""
    source, colon, rest = text.partition(":")
    if not colon:
        return None
    if source.startswith((".", "~")):
        source = os.path.abspath(os.path.expanduser(source))
    return f"{source}:{rest}"


def parse_mount(text: str) -> Json:
    """`type=bind,source=…,target=…,readonly`. Raises UsageError naming the field."""
    mount: Json = {"Type": "volume"}
    options: dict[str, Json] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key == "type":
            mount["Type"] = value
        elif key in ("source", "src"):
            relative = value.startswith((".", "~"))
            mount["Source"] = os.path.abspath(os.path.expanduser(value)) if relative else value
        elif key in ("target", "destination", "dst"):
            mount["Target"] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = not equals or value.lower() in TRUE
        else:
            _option(options, key, equals, value)
    if not mount.get("Target"):
        raise UsageError(f"invalid argument {text!r} for --mount: target is required")
    return {**mount, **options}


def _option(options: dict[str, Json], key: str, equals: str, value: str) -> None:
    flag = not equals or value.lower() in TRUE
    bind, volume, tmpfs = "BindOptions", "VolumeOptions", "TmpfsOptions"
    if key == "bind-propagation":
        options.setdefault(bind, {})["Propagation"] = value
    elif key in ("bind-nonrecursive", "bind-non-recursive"):
        options.setdefault(bind, {})["NonRecursive"] = flag
    elif key == "bind-recursive":
        fields = {
            "disabled": "NonRecursive",
            "writable": "ReadOnlyNonRecursive",
            "readonly": "ReadOnlyForceRecursive",
        }
        if value in fields:
            options.setdefault(bind, {})[fields[value]] = True
    elif key == "bind-create-src":
        options.setdefault(bind, {})["CreateMountpoint"] = flag
    elif key == "volume-nocopy":
        options.setdefault(volume, {})["NoCopy"] = flag
    elif key == "volume-subpath":
        options.setdefault(volume, {})["Subpath"] = value
    elif key == "volume-label":
        label, _, content = value.partition("=")
        options.setdefault(volume, {}).setdefault("Labels", {})[label] = content
    elif key == "volume-driver":
        options.setdefault(volume, {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        option, _, content = value.partition("=")
        driver = options.setdefault(volume, {}).setdefault("DriverConfig", {})
        driver.setdefault("Options", {})[option] = content
    elif key == "tmpfs-size":
        options.setdefault(tmpfs, {})["SizeBytes"] = size_bytes(value)
    elif key == "tmpfs-mode":
        options.setdefault(tmpfs, {})["Mode"] = int(value, 8)
    elif key != "consistency":
        raise UsageError(f"unexpected key '{key}' in --mount")


def parse_publish(text: str) -> Iterator[tuple[str, Json]]:
    """`[[ip:]host:]container[/proto]` with ranges; (port, binding) pairs. Raises UsageError."""
    rest, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol.lower() not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid proto: {protocol}")
    address = ""
    if rest.startswith("["):
        address, _, rest = rest[1:].partition("]:")
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    host, _, container = rest.rpartition(":")
    inside = _range(container, text)
    outside = _range(host, text) if host else []
    if outside and len(outside) != len(inside) and len(inside) != 1:
        raise UsageError(f"invalid ranges specified for container and host ports: {text}")
    for index, port in enumerate(inside):
        chosen = ""
        if outside:
            chosen = str(outside[index]) if len(outside) == len(inside) else host
        yield f"{port}/{protocol.lower()}", {"HostIp": address, "HostPort": chosen}


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        raise UsageError(f"invalid containerPort: {whole}")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= 65535:
        raise UsageError(f"invalid port range: {whole}")
    return list(range(low, high + 1))
