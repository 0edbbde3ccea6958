"""What the containers package needs of the packages below it; `daemon.wiring` fills it.

Everything here is idempotent and derives its names from the container's id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from estiba.containers.attach import Console
from estiba.containers.record import AttachedNetwork, ContainerRecord, Process
from estiba.model.container import PortBinding, Resources
from estiba.network.record import NetworkRecord


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended; `error` says why when it was not the program's own end."""

    code: int
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """A container that is created in the runtime and waits to be released."""

    container: Process
    monitor: Process
    networks: list[AttachedNetwork] = field(default_factory=list)
    ports: dict[str, list[PortBinding]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything of one engine lives."""

    data_root: Path
    exec_root: Path

    def state(self, container_id: str) -> Path:
        """What outlives a run: log, host files."""
        return self.data_root / "containers" / container_id

    def run(self, container_id: str) -> Path:
        """What one run needs: bundle, root mount, sockets."""
        return self.exec_root / "containers" / container_id

    def rootfs(self, container_id: str) -> Path:
        return self.run(container_id) / "rootfs"

    def log(self, container_id: str) -> Path:
        return self.state(container_id) / "container.log"


class Steps(Protocol):
    """The effects of a container's life, each harmless when done twice."""

    async def prepare(self, record: ContainerRecord) -> None:
        """Makes what a created container owns: its snapshot, directories and volumes."""

    async def discard(self, record: ContainerRecord) -> None:
        """Removes what `prepare` made, but for named volumes."""

    async def bring_up(self, record: ContainerRecord) -> BroughtUp:
        """Mounts, connects and creates the container in the runtime."""

    async def release(self, record: ContainerRecord) -> None:
        """Starts the program of a container that was brought up."""

    async def tear_down(self, record: ContainerRecord) -> None:
        """Ends whatever is left of a run: processes, mounts, endpoints."""

    async def wait_exit(self, record: ContainerRecord) -> Exit:
        """Waits for the end of the run, however long."""

    def watch_memory(self, record: ContainerRecord, killed: Callable[[], None]) -> None:
        """Calls `killed` when the kernel kills a process of the run for memory, once a run."""

    async def open_console(self, record: ContainerRecord) -> Console:
        """Connects to the standard streams of a container that was brought up."""


class Connecting(Protocol):
    """The networks of a container that is up, each change harmless when done twice.

    Each returns the networks that the container has then, with what it was given on them.
    """

    def find(self, reference: str) -> NetworkRecord:
        """A network by name or id. Raises NotFound, or InvalidArgument for an ambiguous id."""

    async def join(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        """Joins one more network; `restore` undoes what it has done when it raises."""

    async def leave(self, record: ContainerRecord, net: AttachedNetwork) -> list[AttachedNetwork]:
        """Leaves a network."""

    async def publish(self, record: ContainerRecord) -> list[AttachedNetwork]:
        """Publishes the ports that the record asks for, and no others."""

    async def rename(self, record: ContainerRecord, name: str) -> list[AttachedNetwork]:
        """The container is called otherwise."""

    async def restore(self, record: ContainerRecord) -> None:
        """Makes the kernel agree with the record."""

    async def tell_linking(self, parents: list[ContainerRecord]) -> None:
        """Containers learn where those that they are linked to are now."""

    async def forget_link(self, record: ContainerRecord, names: str) -> None:
        """Takes a link's names out of the container's /etc/hosts."""


class Controls(Protocol):
    """What can be done to a container that is up."""

    async def signal(self, record: ContainerRecord, number: int) -> None: ...

    async def pause(self, record: ContainerRecord) -> None: ...

    async def unpause(self, record: ContainerRecord) -> None: ...

    async def update(self, record: ContainerRecord, resources: Resources) -> None: ...

    async def resize(self, record: ContainerRecord, height: int, width: int) -> None: ...

    async def reopen_log(self, record: ContainerRecord) -> None: ...
