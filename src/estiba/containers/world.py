"""What every actor shares: the store, the effects, the tasks, and the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from estiba.containers.health import RunProbe
from estiba.containers.ports import Connecting, Controls, Paths, Steps
from estiba.containers.record import ContainerRecord
from estiba.containers.tasks import Tasks
from estiba.store import Store


@dataclass(slots=True)
class World:
    """Made once by the wiring and handed to the engine, which fills in the last three."""

    store: Store
    paths: Paths
    steps: Steps
    controls: Controls
    connecting: Connecting
    probe: Callable[[ContainerRecord], RunProbe]
    remove_volumes: Callable[[ContainerRecord], Awaitable[None]]
    tasks: Tasks = field(default_factory=Tasks)
    is_quiet: bool = True
    """While the engine starts or stops: no restart, no automatic removal."""

    linking: Callable[[str], list[ContainerRecord]] = lambda _id: []
    """Containers that are up and linked to that one."""

    forget: Callable[[str], None] = lambda _id: None
    is_gone: Callable[[str], bool] = lambda _id: False
