"""Legacy links: one container knows another on the default bridge by an alias of its own. Pure.

Each gives lines of /etc/hosts, environment variables, and the right to reach the exposed ports
where containers may not talk otherwise. On networks of users a link is a name for the name
service, and nothing of this applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address

from estiba.containers.record import AttachedNetwork, ContainerRecord
from estiba.containers.validate import parse_port
from estiba.model.container import OF_CONTAINER, HostConfig
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.network.firewall.rules import LinkRule
from estiba.network.record import Endpoint

BRIDGE = "bridge"
_NOT_TOLD = ("HOME", "PATH")

Port = tuple[int, str]


def parse_link(text: str) -> tuple[str, str]:
    """Container and alias of `name`, `name:alias`, or `/name:/parent/alias`, as inspect has it.

    Raises InvalidArgument.
    """
    name, colon, alias = text.partition(":")
    if not name or (colon and not alias) or ":" in alias:
        raise InvalidArgument(f"bad format for links: {text[:128]}: use name or name:alias")
    if name.startswith("/"):
        return name[1:], alias.rpartition("/")[2] or name[1:]
    alias = alias.removeprefix("/")
    if "/" in alias:
        raise InvalidArgument(f"bad format for links: {text[:128]}: an alias has no slash")
    return name, alias or name


def plan_links(host: HostConfig, find: Callable[[str], ContainerRecord]) -> dict[str, str]:
    """Ids of the linked containers by alias; none but on the default bridge.

    Raises InvalidArgument for a link to a container that does not exist, or that has the host's
    network.
    """
    links: dict[str, str] = {}
    for text in host.links:
        name, alias = parse_link(text)
        if host.network_mode not in ("", "default", BRIDGE):
            continue
        try:
            child = find(name)
            while child.host_config.network_mode.startswith(OF_CONTAINER):
                child = find(child.host_config.network_mode.removeprefix(OF_CONTAINER))
        except EstibaError as error:
            raise InvalidArgument(f"could not get container for {name}: {error.message}") from error
        if child.host_config.network_mode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. This would "
                "result in undefined behavior"
            )
        links[alias] = child.id
    return links


def on_bridge(record: ContainerRecord) -> Endpoint | None:
    """What a container that is up has on the default bridge."""
    return next(
        (each for each in record.endpoints if record.state.is_up and each.network_name == BRIDGE),
        None,
    )


def link_names(alias: str, child: ContainerRecord) -> str:
    """What a linked container is called in /etc/hosts."""
    names = [alias, child.config.hostname or child.id[:12], child.name]
    return " ".join(dict.fromkeys(names))


def linked_addresses(child: ContainerRecord) -> list[str]:
    endpoint = on_bridge(child)
    if endpoint is None:
        return []
    return [address for address in (endpoint.ip_address, endpoint.ipv6_address) if address]


def exposed(record: ContainerRecord) -> list[Port]:
    """The exposed ports by protocol, then by number."""
    found = {
        (number, protocol)
        for text in record.config.exposed_ports
        for numbers, protocol in [parse_port(text)]
        for number in numbers
    }
    return sorted(found, key=lambda port: (port[1], port[0]))


def check_links(record: ContainerRecord, linked: Mapping[str, ContainerRecord]) -> None:
    """Raises InvalidArgument for what keeps a container from starting."""
    for alias, child in linked.items():
        if not child.state.is_up:
            raise InvalidArgument(
                f"Cannot link to a non running container: /{child.name} AS /{record.name}/{alias}"
            )
        if on_bridge(child) is None:
            raise InvalidArgument(f"container {child.id} not attached to default bridge network")


def link_rules(
    networks: Iterable[AttachedNetwork], linked: Mapping[str, ContainerRecord]
) -> list[LinkRule]:
    """What a container that has these endpoints reaches of the linked ones."""
    own = next((net.endpoint for net in networks if net.endpoint and net.network == BRIDGE), None)
    if own is None or not own.ip_address:
        return []
    return [
        LinkRule(IPv4Address(own.ip_address), IPv4Address(there.ip_address), protocol, port)
        for child in linked.values()
        if (there := on_bridge(child)) is not None and there.ip_address
        for port, protocol in exposed(child)
    ]


def environment(record: ContainerRecord, linked: Mapping[str, ContainerRecord]) -> list[str]:
    """The variables that the program of a linking container is given."""
    return [
        line
        for alias, child in linked.items()
        if (endpoint := on_bridge(child)) is not None
        for line in _variables(
            alias, endpoint.ip_address, exposed(child), f"/{record.name}/{alias}", child.config.env
        )
    ]


def _variables(
    alias: str, address: str, ports: list[Port], name: str, env: Iterable[str]
) -> Iterator[str]:
    prefix = alias.upper().replace("-", "_")
    if ports:
        # The lowest number, and with that number tcp before the others.
        first = min(ports, key=lambda port: (port[0], port[1] != "tcp"))
        yield f"{prefix}_PORT={_url(first, address)}"
    for port in ports:
        number, protocol = port
        one = f"{prefix}_PORT_{number}_{protocol.upper()}"
        yield f"{one}={_url(port, address)}"
        yield f"{one}_ADDR={address}"
        yield f"{one}_PORT={number}"
        yield f"{one}_PROTO={protocol}"
    for begin, last in _ranges(ports):
        one = f"{prefix}_PORT_{begin[0]}_{begin[1].upper()}"
        yield f"{one}_START={_url(begin, address)}"
        yield f"{one}_PORT_START={begin[0]}"
        yield f"{one}_END={_url(last, address)}"
        yield f"{one}_PORT_END={last[0]}"
    yield f"{prefix}_NAME={name}"
    for entry in env:
        key, equals, value = entry.partition("=")
        if equals and key not in _NOT_TOLD:
            yield f"{prefix}_ENV_{key}={value}"


def _url(port: Port, address: str) -> str:
    return f"{port[1]}://{address}:{port[0]}"


def _ranges(ports: list[Port]) -> Iterator[tuple[Port, Port]]:
    """Neighbours of one protocol, two at least."""
    start = 0
    for place in range(1, len(ports) + 1):
        before = ports[place - 1]
        if place < len(ports) and ports[place] == (before[0] + 1, before[1]):
            continue
        if place - start > 1:
            yield ports[start], before
        start = place
