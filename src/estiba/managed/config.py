"""The config of a plugin (`application/vnd.docker.plugin.v1+json`), checked. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import msgspec

from estiba.model.decoding import from_plain, without_nulls
from estiba.model.errors import InvalidArgument, LimitExceeded

MEDIA_CONFIG = "application/vnd.docker.plugin.v1+json"
MAX_BYTES = 1 << 20

_SOCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_TYPE = re.compile(r"[a-z0-9]+\.[a-z0-9]+/[0-9.]+")
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z_]{1,32}")
_MAX_ITEMS = 128
_MAX_DEPTH = 32
_NETWORKS = ("", "null", "none", "host", "bridge")
_MOUNT_TYPES = ("bind", "tmpfs")
RUN_DIRECTORY = "/run/docker/plugins"


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    pass


class Interface(_Part, frozen=True):
    types: list[str] = []
    socket: str = ""
    protocol_scheme: str = ""


class Mount(_Part, frozen=True):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    source: str | None = None
    destination: str = ""
    type: str = ""
    options: list[str] | None = None


class Device(_Part, frozen=True):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    path: str | None = None


class Env(_Part, frozen=True):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    value: str | None = None


class Args(_Part, frozen=True):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    value: list[str] | None = None


class Network(_Part, frozen=True):
    type: str = ""


class Linux(_Part, frozen=True):
    capabilities: list[str] | None = None
    allow_all_devices: bool = False
    devices: list[Device] | None = None


class User(_Part, frozen=True):
    uid: int = msgspec.field(default=0, name="UID")
    gid: int = msgspec.field(default=0, name="GID")


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[str] = []


class PluginConfig(_Part, frozen=True):
    """OpenAPI Plugin.Config, as files have it (keys of any case)."""

    docker_version: str = ""
    description: str = ""
    documentation: str = ""
    interface: Interface = Interface()
    entrypoint: list[str] = []
    work_dir: str = ""
    user: User = User()
    network: Network = Network()
    linux: Linux = Linux()
    propagated_mount: str = ""
    ipc_host: bool = False
    pid_host: bool = False
    mounts: list[Mount] | None = None
    env: list[Env] | None = None
    args: Args = Args()
    rootfs: Rootfs | None = msgspec.field(default=None, name="rootfs")


class Privilege(msgspec.Struct, frozen=True, rename="pascal"):
    """OpenAPI PluginPrivilege."""

    name: str
    description: str = ""
    value: list[str] | None = None


def parse_config(data: bytes) -> PluginConfig:
    """Raises InvalidArgument saying what is wrong, LimitExceeded."""
    if len(data) > MAX_BYTES:
        raise LimitExceeded(f"the plugin's config.json is larger than {MAX_BYTES} bytes")
    try:
        plain = without_nulls(msgspec.json.decode(data), _MAX_DEPTH)
        config = from_plain(_cased(plain, _MAX_DEPTH), PluginConfig)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"failed to parse the plugin's config.json: {error}") from error
    check_config(config)
    return config


def check_config(config: PluginConfig) -> None:
    """Raises InvalidArgument."""
    if not config.entrypoint or not all(config.entrypoint):
        raise InvalidArgument("invalid plugin config: it names no entrypoint")
    if not _SOCKET.fullmatch(config.interface.socket):
        raise InvalidArgument(
            f"invalid plugin config: interface.socket {config.interface.socket[:64]!r} is no "
            "file name"
        )
    if config.interface.protocol_scheme not in ("", "moby.plugins.http/v1"):
        raise InvalidArgument(
            f"invalid plugin config: protocol {config.interface.protocol_scheme[:64]!r} is not "
            "known: use moby.plugins.http/v1"
        )
    for kind in config.interface.types:
        if not _TYPE.fullmatch(kind):
            raise InvalidArgument(
                f"invalid plugin config: interface type {kind[:64]!r}: write it as "
                "docker.volumedriver/1.0"
            )
    if config.network.type not in _NETWORKS:
        raise InvalidArgument(f"invalid plugin config: network type {config.network.type[:64]!r}")
    for name in config.linux.capabilities or ():
        if not _CAPABILITY.fullmatch(name):
            raise InvalidArgument(f"invalid plugin config: capability {name[:64]!r}")
    _check_lists(config)
    for mount in config.mounts or ():
        check_mount(mount)
    _check_path(config.work_dir, "workdir")
    _check_path(config.propagated_mount, "propagatedMount")
    if posixpath.normpath(config.propagated_mount or "/x") in ("/", RUN_DIRECTORY):
        raise InvalidArgument(
            f"invalid plugin config: propagatedMount {config.propagated_mount}: use a directory "
            "of its own"
        )


def check_mount(mount: Mount) -> None:
    """Of the config, or with a source that was set. Raises InvalidArgument."""
    if mount.type not in _MOUNT_TYPES:
        raise InvalidArgument(
            f"invalid plugin config: mount type {mount.type[:32]!r}: use "
            f"{' or '.join(_MOUNT_TYPES)}"
        )
    if not mount.destination.startswith("/") or posixpath.normpath(mount.destination) == "/":
        raise InvalidArgument(
            f"invalid plugin config: mount destination {mount.destination[:128]!r}"
        )
    _check_path(mount.destination, "mount destination")
    if mount.type == "bind" and mount.source:
        _check_path(mount.source, "mount source")


def privileges_of(config: PluginConfig) -> list[Privilege]:
    """What whoever installs the plugin has to grant, in Docker's order and words."""
    found: list[Privilege] = []

    def need(name: str, description: str, value: list[str]) -> None:
        found.append(Privilege(name, description, value))

    if config.network.type not in ("null", "none", "bridge", ""):
        need("network", "permissions to access a network", [config.network.type])
    if config.ipc_host:
        need("host ipc namespace", "allow access to host ipc namespace", ["true"])
    if config.pid_host:
        need("host pid namespace", "allow access to host pid namespace", ["true"])
    for mount in config.mounts or ():
        if mount.source is not None:
            need("mount", "host path to mount", [mount.source])
    for device in config.linux.devices or ():
        if device.path is not None:
            need("device", "host device to access", [device.path])
    if config.linux.allow_all_devices:
        need("allow-all-devices", "allow 'rwm' access to all devices", ["true"])
    if config.linux.capabilities:
        need(
            "capabilities",
            "list of additional capabilities required",
            list(config.linux.capabilities),
        )
    return found


