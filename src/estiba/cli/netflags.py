"""Flags of run about networks: `--network`, `--add-host`, `--mac-address`."""

from __future__ import annotations

from estiba.cli.output import pairs
from estiba.cli.parse import Arguments, FlagError
from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def extra_host(text: str) -> str:
    """`name:address` or `name=address`; an IPv6 address may stand in brackets."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not name or not separator or not address:
        raise FlagError(
            f'invalid argument "{text}" for "--add-host" flag: bad format for add-host: "{text}"'
        )
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return f"{name}:{address}"


def dns_server(text: str) -> str:
    """Raises FlagError for what is no address."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except OSError:
            continue
        return text
    raise FlagError(
        f'invalid argument "{text}" for "--dns" flag: IP address is not correctly formatted: {text}'
    )


def mac_address(text: str) -> str | None:
    if not text:
        return None
    octets = text.replace("-", ":").split(":")
    if len(octets) != 6 or not all(len(o) == 2 and _is_hex(o) for o in octets):
        raise ClientError(f"{text} is not a valid mac address")
    return text


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)


def network_options(text: str) -> dict[str, Any]:
    """`NAME`, or `name=NAME,alias=…,ip=…,driver-opt=…`; lists under `alias`, `driver-opt`."""
    found: dict[str, Any] = {"name": text, "alias": [], "driver-opt": [], "link-local-ip": []}
    if "=" not in text:
        return found
    found["name"] = ""
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise _network_error(text, f"invalid key/value pair format in driver options: {field}")
        if key in ("alias", "driver-opt", "link-local-ip"):
            found[key].append(value)
        elif key in ("name", "ip", "ip6", "mac-address", "gw-priority"):
            found[key] = value
        else:
            raise _network_error(text, f"invalid field key {key}")
    if not found["name"]:
        raise _network_error(text, "network name/id is not specified")
    return found


def _network_error(text: str, reason: str) -> FlagError:
    return FlagError(f'invalid argument "{text}" for "--network" flag: {reason}')


def networking(given: Arguments) -> dict[str, Any]:
    """EndpointsConfig; the short flags (`--ip`, `--network-alias`, …) are the first network's."""
    networks = [network_options(text) for text in given.network or ["default"]]
    first = networks[0]
    first["alias"] += given.network_alias
    first["link-local-ip"] += given.link_local_ip
    for key, value in (("ip", given.ip), ("ip6", given.ip6), ("mac-address", given.mac_address)):
        if value and first.get(key) and first[key] != value:
            raise ClientError(
                f"conflicting options: cannot specify both --{key} and per-network {key}"
            )
        if value:
            first[key] = value
    endpoints = {network["name"]: _endpoint(network) for network in networks}
    if len(endpoints) != len(networks):
        raise ClientError("network is specified multiple times")
    if not given.network and not endpoints["default"]:
        endpoints = {}
    return {"EndpointsConfig": endpoints}


def _endpoint(network: dict[str, Any]) -> dict[str, Any]:
    ipam = {
        "IPv4Address": network.get("ip"),
        "IPv6Address": network.get("ip6"),
        "LinkLocalIPs": network["link-local-ip"],
    }
    priority = network.get("gw-priority")
    endpoint = {
        "IPAMConfig": {key: value for key, value in ipam.items() if value},
        "Aliases": network["alias"],
        "DriverOpts": pairs(network["driver-opt"], "--network"),
        "MacAddress": network.get("mac-address"),
        "GwPriority": int(priority) if priority else 0,
    }
    return {key: value for key, value in endpoint.items() if value}
