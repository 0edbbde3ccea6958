"""`-v`, `--mount`, `-p` and `--expose` as the API wants them."""

from __future__ import annotations

import os

from estiba.cli.parse import FlagError
from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_TRUE = ("", "1", "t", "true")


def parse_volume(text: str) -> str | None:
    """A bind for the API; None for an anonymous volume. A leading `.` is the user's directory."""
    source, colon, rest = text.partition(":")
    if not text:
        raise ClientError("invalid empty volume spec")
    if not colon:
        return None
    if not source:
        raise ClientError(f"invalid spec: {text}: empty section between colons")
    if source.startswith("."):
        source = os.path.abspath(source)
    return f"{source}:{rest}"


# -- mounts --------------------------------------------------------------------------------

_BIND, _VOLUME, _TMPFS, _IMAGE = "BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"
_IDMAP = "idmap"
IDMAPS = "estiba.idmap"
"""The annotation of a container that says at which of its mounts owners are mapped."""

_BARE = ("readonly", "volume-nocopy", "bind-non-recursive", "bind-create-src", "idmap")
"""Fields that may stand without a value."""

_RECURSIVE = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
_NAMES = {
    "src": "source", "dst": "target", "destination": "target", "ro": "readonly",
    "bind-nonrecursive": "bind-non-recursive",
}  # fmt: skip


def parse_mount(text: str) -> dict[str, Any]:
    """`type=bind,source=…,target=…,readonly`. Raises FlagError naming the field."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = _NAMES.get(key.strip().lower(), key.strip().lower())
        try:
            _set(mount, key, value.strip(), whole=field, bare=not equals)
        except ValueError as error:
            raise _mount_error(text, str(error)) from None
    if not mount["Type"]:
        raise _mount_error(text, "type is required")
    if not mount.get("Target"):
        raise _mount_error(text, "target is required")
    source = mount.get("Source", "")
    if mount["Type"] == "bind" and source.startswith("."):
        mount["Source"] = os.path.abspath(source)
    kinds = (("bind", _BIND), ("volume", _VOLUME), ("tmpfs", _TMPFS), ("image", _IMAGE))
    for kind, options in kinds:
        if options in mount and mount["Type"] != kind:
            raise _mount_error(
                text, f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'"
            )
    reason = _missing_beside(mount)
    if reason:
        raise _mount_error(text, reason)
    return mount


def _missing_beside(mount: dict[str, Any]) -> str:
    """Why the options of a bind do not go without others; empty if they do."""
    options = mount.get(_BIND, {})
    form = "writable" if options.get("ReadOnlyNonRecursive") else "readonly"
    if not (options.get("ReadOnlyNonRecursive") or options.get("ReadOnlyForceRecursive")):
        return ""
    needs = f"option 'bind-recursive={form}' requires"
    if not mount.get("ReadOnly"):
        return f"{needs} 'readonly' to be specified in conjunction"
    if form == "readonly" and options.get("Propagation") != "rprivate":
        return f"{needs} 'bind-propagation=rprivate' to be specified in conjunction"
    return ""


def split_mounts(
    texts: list[str], annotations: dict[str, str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What `--mount` asks for, and the annotations with whose owners are mapped.

    The Engine API has no field for that. Raises FlagError.
    """
    mounts = [parse_mount(text) for text in texts]
    mapped = [annotations[IDMAPS]] if IDMAPS in annotations else []
    for mount, text in zip(mounts, texts, strict=True):
        ranges = mount.pop(_IDMAP, None)
        if ranges is None:
            continue
        if set(mount["Target"]) & set(",="):
            raise _mount_error(text, "idmap takes no target with a comma or an equals sign")
        mapped.append(f"{mount['Target']}={ranges}" if ranges else mount["Target"])
    return mounts, {**annotations, IDMAPS: ",".join(mapped)} if mapped else annotations


def _mount_error(text: str, reason: str) -> FlagError:
    return FlagError(f'invalid argument "{text}" for "--mount" flag: {reason}')


def _fields(text: str) -> list[str]:
    """Fields of a CSV line: a comma may stand between double quotes."""
    fields, quoted = [""], False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            fields.append("")
        else:
            fields[-1] += character
    return fields


