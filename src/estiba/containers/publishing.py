"""Which ports of a container are published, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from estiba.containers.record import ContainerRecord
from estiba.containers.validate import parse_host_port, parse_port
from estiba.model.container import OF_CONTAINER, PortBinding
from estiba.model.errors import InvalidArgument
from estiba.network.record import PortRequest


def port_requests(record: ContainerRecord) -> list[PortRequest]:
    """All ports to publish at a start.

    A port that was free to choose gets the one that it had in the run before, if any, so that
    addresses stay over a restart. Raises InvalidArgument for ranges of different length.
    """
    wanted: dict[str, list[PortBinding]] = {}
    for port, bindings in record.host_config.port_bindings.items():
        for number, protocol, binding in _expand(port, bindings or [PortBinding()]):
            wanted.setdefault(f"{number}/{protocol}", []).append(binding)
    if record.host_config.publish_all_ports:
        for port in record.config.exposed_ports:
            numbers, protocol = parse_port(port)
            for number in numbers:
                wanted.setdefault(f"{number}/{protocol}", [PortBinding()])
    return [
        _request(key, binding, index, record.ports)
        for key, bindings in wanted.items()
        for index, binding in enumerate(bindings)
    ]


def check_publishing(record: ContainerRecord) -> None:
    """Raises InvalidArgument for a container whose ports are not its own to publish."""
    mode = record.host_config.network_mode
    if mode.startswith(OF_CONTAINER):
        raise InvalidArgument(
            "conflicting options: port publishing and the container type network mode"
        )
    if mode == "host":
        raise InvalidArgument(
            "conflicting options: port publishing and the host network mode: all ports of "
            "the container are the host's already"
        )


def changed_bindings(
    before: Mapping[str, list[PortBinding]],
    added: Mapping[str, list[PortBinding]],
    removed: Mapping[str, list[PortBinding]],
) -> dict[str, list[PortBinding]]:
    """Bindings by container port, with some removed and then others added.

    Of `removed` a port without bindings means all that it has; a binding means those with its
    host port, at its host address if it names one. Ranges are taken apart.
    Raises InvalidArgument for what is not there to be removed.
    """
    bindings = _apart(before)
    for port, hosts in _apart(removed, default=[]).items():
        there = bindings.pop(port, [])
        if not there:
            raise InvalidArgument(f"port {port} is not published")
        gone = [host for host in there if not hosts or any(_means(one, host) for one in hosts)]
        for one in hosts:
            if not any(_means(one, host) for host in there):
                where = f"{one.host_ip}:{one.host_port}".removeprefix(":")
                raise InvalidArgument(f"port {port} is not published at {where}")
        rest = [host for host in there if host not in gone]
        if rest:
            bindings[port] = rest
    for port, hosts in _apart(added).items():
        there = bindings.setdefault(port, [])
        there += [host for host in hosts if host not in there or not host.host_port]
    return bindings


def _means(wanted: PortBinding, there: PortBinding) -> bool:
    if wanted.host_ip and wanted.host_ip != there.host_ip:
        return False
    return not wanted.host_port or wanted.host_port == there.host_port


def _apart(
    bindings: Mapping[str, list[PortBinding]], default: list[PortBinding] | None = None
) -> dict[str, list[PortBinding]]:
    """One entry a port; `default` are the bindings of a port that names none."""
    found: dict[str, list[PortBinding]] = {}
    for port, hosts in bindings.items():
        numbers, protocol = parse_port(port)
        for number in numbers:
            found.setdefault(f"{number}/{protocol}", [])
        chosen = hosts or ([PortBinding()] if default is None else default)
        for number, protocol, host in _expand(port, chosen):
            found[f"{number}/{protocol}"].append(host)
    return found


def _expand(port: str, bindings: list[PortBinding]) -> list[tuple[int, str, PortBinding]]:
    numbers, protocol = parse_port(port)
    expanded = []
    for binding in bindings:
        host = parse_host_port(binding.host_port)
        if len(numbers) == 1:
            expanded.append((numbers[0], protocol, binding))
            continue
        if host is not None and len(host) != len(numbers):
            raise InvalidArgument(
                f"invalid ranges specified for container and host ports: {port} and "
                f"{binding.host_port}"
            )
        for index, number in enumerate(numbers):
            chosen = str(host[index]) if host is not None else ""
            expanded.append(
                (number, protocol, PortBinding(host_ip=binding.host_ip, host_port=chosen))
            )
    return expanded


def _request(
    key: str, binding: PortBinding, index: int, before: Mapping[str, list[PortBinding]]
) -> PortRequest:
    number, _, protocol = key.partition("/")
    # One that is free to choose is the same number in both families.
    earlier = list(dict.fromkeys(binding.host_port for binding in before.get(key, [])))
    return PortRequest(
        container_port=int(number),
        protocol=protocol,
        host_ip=binding.host_ip,
        host_port="" if binding.host_port == "0" else binding.host_port,
        preferred=int(earlier[index]) if index < len(earlier) else 0,
    )
