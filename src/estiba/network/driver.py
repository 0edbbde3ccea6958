"""What a network driver does, and the two drivers that do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from estiba.kernel.rtnetlink import Counters
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
    default_route: tuple[int, ...] = (4, 6)
    """The families of which the container's default route leads through this network."""

    before: Endpoint | None = None
    """What the container had on the network in its run before: given again where it is free."""

    before_link: Callable[[Endpoint], None] = lambda endpoint: None
    """To be told the endpoint, with all its addresses, before anything can come by its link."""


class Driver(Protocol):
    """All methods block, and all but `plan` may be done twice without harm."""

    interface_prefix: str
    """What names of interfaces in containers begin with; empty where they get none."""

    def plan(
        self, network_id: str, spec: NetworkSpec, created_ns: int, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        """A record with every choice made, given all other networks.

        Raises InvalidArgument, Forbidden or Conflict.
        """

    def ensure(self, network: NetworkRecord) -> None:
        """Makes what the network needs on the host."""

    def start(self) -> None:
        """Called once, when all networks are made and before any endpoint is."""

    def remove(self, network: NetworkRecord) -> None:
        """Takes away what `ensure` made."""

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        """Joins the container to the network; leaves nothing behind when it raises."""

    def disconnect(self, endpoint: Endpoint, sandbox: Path) -> None:
        """Undoes `connect`; the sandbox may be gone."""

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        """The endpoint with these ports published instead, or as it was when it raises."""

    def renamed(self, endpoint: Endpoint) -> None:
        """The endpoint's container has another name."""

    def adopt(self, endpoints: list[Endpoint]) -> None:
        """Takes over endpoints of live containers after a restart of the engine."""

    def counters(self, endpoint: Endpoint, sandbox: Path) -> Counters | None:
        """Traffic, as the container sees it; None where there is no interface."""

    def sweep(self, endpoints: Iterable[Endpoint]) -> None:
        """Removes from the host what none of all live endpoints needs."""

    def drain(self) -> None:
        """Waits until everything taken away so far is gone."""

    def close(self, *, delete: bool = False) -> None:
        """Lets go of everything, or takes it away."""


class EndpointObserver(Protocol):
    """Hears of every endpoint of the engine, from any thread: names, policies.

    `joined` is called when the endpoint is whole and before its container's program starts; what
    it raises undoes the connection. `left` is called before the endpoint goes, perhaps twice.
    """

    def joining(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """Its link is not there yet; not every driver says so. What it raises undoes all."""

    def joined(self, network: NetworkRecord, endpoint: Endpoint) -> None: ...

    def left(self, endpoint: Endpoint) -> None: ...

    def adopted(self, endpoints: Sequence[tuple[NetworkRecord, Endpoint]]) -> None:
        """All of live containers, once, after a restart of the engine."""

    def removed(self, network: NetworkRecord) -> None:
        """The network is no more."""


class HostDriver:
    """`host` and `none`: the container has the host's namespace, or one with loopback only."""

    interface_prefix = ""

    def plan(
        self, network_id: str, spec: NetworkSpec, created_ns: int, others: Sequence[NetworkRecord]
    ) -> NetworkRecord:
        return NetworkRecord(
            id=network_id, name=spec.name, driver=spec.driver, created_ns=created_ns
        )

    def ensure(self, network: NetworkRecord) -> None:
        pass

    def start(self) -> None:
        pass

    def remove(self, network: NetworkRecord) -> None:
        pass

    def connect(self, network: NetworkRecord, attachment: Attachment) -> Endpoint:
        """Ports are not published: there is nothing to translate (Docker discards them too)."""
        return new_endpoint(network, attachment)

    def disconnect(self, endpoint: Endpoint, sandbox: Path) -> None:
        pass

    def republish(
        self, network: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> Endpoint:
        return endpoint

    def renamed(self, endpoint: Endpoint) -> None:
        pass

    def adopt(self, endpoints: list[Endpoint]) -> None:
        pass

    def counters(self, endpoint: Endpoint, sandbox: Path) -> Counters | None:
        return None

    def sweep(self, endpoints: Iterable[Endpoint]) -> None:
        pass

    def drain(self) -> None:
        pass

    def close(self, *, delete: bool = False) -> None:
        pass


def new_endpoint(network: NetworkRecord, attachment: Attachment) -> Endpoint:
    """An endpoint that has been given nothing yet."""
    return Endpoint(
        id=endpoint_id(attachment.container_id, network.id),
        network_id=network.id,
        network_name=network.name,
        driver=network.driver,
        container_id=attachment.container_id,
        container_name=attachment.container_name,
        requested=attachment.settings,
        interface=attachment.interface,
        dns_names=list(attachment.dns_names),
    )
