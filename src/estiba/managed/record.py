"""A plugin that the engine runs itself, as the database keeps it and inspect shows it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from estiba.managed.config import Device, Mount, PluginConfig
from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.model.event import Event, EventType
from estiba.model.image import Descriptor

KIND = "plugin"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """OpenAPI Plugin.Settings: what `set` changes."""

    mounts: list[Mount] = []
    env: list[str] = []
    args: list[str] = []
    devices: list[Device] = []


class PluginRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`name` has a tag; `place` is the directory of what came, another one after an upgrade.
    `layers` are its blobs as they are pushed, `config_body` is the config's
    as it came."""

    id: str
    name: str
    reference: str
    place: str
    created_ns: int
    config: PluginConfig
    config_body: bytes
    config_digest: Digest
    layers: list[Descriptor]
    settings: Settings = Settings()
    enabled: bool = False
    timeout_s: float = 0
    """Of a call to it; 0 is the usual one."""


def default_settings(config: PluginConfig) -> Settings:
    return Settings(
        mounts=list(config.mounts or []),
        env=[
            f"{entry.name}={entry.value}" for entry in config.env or [] if entry.value is not None
        ],
        args=list(config.args.value or []),
        devices=list(config.linux.devices or []),
    )


def plugin_view(record: PluginRecord) -> dict[str, Any]:
    """OpenAPI Plugin."""
    config = msgspec.to_builtins(record.config)
    if not config["Interface"]["ProtocolScheme"]:
        del config["Interface"]["ProtocolScheme"]
    # Left out when zero, as in Docker.
    config["User"] = {name: number for name, number in config["User"].items() if number}
    if config["rootfs"] is None:
        del config["rootfs"]
    return {
        "Id": record.id,
        "Name": record.name,
        "Enabled": record.enabled,
        "Settings": msgspec.to_builtins(record.settings),
        "PluginReference": record.reference,
        "Config": config,
    }


def encode(record: PluginRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> PluginRecord:
    return from_json(body, PluginRecord)


def plugin_event(record: PluginRecord, action: str) -> Event:
    """`create`, `pull`, `enable`, `disable` or `remove`."""
    return Event(EventType.PLUGIN, action, record.id, {"name": record.name})
