"""A volume as a frozen record, and its names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from estiba.model.decoding import from_json
from estiba.model.errors import Conflict, InvalidArgument
from estiba.model.event import Event, EventType

KIND = "volume"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MAX_NAME = 200
"""Less than a file's: the directory has a longer one while the volume is being removed."""


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
    return from_json(body, VolumeRecord)


def volume_event(
    record: VolumeRecord, action: str, attributes: Mapping[str, str] | None = None
) -> Event:
    """`create`, `destroy`, `mount` or `unmount`; of our own `clone`, `snapshot`, `rollback`,
    `snapshot-remove`, `rename`, `resize`, `backup` and `restore`."""
    told = {"driver": record.driver, **(attributes or {})}
    return Event(EventType.VOLUME, action, record.name, told)


def check_name(name: str) -> None:
    """Raises InvalidArgument in Docker's words."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two "
            "alphanumeric characters"
        )
    if len(name) > _MAX_NAME:
        raise InvalidArgument(
            f"create {name[:64]}…: volume name is too long, {_MAX_NAME} characters at most"
        )
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name[:64]}: "{name[:64]}" includes invalid characters for a local volume '
            'name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a '
            "host directory, use absolute path"
        )


def check_same(existing: VolumeRecord, driver: str, options: Mapping[str, str]) -> None:
    """Raises Conflict when the volume that there is differs from one that is asked for."""
    if existing.driver != driver:
        raise Conflict(
            f"create {existing.name}: conflict: a volume of that name already exists with driver "
            f"{existing.driver}: choose another name"
        )
    if options and dict(options) != existing.options:
        raise Conflict(
            f"create {existing.name}: conflict: a volume of that name has other options: "
            "remove it or choose another name"
        )