def _set(mount: dict[str, Any], key: str, value: str, *, whole: str, bare: bool) -> None:
    """Raises ValueError with the reason."""
    if bare and key not in _BARE:
        raise ValueError(f"invalid field '{whole}' must be a key=value pair")
    if key in ("type", "source", "target", "consistency"):
        mount[key.capitalize()] = value.lower() if key == "type" else value
    elif key == "idmap":
        mount[_IDMAP] = value
    elif key == "readonly":
        mount["ReadOnly"] = _flag(key, value)
    elif key.startswith("bind-"):
        _set_bind(mount.setdefault(_BIND, {}), key, value, whole)
    elif key.startswith("volume-"):
        _set_volume(mount.setdefault(_VOLUME, {}), key, value, whole)
    elif key == "image-subpath":
        mount.setdefault(_IMAGE, {})["Subpath"] = value
    elif key == "tmpfs-size":
        from estiba.cli.quantities import size_bytes

        try:
            mount.setdefault(_TMPFS, {})["SizeBytes"] = size_bytes(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            mount.setdefault(_TMPFS, {})["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    else:
        raise ValueError(f"unexpected key '{key}' in '{whole}'")


def _set_bind(options: dict[str, Any], key: str, value: str, whole: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-non-recursive":
        options["NonRecursive"] = _flag(key, value)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _flag(key, value)
    elif key == "bind-recursive":
        if value not in _RECURSIVE:
            raise ValueError(
                f"invalid value for {key}: {value} "
                '(must be "enabled", "disabled", "writable", or "readonly")'
            )
        options.update(_RECURSIVE[value])
    else:
        raise ValueError(f"unexpected key '{key}' in '{whole}'")


def _set_volume(options: dict[str, Any], key: str, value: str, whole: str) -> None:
    name, _, content = value.partition("=")
    if key == "volume-nocopy":
        options["NoCopy"] = _flag(key, value)
    elif key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-label":
        options.setdefault("Labels", {})[name] = content
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = content
    else:
        raise ValueError(f"unexpected key '{key}' in '{whole}'")


def _flag(key: str, value: str) -> bool:
    if value.lower() in (*_TRUE, "0", "f", "false"):
        return value.lower() in _TRUE
    raise ValueError(f"invalid value for {key}: {value}")


# -- ports ---------------------------------------------------------------------------------

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """`[[ip:]host:]container[/proto]` with ranges; (port, binding) pairs. Raises ClientError."""
    if "=" in text:
        text = _short_form(text)
    rest, slash, protocol = text.partition("/")
    kind = protocol.lower() if slash else "tcp"
    address, host, container = _split(rest, text)
    if not container:
        raise ClientError(f"no port specified: {text}<empty>")
    inside = _range(container, "containerPort")
    outside = _range(host, "hostPort") if host else []
    if kind not in _PROTOCOLS:
        raise ClientError(f"invalid proto: {protocol}")
    if outside and len(outside) != len(inside) and len(inside) != 1:
        raise ClientError(
            f"invalid ranges specified for container and host Ports: {container} and {host}"
        )
    for index, port in enumerate(inside):
        chosen = ""
        if outside:
            chosen = str(outside[index]) if len(outside) == len(inside) else host
        yield f"{port}/{kind}", {"HostIp": address, "HostPort": chosen}


def _short_form(text: str) -> str:
    """`published=8080,target=80,protocol=udp`."""
    given = {"published": "", "target": "", "protocol": "tcp"}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or key not in given:
            raise ClientError(
                f"invalid publish opts format (should be name=value but got '{field}')"
            )
        given[key] = value
    return f"{given['published']}:{given['target']}/{given['protocol']}"


def _split(rest: str, text: str) -> tuple[str, str, str]:
    """Address, host's and container's ports."""
    head, _, container = rest.rpartition(":")
    address, _, host = head.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address:
        import socket

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            socket.inet_pton(family, address)
        except OSError:
            raise ClientError(f"invalid IP address: {address}") from None
    elif head.count(":") > 1:
        raise ClientError(f"invalid IP address in {text}")
    return address, host, container


def _range(text: str, what: str) -> list[int]:
    first, dash, last = text.partition("-")
    numbers = [int(word) if word.isdecimal() else -1 for word in (first, last if dash else first)]
    low, high = numbers
    if not (0 <= low <= high <= 65535):
        raise ClientError(f"invalid {what}: {text}")
    return list(range(low, high + 1))


def parse_expose(text: str) -> Iterator[str]:
    """`80`, `80/udp`, `80-90/tcp`. Raises ClientError."""
    if ":" in text:
        raise ClientError(f"invalid port format for --expose: {text}")
    rest, slash, protocol = text.partition("/")
    kind = protocol.lower() if slash else "tcp"
    try:
        ports = _range(rest, "port")
    except ClientError:
        reason = f'strconv.ParseUint: parsing "{rest}": invalid syntax'
        raise ClientError(f"invalid range format for --expose: {text}, error: {reason}") from None
    if kind not in _PROTOCOLS:
        raise ClientError(f"invalid proto: {protocol}")
    for port in ports:
        yield f"{port}/{kind}"
