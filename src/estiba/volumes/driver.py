"""What a volume driver does, whoever it is: the local one, or a plugin in a process of its own.

`Volumes` owns records, events and who uses what; a driver owns the data and where it lies. All
methods block and may be called from any thread; two calls for one volume never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from estiba.model.errors import NotFound

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class DriverVolume:
    """A volume as its driver knows it; `created_at` is RFC 3339, `mountpoint` empty if unknown."""

    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)


class VolumeDriver(Protocol):
    """One driver, found by its name.

    All methods raise EstibaError or OSError in words that name the volume.
    """

    @property
    def scope(self) -> str:
        """`local`, or `global` when other hosts see the same volumes."""

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Makes the volume; one that exists is no error. Raises InvalidArgument for options."""

    def remove(self, name: str) -> None:
        """Removes volume and data. Raises NotFound when there is none."""

    def mount(self, name: str, user: str) -> Path:
        """Makes the data reachable for `user` (an id) and says where; called once a user."""

    def unmount(self, name: str, user: str) -> None:
        """Undoes `mount`; harmless for a user that has nothing mounted."""

    def path(self, name: str) -> str:
        """Where the data lies or would lie once mounted; empty if that is unknown yet."""

    def get(self, name: str) -> DriverVolume:
        """Raises NotFound."""

    def list(self) -> list[DriverVolume]:
        """All volumes that the driver knows, others' too."""


class Drivers(Protocol):
    """Drivers other than the local one."""

    def find(self, name: str) -> VolumeDriver:
        """Raises NotFound in Docker's words when no plugin of that name answers."""

    def active(self) -> Mapping[str, VolumeDriver]:
        """By name all that there are; one that has not answered is not asked again."""

    def full_name(self, name: str) -> str:
        """What records call the driver."""

    def is_confined(self, name: str) -> bool:
        """Whether it runs in the engine's sandbox: its paths may turn into links at any time."""


class NoDrivers:
    """`Drivers` of an engine without plugins."""

    def find(self, name: str) -> VolumeDriver:
        raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found')

    def active(self) -> Mapping[str, VolumeDriver]:
        return {}

    def full_name(self, name: str) -> str:
        return name

    def is_confined(self, name: str) -> bool:
        return False
