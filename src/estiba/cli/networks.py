"""Networks: made, removed, joined and left."""

from __future__ import annotations

import sys

from estiba.cli.networkpolicy import egress_of
from estiba.cli.output import each, labels_of, pairs
from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(client: Client, given: Arguments) -> int:
    body: dict[str, Any] = {
        "Name": given.words[0],
        "Driver": given.driver or "bridge",
        "Scope": given.scope,
        "Internal": given.internal,
        "Attachable": given.attachable,
        "Ingress": given.ingress,
        "ConfigOnly": given.config_only,
        "Options": labels_of(given.opt) | egress_of(given.egress) | _records(given.dns_record),
        "Labels": labels_of(given.label),
        "IPAM": {
            "Driver": given.ipam_driver or "default",
            "Options": labels_of(given.ipam_opt),
            "Config": _pools(given),
        },
    }
    for key, name in (("EnableIPv4", "ipv4"), ("EnableIPv6", "ipv6")):
        if given.given(name):
            body[key] = getattr(given, name)
    if given.config_from:
        body["ConfigFrom"] = {"Network": given.config_from}
    answer = client.post("/networks/create", None, body)
    if answer.get("Warning"):
        print(f"WARNING: {answer['Warning']}", file=sys.stderr)
    print(answer["Id"])
    return 0


def _records(texts: list[str]) -> dict[str, str]:
    """An option each, for a text record may hold commas."""
    return {f"estiba.dns-record.{number}": text for number, text in enumerate(texts, 1)}


def _pools(given: Arguments) -> list[dict[str, Any]]:
    """Ranges, gateways and further addresses go to the subnet that holds them."""
    if len(given.subnet) < max(len(given.ip_range), len(given.gateway)):
        raise UsageError("every ip-range or gateway must have a corresponding subnet")
    pools: dict[str, dict[str, Any]] = {}
    for subnet in given.subnet:
        if any(_holds(subnet, other) or _holds(other, subnet) for other in pools):
            raise UsageError("multiple overlapping subnet configuration is not supported")
        pools[subnet] = {"Subnet": subnet}

    def pool_of(text: str, what: str) -> dict[str, Any]:
        for subnet, pool in pools.items():
            if _holds(subnet, text):
                return pool
        raise UsageError(f"no matching subnet for {what} {text}")

    for key, what, many, texts in (
        ("IPRange", "range", "multiple ranges", given.ip_range),
        ("Gateway", "gateway", "multiple gateways", given.gateway),
    ):
        for text in texts:
            pool = pool_of(text, what)
            if key in pool:
                where = "for" if key == "Gateway" else "on"
                raise UsageError(
                    f"cannot configure {many} ({text}, {pool[key]}) {where} the same subnet "
                    f"({pool['Subnet']})"
                )
            pool[key] = text
    for name, text in pairs(given.aux_address, "--aux-address").items():
        pool_of(text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return list(pools.values())


def _holds(subnet: str, text: str) -> bool:
    """Whether an address, or the first one of a subnet, lies in the subnet. Raises UsageError."""
    import ipaddress

    try:
        area = ipaddress.ip_network(subnet, strict=False)
        address = ipaddress.ip_interface(text).ip
    except ValueError:
        raise UsageError(f"invalid subnet: invalid CIDR address: {subnet}") from None
    return address.version == area.version and address in area


def rm(client: Client, given: Arguments) -> int:
    def remove(name: str) -> None:
        try:
            client.delete(f"/networks/{part(name)}")
        except ApiError as error:
            if not (given.force and error.status == 404):
                raise
        else:
            print(name)

    return each(given.words, remove, shown=False)


def connect(client: Client, given: Arguments) -> int:
    network, container = given.words
    addresses = {"IPv4Address": given.ip, "IPv6Address": given.ip6}
    ipam: dict[str, Any] = {key: value for key, value in addresses.items() if value}
    if given.link_local_ip:
        ipam["LinkLocalIPs"] = given.link_local_ip
    endpoint: dict[str, Any] = {
        "Aliases": given.alias,
        "Links": given.link,
        "DriverOpts": pairs(given.driver_opt, "--driver-opt"),
        "GwPriority": given.gw_priority,
        "IPAMConfig": ipam,
    }
    body = {
        "Container": container,
        "EndpointConfig": {key: value for key, value in endpoint.items() if value},
    }
    client.post(f"/networks/{part(network)}/connect", None, body)
    return 0


def disconnect(client: Client, given: Arguments) -> int:
    network, container = given.words
    body = {"Container": container, "Force": given.force}
    client.post(f"/networks/{part(network)}/disconnect", None, body)
    return 0