def check_privileges(config: PluginConfig, granted: list[Privilege]) -> None:
    """Exactly those that the plugin needs, in any order. Raises InvalidArgument."""

    def key(privilege: Privilege) -> tuple[str, str, list[str]]:
        return privilege.name, privilege.description, sorted(privilege.value or [])

    if sorted(map(key, privileges_of(config))) != sorted(map(key, granted)):
        raise InvalidArgument(
            "incorrect privileges: ask for those of the plugin (GET /plugins/privileges) and "
            "grant exactly them"
        )


def implements(config: PluginConfig) -> frozenset[str]:
    """The names of its drivers in the protocol."""
    known = {
        "volumedriver": "VolumeDriver",
        "networkdriver": "NetworkDriver",
        "ipamdriver": "IpamDriver",
    }
    words = {kind.partition("/")[0].partition(".")[2] for kind in config.interface.types}
    return frozenset(known[word] for word in words if word in known)


def _check_lists(config: PluginConfig) -> None:
    lists: dict[str, Any] = {
        "mounts": config.mounts,
        "env": config.env,
        "linux.devices": config.linux.devices,
        "linux.capabilities": config.linux.capabilities,
        "interface.types": config.interface.types,
        "entrypoint": config.entrypoint,
        "args.value": config.args.value,
    }
    for name, items in lists.items():
        if len(items or ()) > _MAX_ITEMS:
            raise InvalidArgument(f"invalid plugin config: {name} has more than {_MAX_ITEMS} items")
    texts = [*config.entrypoint, *(config.args.value or [])]
    texts += [entry.name for entry in config.env or ()]
    texts += [entry.value or "" for entry in config.env or ()]
    if any("\0" in text or len(text) > 64 << 10 for text in texts):
        raise InvalidArgument("invalid plugin config: a word is too long or holds a NUL byte")
    if any(not entry.name or "=" in entry.name for entry in config.env or ()):
        raise InvalidArgument("invalid plugin config: a variable without a usable name")


def _check_path(path: str, what: str) -> None:
    if not path:
        return
    if not path.startswith("/") or "\0" in path or len(path) > 4096 or ".." in path.split("/"):
        raise InvalidArgument(f"invalid plugin config: {what} {path[:128]!r} is no absolute path")


_NAMES = {
    "dockerversion": "DockerVersion", "description": "Description",
    "documentation": "Documentation", "interface": "Interface", "entrypoint": "Entrypoint",
    "workdir": "WorkDir", "user": "User", "network": "Network", "linux": "Linux",
    "propagatedmount": "PropagatedMount", "ipchost": "IpcHost", "pidhost": "PidHost",
    "mounts": "Mounts", "env": "Env", "args": "Args", "rootfs": "rootfs", "types": "Types",
    "socket": "Socket", "protocolscheme": "ProtocolScheme", "name": "Name",
    "settable": "Settable", "source": "Source", "destination": "Destination", "type": "Type",
    "options": "Options", "path": "Path", "value": "Value", "capabilities": "Capabilities",
    "allowalldevices": "AllowAllDevices", "devices": "Devices", "uid": "UID", "gid": "GID",
}  # fmt: skip


def _cased(value: Any, depth: int, *, inside: object = "") -> Any:
    """Keys as Go matches them: in any case."""
    if depth == 0:
        raise InvalidArgument("failed to parse the plugin's config.json: nested too deeply")
    if isinstance(value, dict):
        if inside == "rootfs":
            return {key.lower(): item for key, item in value.items()}
        named = {_NAMES.get(key.lower(), key): item for key, item in value.items()}
        return {key: _cased(item, depth - 1, inside=key) for key, item in named.items()}
    if isinstance(value, list):
        return [_cased(item, depth - 1) for item in value]
    return value
