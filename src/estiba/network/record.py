"""Networks and endpoints as frozen records: what the database keeps and inspect shows."""

from __future__ import annotations

import hashlib

import msgspec

from estiba.model.container import EndpointSettings, PortBinding
from estiba.model.decoding import from_json
from estiba.model.event import Event, EventType
from estiba.model.ids import short

KIND = "network"
LINK_PREFIX = "es"


class IpamConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """One address pool of a network (OpenAPI IPAMConfig); empty strings mean: choose."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    auxiliary_addresses: dict[str, str] = {}


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A network that is asked for (the body of POST /networks/create)."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    pools: list[IpamConfig] = []
    """Of both families; none of a family that is enabled means: choose one."""

    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_only: bool = False
    """No network but a template: others are made from it."""

    config_from: str = ""
    """The template that it is made from, by name or id."""


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network that exists. `bridge` is the name of its link, where it has one."""

    id: str
    name: str
    driver: str
    created_ns: int
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    pools: list[IpamConfig] = []
    pool_ids: list[str] = []
    """What a plugin that manages the addresses calls the pools, in their order."""

    asked_pools: list[IpamConfig] = []
    """What of `pools` a user chose: fixed addresses are for those alone."""

    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_only: bool = False
    config_from: str = ""
    bridge: str = ""
    owns_bridge: bool = False
    """The engine made the bridge, and so it may delete it."""

    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    host_ip: str = "0.0.0.0"
    """Where ports are published that name no host address; 0.0.0.0 is everywhere."""

    gateway_mode_ipv4: str = "nat"
    gateway_mode_ipv6: str = "nat"
    """`nat`; `nat-unprotected`: unpublished ports are open too; `routed`: addresses are known
    outside, so that nothing is translated; `isolated`: the bridge has no address."""

    snat_ipv4: str = ""
    snat_ipv6: str = ""
    """With which address of the host containers leave; empty is that of the way out."""

    inhibit_ipv4: bool = False
    """The bridge gets no IPv4 address: the gateway is somebody else."""

    interface_prefix: str = ""
    """What names of interfaces in containers begin with; empty is what the driver likes."""

    parent: str = ""
    """The link of the host that a macvlan or ipvlan network hangs on."""

    parent_mode: str = ""
    owns_parent: bool = False
    """The engine made the parent, and so it may delete it."""

    predefined: bool = False
    scope: str = "local"

    @property
    def versions(self) -> tuple[int, ...]:
        """The families of addresses that its containers have."""
        return (4,) * self.ipv4 + (6,) * self.ipv6

    def has_gateway(self, version: int) -> bool:
        """Whether a default route of that family may lead through it."""
        mode = self.gateway_mode_ipv4 if version == 4 else self.gateway_mode_ipv6
        return version in self.versions and not self.internal and mode != "isolated"

    @property
    def has_names(self) -> bool:
        """Its containers find each other by name: all networks that users make."""
        return not self.predefined


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A port to publish; `host_port` is a number, a range `a-b`, or empty for any free one.

    Of all free ones `preferred` is tried first: the port that the container had before.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: str = ""
    preferred: int = 0

    @property
    def key(self) -> str:
        return f"{self.container_port}/{self.protocol}"

    @property
    def is_fixed(self) -> bool:
        """Whether it asks for certain host ports."""
        return self.host_port not in ("", "0")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One container on one network, with everything that it was given."""

    id: str
    network_id: str
    network_name: str
    driver: str
    container_id: str
    container_name: str
    requested: EndpointSettings
    interface: str = ""
    """The name inside the container, for example eth0."""

    host_interface: str = ""
    mac_address: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_len: int = 0
    ipv6_gateway: str = ""
    link_local_ips: list[str] = []
    dns_names: list[str] = []
    ports: dict[str, list[PortBinding]] = {}

    @property
    def settings(self) -> EndpointSettings:
        """What inspect shows: the request with the values given."""
        return msgspec.structs.replace(
            self.requested,
            network_id=self.network_id,
            endpoint_id=self.id,
            gateway=self.gateway,
            ip_address=self.ip_address,
            ip_prefix_len=self.ip_prefix_len,
            ipv6_gateway=self.ipv6_gateway,
            global_ipv6_address=self.ipv6_address,
            global_ipv6_prefix_len=self.ipv6_prefix_len,
            mac_address=self.mac_address,
            dns_names=self.dns_names,
        )

    def gateway_of(self, version: int) -> str:
        return self.gateway if version == 4 else self.ipv6_gateway

    @property
    def gateway_rank(self) -> tuple[int, str]:
        """The endpoint of the lowest rank gives the container its default route."""
        return (-self.requested.gw_priority, self.network_name)


def endpoint_id(container_id: str, network_id: str) -> str:
    """Derived, so that connecting again after a crash means the same endpoint."""
    return hashlib.sha256(f"{container_id}:{network_id}".encode()).hexdigest()


def link_name(endpoint: str) -> str:
    """The host's end of the endpoint's veth pair; at most 15 characters (IFNAMSIZ)."""
    return f"{LINK_PREFIX}{short(endpoint)}"


def encode(record: NetworkRecord) -> bytes:
    return msgspec.json.encode(record)


def decode(body: bytes) -> NetworkRecord:
    return from_json(body, NetworkRecord)


def network_event(network: NetworkRecord, action: str, container_id: str = "") -> Event:
    """`create`, `destroy`, `connect` or `disconnect`, as the Engine API announces them."""
    attributes = {"name": network.name, "type": network.driver}
    if container_id:
        attributes["container"] = container_id
    return Event(EventType.NETWORK, action, network.id, attributes)
