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
            raise _network_error(text, f"invalid field {field}")
        if key in ("alias", "driver-opt", "link-local-ip"):
            found[key].append(value)
        elif key in ("name", "ip", "ip6", "mac-address", "gw-priority"):
            found[key] = value
        else:
            raise _network_error(text, f"invalid field key {key}")
    priority = found.get("gw-priority")
    if priority is not None and not priority.removeprefix("-").isdecimal():
        raise _network_error(text, f"invalid gw-priority ({priority}): invalid syntax")
    if not found["name"]:
        raise _network_error(text, "network name/id is not specified")
    return found


def _network_error(text: str, reason: str) -> FlagError:
    return FlagError(f'invalid argument "{text}" for "--network" flag: {reason}')


_NOT_OF_USERS = ("", "default", "bridge", "host", "none", "nat")


def _is_of_users(name: str) -> bool:
    return name not in _NOT_OF_USERS and not name.startswith("container:")


def networking(given: Arguments) -> dict[str, Any]:
    """EndpointsConfig; the short flags (`--ip`, `--network-alias`, …) are the first network's."""
    networks = [network_options(text) for text in given.network or ["default"]]
    _apply_short_flags(given, networks[0])
    endpoints: dict[str, Any] = {}
    for network in networks:
        name = network["name"]
        if not _is_of_users(name) and network["alias"]:
            raise ClientError("network-scoped aliases are only supported for user-defined networks")
        if name in endpoints:
            raise ClientError(f'network "{name}" is specified multiple times')
        endpoints[name] = _endpoint(network)
    if len({_is_of_users(name) for name in endpoints}) > 1:
        raise ClientError(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    if len(endpoints) == 1 and not all(endpoints.values()):
        endpoints = {}
    return {"EndpointsConfig": endpoints}


def _apply_short_flags(given: Arguments, first: dict[str, Any]) -> None:
    """Raises ClientError for what is given both ways."""
    for key, flag, what in (
        ("alias", "network-alias", "alias"),
        ("ip", "ip", "IPv4 address"),
        ("ip6", "ip6", "IPv6 address"),
        ("mac-address", "mac-address", "MAC address"),
        ("link-local-ip", "link-local-ip", "link-local IP addresses"),
    ):
        value = getattr(given, flag.replace("-", "_"))
        if value and first.get(key):
            raise ClientError(
                f"conflicting options: cannot specify both --{flag} and per-network {what}"
            )
        if value:
            first[key] = value
    if _is_of_users(first["name"]):
        first["link"] = given.link


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
        "Links": network.get("link"),
        "DriverOpts": pairs(network["driver-opt"], "--network"),
        "MacAddress": network.get("mac-address"),
        "GwPriority": int(priority) if priority else 0,
    }
    return {key: value for key, value in endpoint.items() if value}


def changed_ports(given: Arguments) -> dict[str, Any]:
    """What `--publish-add` and `--publish-rm` ask for, as the update's body says it."""
    from estiba.cli.mountflags import parse_publish

    added: dict[str, Any] = {}
    removed: dict[str, Any] = {}
    for text in given.publish_add:
        for port, binding in parse_publish(text):
            added.setdefault(port, []).append(binding)
    for text in given.publish_rm:
        for port, binding in parse_publish(text):
            bindings = removed.setdefault(port, [])
            if any(binding.values()):
                bindings.append(binding)
    body = {"PublishAdd": added, "PublishRemove": removed}
    return {name: ports for name, ports in body.items() if ports}
