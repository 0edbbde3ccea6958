"""What a network driver does, and the two drivers that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from estiba.model.container import EndpointSettings
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec, PortRequest, endpoint_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A container that is to join a network."""

    container_id: str
    container_name: str
    sandbox: Path
    interface: str
    settings: EndpointSettings = field(default_factory=EndpointSettings)
    ports: tuple[PortRequest, ...] = ()
    dns_names: tuple[str, ...] = ()
    is_gateway: bool = True
    """The container's default route leads through this network."""

    before: Endpoint | None = None
    """What the container had on the network in its run before: given again where it is free."""


class Driver(Protocol):
    """All methods block, and all but `plan` may be done twice without harm."""

    def plan(self, network_id: str, spec: NetworkSpec, created_ns: int) -> NetworkRecord:
        """A record with every choice made. Raises InvalidArgument or Conflict."""

    def ensure(self, network: NetworkRecord) -> None:
        """Makes what the network needs on the host."""

    def remove(self, network: NetworkRecord) -> None:
        """Takes away what `ensure` made."""

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        """Joins the container to the network; leaves nothing behind when it raises."""

    def disconnect(self, endpoint: Endpoint) -> None:
        """Undoes `connect`."""

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        """Publishes exactly these ports of a live endpoint; nothing changes when it raises."""

    def adopt(self, endpoints: list[Endpoint]) -> None:
        """Takes over endpoints of live containers after a restart of the engine."""


class EndpointObserver(Protocol):
    """Hears of every endpoint of the engine, from any thread: names, policies.

    `joined` is called when the endpoint is whole and before its container's program starts; what
    it raises undoes the connection. `left` is called before the endpoint goes, perhaps twice.
    """

    def joined(self, network: NetworkRecord, endpoint: Endpoint) -> None: ...

    def left(self, endpoint: Endpoint) -> None: ...

    def adopted(self, endpoints: Sequence[tuple[NetworkRecord, Endpoint]]) -> None:
        """All of live containers, once, after a restart of the engine."""

    def removed(self, network: NetworkRecord) -> None:
        """The network is no more."""


class HostDriver:
    """`host` and `none`: the container has the host's namespace, or one with loopback only."""

    def plan(self, network_id: str, spec: NetworkSpec, created_ns: int) -> NetworkRecord:
        return NetworkRecord(
            id=network_id, name=spec.name, driver=spec.driver, created_ns=created_ns
        )

    def ensure(self, network: NetworkRecord) -> None:
        pass

    def remove(self, network: NetworkRecord) -> None:
        pass

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        """Ports are not published: there is nothing to translate (Docker discards them too)."""
        return Endpoint(
            id=endpoint_id(attachment.container_id, network.id),
            network_id=network.id,
            network_name=network.name,
            driver=network.driver,
            container_id=attachment.container_id,
            container_name=attachment.container_name,
            requested=attachment.settings,
        )

    def disconnect(self, endpoint: Endpoint) -> None:
        pass

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        """As with `connect` there is nothing to translate."""
        return endpoint

    def adopt(self, endpoints: list[Endpoint]) -> None:
        pass
