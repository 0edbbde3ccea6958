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
    import ipaddress

    def network(text: str) -> Any:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise UsageError(f"invalid subnet or range: {text}") from None

    pools = [(network(text), {"Subnet": text}) for text in given.subnet]
    if not pools and (given.ip_range or given.gateway):
        raise UsageError("every ip-range or gateway must have a corresponding subnet: add --subnet")

    def pool_of(text: str, what: str) -> dict[str, Any]:
        wanted = network(text)
        for subnet, pool in pools:
            if wanted.version == subnet.version and wanted.subnet_of(subnet):
                return pool
        raise UsageError(f"no matching subnet for {what} {text}")

    for key, what, texts in (
        ("IPRange", "range", given.ip_range),
        ("Gateway", "gateway", given.gateway),
    ):
        for text in texts:
            pool = pool_of(text, what)
            if key in pool:
                raise UsageError(f"cannot configure multiple {what}s on the same subnet")
            pool[key] = text
    for name, text in pairs(given.aux_address, "--aux-address").items():
        pool_of(text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return [pool for _, pool in pools]


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
