"""Volumes that plugins know and no record names: made elsewhere, or before this engine."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from estiba.model.errors import EstibaError, InvalidArgument
from estiba.volumes.driver import Drivers
from estiba.volumes.record import VolumeRecord, check_name

_log = logging.getLogger(__name__)
_MAX_OF_ONE = 10_000


def find_strangers(drivers: Drivers, known: Collection[str]) -> list[VolumeRecord]:
    """Of plugins that have been greeted; one that does not answer has none. Blocks."""
    found: dict[str, VolumeRecord] = {}
    for driver_name, driver in drivers.active().items():
        try:
            listed = driver.list()
        except (EstibaError, OSError) as error:
            _log.warning("volumes of the plugin %s: %s", driver_name, error)
            continue
        for one in listed[:_MAX_OF_ONE]:
            if one.name not in known and _is_usable(one.name):
                created_ns = _moment_ns(one.created_at)
                record = VolumeRecord(name=one.name, created_ns=created_ns, driver=driver_name)
                found.setdefault(one.name, record)
    return list(found.values())


def _is_usable(name: str) -> bool:
    try:
        check_name(name)
    except InvalidArgument:
        return False
    return True


def _moment_ns(text: str) -> int:
    """Of RFC 3339, in nanoseconds since the epoch; 0 for what is none."""
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0
