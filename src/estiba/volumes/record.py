"""A volume as a frozen record, and its names."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from estiba.model.event import Event, EventType

KIND = "volume"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One volume of the local driver."""

    name: str
    created_ns: int
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    moved_from: str = ""
    """The name that its directory may still have: a change of names that is under way."""

    @property
    def is_anonymous(self) -> bool:
        """The engine chose the name, and so nobody counts on the volume by name."""
        return ANONYMOUS_LABEL in self.labels


def encode(record: VolumeRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> VolumeRecord:
    return msgspec.json.decode(body, type=VolumeRecord)


def volume_event(
    record: VolumeRecord, action: str, attributes: Mapping[str, str] | None = None
) -> Event:
    """`create`, `destroy`, `mount` or `unmount`; of our own `clone`, `snapshot`, `rollback`,
    `snapshot-remove`, `rename`, `backup` and `restore`."""
    told = {"driver": record.driver, **(attributes or {})}
    return Event(EventType.VOLUME, action, record.name, told)
