"""What is said to a network plugin and what it answers (`/NetworkDriver.*`), as libnetwork has it.
Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from estiba.model.container import PortBinding
from estiba.model.errors import Internal
from estiba.network.addresses import Interface
from estiba.network.driver import Attachment
from estiba.network.ipam import Address, Network
from estiba.network.mac import check_mac
from estiba.network.pools import parse_subnet
from estiba.network.record import Endpoint, NetworkRecord, PortRequest

Json = dict[str, Any]

_PORTMAP = "com.docker.network.portmap"
_EXPOSED = "com.docker.network.endpoint.exposedports"
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_LINK = re.compile(r"[^\s/:\0]{1,15}")
_MAX_ROUTES = 1024
CONNECTED = 1
"""RouteType of a route to neighbours on the link itself."""


class Nothing(msgspec.Struct, frozen=True):
    pass


class Capabilities(msgspec.Struct, frozen=True, rename="pascal"):
    scope: str = ""


class InterfaceAnswer(msgspec.Struct, frozen=True):
    address: str = msgspec.field(default="", name="Address")
    address_v6: str = msgspec.field(default="", name="AddressIPv6")
    mac: str = msgspec.field(default="", name="MacAddress")


class Created(msgspec.Struct, frozen=True, rename="pascal"):
    interface: InterfaceAnswer | None = None


class InterfaceName(msgspec.Struct, frozen=True, rename="pascal"):
    src_name: str = ""
    dst_prefix: str = ""
    dst_name: str = ""


class StaticRoute(msgspec.Struct, frozen=True, rename="pascal"):
    destination: str = ""
    route_type: int = 0
    next_hop: str = ""


class Joined(msgspec.Struct, frozen=True):
    interface_name: InterfaceName | None = msgspec.field(default=None, name="InterfaceName")
    gateway: str = msgspec.field(default="", name="Gateway")
    gateway_v6: str = msgspec.field(default="", name="GatewayIPv6")
    routes: list[StaticRoute] | None = msgspec.field(default=None, name="StaticRoutes")


class OperInfo(msgspec.Struct, frozen=True, rename="pascal"):
    value: dict[str, Any] | None = None


def network_arguments(network: NetworkRecord) -> Json:
    """Of CreateNetwork."""
    data: dict[int, list[Json]] = {4: [], 6: []}
    for pool in network.pools:
        subnet = parse_subnet(pool.subnet)
        data[subnet.version].append(
            {
                "AddressSpace": "LocalDefault",
                "Pool": str(subnet),
                "Gateway": f"{pool.gateway}/{subnet.prefixlen}",
                "AuxAddresses": {
                    name: f"{address}/{subnet.prefixlen}"
                    for name, address in pool.auxiliary_addresses.items()
                },
            }
        )
    if network.ipam_driver == "null":
        data[4] = [{"AddressSpace": "null", "Pool": "0.0.0.0/0", "Gateway": "0.0.0.0/0"}]
    options: Json = {
        "com.docker.network.enable_ipv4": network.ipv4,
        "com.docker.network.enable_ipv6": network.ipv6,
        "com.docker.network.generic": network.options,
    }
    if network.internal:
        options["com.docker.network.internal"] = True
    return {
        "NetworkID": network.id,
        "Options": options,
        "IPv4Data": data[4],
        "IPv6Data": data[6],
    }


def endpoint_arguments(endpoint: Endpoint, attachment: Attachment) -> Json:
    """Of CreateEndpoint."""
    v4 = f"{endpoint.ip_address}/{endpoint.ip_prefix_len}" if endpoint.ip_address else ""
    v6 = f"{endpoint.ipv6_address}/{endpoint.ipv6_prefix_len}" if endpoint.ipv6_address else ""
    return {
        **names(endpoint),
        "Interface": {"Address": v4, "AddressIPv6": v6, "MacAddress": endpoint.mac_address},
        "Options": {**endpoint.requested.driver_opts, **port_options(attachment.ports)},
    }


def names(endpoint: Endpoint) -> Json:
    return {"NetworkID": endpoint.network_id, "EndpointID": endpoint.id}


def port_options(requests: Sequence[PortRequest]) -> Json:
    return {
        _EXPOSED: [
            {"Proto": _PROTOCOLS[one.protocol], "Port": one.container_port} for one in requests
        ],
        _PORTMAP: [_binding(one) for one in requests],
    }


def _binding(request: PortRequest) -> Json:
    first, _, last = request.host_port.partition("-")
    return {
        "Proto": _PROTOCOLS[request.protocol],
        "IP": "",
        "Port": request.container_port,
        "HostIP": request.host_ip,
        "HostPort": int(first or 0),
        "HostPortEnd": int(last or first or 0),
    }


def with_answer(endpoint: Endpoint, answer: InterfaceAnswer | None, name: str) -> Endpoint:
    """What the plugin chose itself; what was given it may not change. Raises Internal."""
    if answer is None:
        return endpoint
    for given, told in (
        (endpoint.ip_address, answer.address),
        (endpoint.ipv6_address, answer.address_v6),
        (endpoint.mac_address, answer.mac),
    ):
        if given and told:
            raise Internal(f"network plugin {name} modified interface address: {told[:64]!r}")
    changes: dict[str, object] = {}
    if answer.mac:
        changes["mac_address"] = check_mac(answer.mac)
    if answer.address:
        one = _interface(answer.address, 4, name)
        changes |= {"ip_address": str(one.ip), "ip_prefix_len": one.network.prefixlen}
    if answer.address_v6:
        one = _interface(answer.address_v6, 6, name)
        changes |= {"ipv6_address": str(one.ip), "ipv6_prefix_len": one.network.prefixlen}
    return msgspec.structs.replace(endpoint, **changes)


def with_gateways(
    endpoint: Endpoint, joined: Joined, network: NetworkRecord, name: str
) -> Endpoint:
    """Those of the answer, unless the network leads nowhere. Raises Internal."""
    gateways = [
        str(_address(text, version, name)) if text and not network.internal else ""
        for version, text in ((4, joined.gateway), (6, joined.gateway_v6))
    ]
    return msgspec.structs.replace(endpoint, gateway=gateways[0], ipv6_gateway=gateways[1])


def routes_of(joined: Joined, name: str) -> tuple[tuple[Network, Address | None], ...]:
    """Raises Internal."""
    routes = joined.routes or []
    if len(routes) > _MAX_ROUTES:
        raise Internal(f"network plugin {name} gave more than {_MAX_ROUTES} routes")
    found: list[tuple[Network, Address | None]] = []
    for route in routes:
        try:
            destination = ip_network(route.destination, strict=False)
        except ValueError as error:
            raise Internal(
                f"network plugin {name} gave no destination: {route.destination[:64]!r}"
            ) from error
        is_direct = route.route_type == CONNECTED or not route.next_hop
        hop = None if is_direct else _address(route.next_hop, destination.version, name)
        found.append((destination, hop))
    return tuple(found)


def link_names(answer: InterfaceName, name: str) -> tuple[str, str]:
    """The link on the host, and what its name inside begins with. Raises Internal."""
    prefix = answer.dst_prefix or "eth"
    for text, kind in ((answer.src_name, "SrcName"), (f"{prefix}99", "DstPrefix")):
        if not _LINK.fullmatch(text) or text in (".", "..", "lo"):
            raise Internal(f"network plugin {name} gave no usable {kind}: {text[:32]!r}")
    return answer.src_name, prefix


def published(info: Mapping[str, Any]) -> dict[str, list[PortBinding]]:
    """What EndpointOperInfo says of ports; what it says wrongly is left out."""
    found: dict[str, list[PortBinding]] = {}
    listed = info.get(_PORTMAP)
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and entry.get("Proto") in _NAMES and entry.get("HostPort"):
            key = f"{entry.get('Port')}/{_NAMES[entry['Proto']]}"
            binding = PortBinding(
                host_ip=str(entry.get("HostIP") or "0.0.0.0"), host_port=str(entry["HostPort"])
            )
            found.setdefault(key, []).append(binding)
    return found


def _interface(text: str, version: int, name: str) -> Interface:
    try:
        found = ip_interface(text)
        if found.version == version and "/" in text:
            return found
    except ValueError:
        pass
    raise Internal(f"network plugin {name} gave no IPv{version} address: {text[:64]!r}")


def _address(text: str, version: int, name: str) -> Address:
    try:
        found = ip_address(text)
        if found.version == version:
            return found
    except ValueError:
        pass
    raise Internal(f"network plugin {name} gave no IPv{version} gateway: {text[:64]!r}")
