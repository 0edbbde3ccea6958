"""Which networks a container may join and leave, and as what. Pure.

The words and statuses of what is refused are Docker's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from estiba.containers.attachments import check_endpoint
from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.model.container import OF_CONTAINER, EndpointSettings
from estiba.model.errors import Conflict, EstibaError, Forbidden, Internal, InvalidArgument
from estiba.model.state import ContainerState
from estiba.network.endpointopts import interface_name
from estiba.network.record import Endpoint, NetworkRecord
from estiba.network.templates import check_no_template

FindNetwork = Callable[[str], NetworkRecord]
"""By name or id. Raises NotFound."""

_WITHOUT_PORTS = ("host", "null", "macvlan", "ipvlan")

SHARED = (
    "container sharing network namespace with another container or host cannot be connected to "
    "any other network"
)
NONE = (
    "container cannot be connected to multiple networks with one of the networks in private "
    "(none) mode"
)
TO_HOST = (
    "cannot connect container to host network - container must be created in host network mode"
)
FROM_HOST = (
    "cannot disconnect container from host network - container was created in host network mode"
)


def plan_connection(
    record: ContainerRecord,
    network: NetworkRecord,
    settings: EndpointSettings,
    find: FindNetwork,
) -> AttachedNetwork | None:
    """What a container becomes on one more network; None when it is to be on it already.

    Raises InvalidArgument, Forbidden or Conflict.
    """
    _check_stays(record)
    if record.host_config.network_mode.startswith(OF_CONTAINER):
        raise InvalidArgument(SHARED)
    check_no_template(network)
    check_endpoint(network.name, settings, network)
    if record.host_config.network_mode != "host" and network.driver == "host":
        raise InvalidArgument(TO_HOST)
    if attached(record, network) is not None:
        if not record.state.is_up:
            return None
        raise Forbidden(
            f"endpoint with name {record.name} already exists in network {network.name}"
        )
    for net in record.networks:
        other = _network_of(net, find)
        if other is None:
            continue
        if "host" in (other.driver, network.driver):
            raise InvalidArgument(SHARED)
        if "none" in (other.name, network.name):
            raise InvalidArgument(NONE)
    _check_interface(record, settings)
    if not settings.mac_address and network.name == record.host_config.network_mode:
        # The container-wide one, which old clients give: it outlives leaving the main network.
        settings = msgspec.structs.replace(settings, mac_address=record.config.mac_address)
    return AttachedNetwork(network=network.name, requested=settings)


def plan_disconnection(
    record: ContainerRecord, network: NetworkRecord | None, reference: str
) -> AttachedNetwork:
    """The network that the container is to leave; `network` is None when it does not exist.

    Raises InvalidArgument, Conflict or Internal.
    """
    _check_stays(record)
    name = network.name if network is not None else reference
    if record.state.is_up and record.host_config.network_mode == "host" and name == "host":
        raise InvalidArgument(FROM_HOST)
    found = attached(record, network) if network is not None else None
    if network is None:
        found = next((net for net in record.networks if net.network == reference), None)
    if found is None:
        which = "network" if record.state.is_up and network is not None else "the network"
        raise Internal(f"container {record.id} is not connected to {which} {name}")
    return found


def attached(record: ContainerRecord, network: NetworkRecord) -> AttachedNetwork | None:
    """The container's place on a network, whether it is noted by name or by id."""
    names = (network.name, network.id)
    return next((net for net in record.networks if net.network in names), None)


@dataclass(frozen=True, slots=True)
class Way:
    """A network of a container as a way to the outside."""

    name: str
    priority: int
    driver: str
    is_open: bool
    """It leads out: not an internal one."""


def port_bearer(ways: Iterable[Way]) -> int | None:
    """By its place among `ways` the network on which ports are published.

    That is the container's way out: answers to whoever asks at the port leave by it.
    """
    open_ways = [
        ((-way.priority, way.name), place)
        for place, way in enumerate(ways)
        if way.is_open and way.driver not in _WITHOUT_PORTS
    ]
    return min(open_ways)[1] if open_ways else None


def way_of(endpoint: Endpoint) -> Way:
    return Way(
        name=endpoint.network_name,
        priority=endpoint.requested.gw_priority,
        driver=endpoint.driver,
        is_open=bool(endpoint.gateway or endpoint.ipv6_gateway),
    )


def _check_stays(record: ContainerRecord) -> None:
    if record.state in (ContainerState.REMOVING, ContainerState.DEAD):
        raise Conflict(
            f"Container {record.id} is marked for removal and cannot be connected or "
            "disconnected to the network"
        )


def _check_interface(record: ContainerRecord, settings: EndpointSettings) -> None:
    wanted = interface_name(settings)
    for net in record.networks:
        taken = net.endpoint.interface if net.endpoint else interface_name(net.requested)
        if wanted and wanted == taken:
            raise InvalidArgument(
                f"invalid endpoint settings:\ninterface name {wanted} is that of the network "
                f"{net.network}: choose another one"
            )


def _network_of(net: AttachedNetwork, find: FindNetwork) -> NetworkRecord | None:
    try:
        return find(net.network)
    except EstibaError:
        return None
