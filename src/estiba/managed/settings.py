"""`docker plugin set`: env, mounts, devices and arguments that the config lets users set. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from estiba.managed.config import PluginConfig, check_mount
from estiba.managed.record import Settings, default_settings
from estiba.model.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class _Wish:
    """NAME[.FIELD][=VALUE]"""

    name: str
    field: str
    value: str

    @property
    def shown(self) -> str:
        return f"{self.name}.{self.field}" if self.field else self.name


def change(config: PluginConfig, settings: Settings, arguments: Sequence[str]) -> Settings:
    """The settings with all of `arguments`, or InvalidArgument for one that cannot be."""
    for text in arguments:
        settings = _apply(config, settings, _parse(text))
    return settings


def carried(config: PluginConfig, before: Settings) -> Settings:
    """The settings after an upgrade: what the new config has, with what was set before where it
    still may be."""
    settings = default_settings(config)
    named = [(f"{mount.name}.source", mount.source) for mount in before.mounts]
    named += [(f"{device.name}.path", device.path) for device in before.devices]
    wishes = [*before.env, *(f"{name}={value}" for name, value in named if value is not None)]
    if config.args.name and before.args:
        wishes.append(f"{config.args.name}={' '.join(before.args)}")
    for wish in wishes:
        with contextlib.suppress(InvalidArgument):
            settings = change(config, settings, [wish])
    return settings


def _parse(text: str) -> _Wish:
    left, _, value = text.partition("=")
    if not left or "\0" in text or len(text) > 64 << 10:
        raise InvalidArgument("invalid format, must be <name>[.<field>][=<value>]")
    name, dot, field = left.rpartition(".")
    return _Wish(name, field, value) if dot and name else _Wish(left, "", value)


def _apply(config: PluginConfig, settings: Settings, wish: _Wish) -> Settings:
    for entry in config.env or ():
        if entry.name == wish.name:
            _check(wish, "value", entry.settable)
            kept = [text for text in settings.env if text.partition("=")[0] != wish.name]
            return msgspec.structs.replace(settings, env=[*kept, f"{wish.name}={wish.value}"])
    for number, mount in enumerate(settings.mounts):
        if mount.name and mount.name == wish.name:
            _check(wish, "source", mount.settable)
            changed = msgspec.structs.replace(mount, source=wish.value)
            check_mount(changed)
            mounts = [*settings.mounts[:number], changed, *settings.mounts[number + 1 :]]
            return msgspec.structs.replace(settings, mounts=mounts)
    for number, device in enumerate(settings.devices):
        if device.name and device.name == wish.name:
            _check(wish, "path", device.settable)
            path = msgspec.structs.replace(device, path=wish.value)
            devices = [*settings.devices[:number], path, *settings.devices[number + 1 :]]
            return msgspec.structs.replace(settings, devices=devices)
    if config.args.name and config.args.name == wish.name:
        _check(wish, "value", config.args.settable)
        return msgspec.structs.replace(settings, args=wish.value.split(" "))
    raise InvalidArgument(f"setting {wish.name!r} not found in the plugin configuration")


def _check(wish: _Wish, field: str, settable: list[str] | None) -> None:
    """Raises InvalidArgument unless the config says that this field may be set."""
    allowed = settable or []
    if not wish.field and len(allowed) > 1:
        raise InvalidArgument("multiple fields are settable, one must be specified")
    wanted = wish.field or (allowed[0] if allowed else "")
    if wanted != field or field not in allowed:
        raise InvalidArgument(f'"{wish.shown}" is not settable')
