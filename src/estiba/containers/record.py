"""The frozen state of one container: what the database keeps and every reader sees.

The actor is the only writer; a change replaces the record as a whole.
"""

from __future__ import annotations

import msgspec

from estiba.model.container import (
    Config,
    EndpointSettings,
    HostConfig,
    PortBinding,
    TmpfsOptions,
)
from estiba.model.decoding import from_json
from estiba.model.digest import Digest
from estiba.model.state import ContainerState
from estiba.network.record import Endpoint

KIND = "container"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process by identity: the start time (clock ticks since boot) tells a reused pid apart."""

    pid: int
    start_time: int


class MountPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mount of a container: what inspect shows and what the start performs."""

    type: str
    destination: str
    name: str = ""
    source: str = ""
    driver: str = ""
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    no_copy: bool = False
    subpath: str = ""
    create_source: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    tmpfs_options: TmpfsOptions | None = None
    layers: list[Digest] = []
    """Of an image mount, whose `source` is the image's id and `name` what it was asked by."""

    idmap: str | None = None
    """How owners are mapped, as `containers.idmaps` reads it."""


class AttachedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One network of the container: what was asked for, and what it has while it is up."""

    network: str
    requested: EndpointSettings
    endpoint: Endpoint | None = None
    """What the container has on the network while it is up."""

    before: Endpoint | None = None
    """What it had when it was last up: the next run gets the same where it is free."""

    @property
    def at_rest(self) -> AttachedNetwork:
        """The same of a container that is not up any more."""
        return AttachedNetwork(
            network=self.network, requested=self.requested, before=self.endpoint or self.before
        )

    def renamed(self, old: str, name: str) -> AttachedNetwork:
        """The same of a container that is not up and is called otherwise now."""
        if self.before is None:
            return self
        names = [name if one == old else one for one in self.before.dns_names]
        before = msgspec.structs.replace(self.before, container_name=name, dns_names=names)
        return msgspec.structs.replace(self, before=before)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is starting, healthy or unhealthy; `log` the newest probe results."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[ProbeResult] = []


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    started_ns: int
    ended_ns: int
    exit_code: int
    output: str


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must be known of a container after a restart of the engine."""

    id: str
    name: str
    created_ns: int
    image_id: Digest
    image_name: str
    layers: list[Digest]
    config: Config
    host_config: HostConfig
    runtime: str
    mounts: list[MountPlan] = []
    networks: list[AttachedNetwork] = []
    links: dict[str, str] = {}
    """Ids of the containers that it is linked to on the default bridge, by alias."""

    ports: dict[str, list[PortBinding]] = {}
    """Published ports as bound, kept over a restart so that ephemeral ones stay."""

    state: ContainerState = ContainerState.CREATED
    container: Process | None = None
    monitor: Process | None = None
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restart_count: int = 0
    stopped_by_user: bool = False
    health: Health | None = None

    @property
    def path(self) -> str:
        """The program, as inspect's Path shows it."""
        return self.argv[0] if self.argv else ""

    @property
    def argv(self) -> list[str]:
        """Entrypoint and command in one list."""
        return [*(self.config.entrypoint or []), *(self.config.cmd or [])]

    @property
    def mounted_layers(self) -> list[Digest]:
        """Layers of images that are mounted in the container, beside its own."""
        return [layer for mount in self.mounts for layer in mount.layers]

    @property
    def endpoints(self) -> list[Endpoint]:
        """What it has on its networks while it is up."""
        return [net.endpoint for net in self.networks if net.endpoint is not None]

    @property
    def anonymous_volumes(self) -> list[str]:
        """Volumes that were made for this container alone."""
        return [mount.name for mount in self.mounts if mount.anonymous]


def encode(record: ContainerRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> ContainerRecord:
    return from_json(body, ContainerRecord)
