"""Events: what happened to which object, as rows of the commit that made it true."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EventType(StrEnum):
    CONTAINER = "container"
    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "volume"
    DAEMON = "daemon"
    PLUGIN = "plugin"
    BUILDER = "builder"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `action` and `attributes` are those of the Engine API's EventMessage."""

    type: EventType
    action: str
    actor_id: str
    attributes: dict[str, str] = field(default_factory=dict)
    time_ns: int = 0
    sequence: int = 0


def prune_event(kind: EventType, reclaimed_bytes: int = 0) -> Event:
    """The one event of a whole prune, after those of what it removed."""
    return Event(kind, "prune", "", {"reclaimed": str(reclaimed_bytes)})
