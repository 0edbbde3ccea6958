"""Volumes of a plugin: `VolumeDriver` by Docker's plugin protocol (`/VolumeDriver.*`).

What a plugin does is out of our hands, and so every error says its name; nothing here is kept but
where volumes are mounted, which a plugin may tell anew at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from estiba.model.errors import EstibaError, FailedPrecondition, Internal, NotFound
from estiba.plugins.client import PluginError
from estiba.plugins.registry import VOLUME, Plugin, Registry
from estiba.volumes.driver import DriverVolume, VolumeDriver

T = TypeVar("T", bound=msgspec.Struct)
_SLOW_S = 120.0
_UNMOUNT_S = 20.0
_UNMOUNT_AWAY_S = 3.0


class _Nothing(msgspec.Struct, frozen=True):
    pass


class _Mountpoint(msgspec.Struct, frozen=True, rename="pascal"):
    mountpoint: str = ""


class _Volume(msgspec.Struct, frozen=True, rename="pascal"):
    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] | None = None


class _Got(msgspec.Struct, frozen=True, rename="pascal"):
    volume: _Volume | None = None


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    volumes: list[_Volume | None] | None = None


class _Scope(msgspec.Struct, frozen=True, rename="pascal"):
    scope: str = ""


class _Capabilities(msgspec.Struct, frozen=True, rename="pascal"):
    capabilities: _Scope | None = None


class RemoteVolumes:
    """`volumes.driver.VolumeDriver` of one plugin, which is greeted at the first call."""

    def __init__(self, name: str, registry: Registry) -> None:
        self._name = name
        self._registry = registry
        self._lock = threading.Lock()
        self._users: dict[str, set[str]] = {}
        self._mounted: dict[str, str] = {}
        self._scope = ""

    @property
    def scope(self) -> str:
        """Asked once; one that cannot say is `local`, as in Docker."""
        if not self._scope:
            try:
                found = self._ask("Capabilities", {}, _Capabilities)
            except PluginError:
                self._scope = "local"
            else:
                said = found.capabilities.scope.lower() if found.capabilities else ""
                self._scope = said if said in ("local", "global") else "local"
        return self._scope

    def create(self, name: str, options: Mapping[str, str]) -> None:
        self._do("create", "Create", name, _Nothing, Opts=dict(options))

    def remove(self, name: str) -> None:
        """Raises NotFound too when the plugin itself is not there any more."""
        self._do("remove", "Remove", name, _Nothing)
        with self._lock:
            self._mounted.pop(name, None)
            self._users.pop(name, None)

    def mount(self, name: str, user: str) -> Path:
        found = self._do("mount", "Mount", name, _Mountpoint, ID=user)
        try:
            path = self._host_path(found.mountpoint)
        except (EstibaError, OSError):
            self.unmount(name, user)
            raise
        with self._lock:
            self._mounted[name] = path
            self._users.setdefault(name, set()).add(user)
        return Path(path)

    def unmount(self, name: str, user: str) -> None:
        """A plugin that is away is not waited for long: a container's end hangs on it."""
        self._ask(
            "Unmount",
            {"Name": name, "ID": user},
            _Nothing,
            about=f"unmount {name}: ",
            timeout_s=_UNMOUNT_S,
            away_s=_UNMOUNT_AWAY_S,
        )
        with self._lock:
            users = self._users.get(name, set())
            users.discard(user)
            if not users:
                self._mounted.pop(name, None)

    def path(self, name: str) -> str:
        with self._lock:
            mounted = self._mounted.get(name)
        if mounted:
            return mounted
        found = self._ask("Path", {"Name": name}, _Mountpoint, about=f"get {name}: ")
        return self._shown_path(found.mountpoint)

    def get(self, name: str) -> DriverVolume:
        about = f"get {name}: "
        try:
            found = self._ask("Get", {"Name": name}, _Got, about=about).volume
        except PluginError as error:
            raise NotFound(str(error)) from error
        if found is None:
            raise NotFound(f"{about}no such volume")
        return self._view(found)

    def list(self) -> list[DriverVolume]:
        found = self._ask("List", {}, _Listed)
        return [self._view(volume) for volume in found.volumes or [] if volume and volume.name]

    # -- the plugin ------------------------------------------------------------------------

    def _view(self, volume: _Volume) -> DriverVolume:
        return DriverVolume(
            name=volume.name,
            mountpoint=self._shown_path(volume.mountpoint),
            created_at=volume.created_at,
            status=volume.status or {},
        )

    def _shown_path(self, told: str) -> str:
        """Empty for one that is not there, or not yet."""
        try:
            return self._host_path(told) if told else ""
        except EstibaError:
            return ""

    def _host_path(self, told: str) -> str:
        """Raises Internal for what is no absolute path."""
        if not told.startswith("/") or "\0" in told:
            raise Internal(
                f"volume plugin {self._name} gave no absolute path as the mountpoint: "
                f"{told[:128]!r}"
            )
        return self._plugin(is_query=True).find_path(told)

    def _plugin(self, *, is_query: bool) -> Plugin:
        return find_volume_plugin(self._registry, self._name, is_query=is_query)

    def _do(self, verb: str, method: str, name: str, kind: type[T], **more: object) -> T:
        client = self._plugin(is_query=False).client
        arguments = {"Name": name, **more}
        try:
            return client.call(f"{VOLUME}.{method}", arguments, kind, timeout_s=_SLOW_S)
        except EstibaError as error:
            raise type(error)(f"{verb} {name}: {error}") from error

    def _ask(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        kind: type[T],
        *,
        about: str = "",
        **patience: float,
    ) -> T:
        client = self._plugin(is_query=True).client
        try:
            return client.call(f"{VOLUME}.{method}", arguments, kind, is_query=True, **patience)
        except EstibaError as error:
            raise type(error)(f"{about}{error}") from error


class PluginDrivers:
    """`volumes.driver.Drivers`: one driver a plugin."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._drivers: dict[str, RemoteVolumes] = {}

    def find(self, name: str) -> VolumeDriver:
        if not self._registry.exists(name):
            raise NotFound(_not_found(name))
        with self._lock:
            return self._drivers.setdefault(name, RemoteVolumes(name, self._registry))

    def full_name(self, name: str) -> str:
        return self._registry.full_name(name)

    def is_confined(self, name: str) -> bool:
        return self._registry.is_managed(name)

    def active(self) -> Mapping[str, VolumeDriver]:
        self._registry.look_around()
        return {name: self.find(name) for name in self._registry.active(VOLUME)}


def find_volume_plugin(registry: Registry, name: str, *, is_query: bool) -> Plugin:
    """Errors in Docker's words."""
    try:
        return registry.get(name, VOLUME, is_query=is_query)
    except NotFound as error:
        raise NotFound(_not_found(name)) from error
    except FailedPrecondition as error:
        raise FailedPrecondition(f"error looking up volume plugin {name}: {error}") from error


def _not_found(name: str) -> str:
    return f'error looking up volume plugin {name}: plugin "{name}" not found'
