"""Which ports of a container are published, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from estiba.containers.record import ContainerRecord
from estiba.containers.validate import parse_host_port, parse_port
from estiba.model.container import PortBinding
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
    earlier = before.get(key, [])
    return PortRequest(
        container_port=int(number),
        protocol=protocol,
        host_ip=binding.host_ip,
        host_port="" if binding.host_port == "0" else binding.host_port,
        preferred=int(earlier[index].host_port) if index < len(earlier) else 0,
    )
