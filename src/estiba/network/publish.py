"""Published ports of endpoints: held on the host, translated by the firewall, flows forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

from estiba.kernel import failpoint
from estiba.model.container import PortBinding
from estiba.model.errors import EstibaError
from estiba.network.firewall.rules import PortRule
from estiba.network.firewall.table import Firewall
from estiba.network.hostports import (
    PortHolder,
    bindings_of,
    place_of,
    requests_of,
)
from estiba.network.reaper import Reaper
from estiba.network.record import Endpoint, NetworkRecord, PortRequest

_log = logging.getLogger(__name__)


class Publisher:
    """The order is: hold, translate, listen; and back."""

    def __init__(self, firewall: Firewall, reaper: Reaper) -> None:
        self._firewall = firewall
        self._reaper = reaper
        self._ports = PortHolder()

    def publish(
        self, network: NetworkRecord, endpoint: Endpoint, requests: Iterable[PortRequest]
    ) -> Endpoint:
        """The endpoint with exactly these ports; those that it has already stay as they are.

        Raises Conflict, FailedPrecondition or InvalidArgument; all is as before then.
        """
        before = self._ports.held(endpoint.id)
        versions = [version for version in (4, 6) if _address(endpoint, version)]
        changed = False
        gone: list[PortRule] = []
        new: list[PortRule] = []
        try:
            held = self._ports.hold(
                endpoint.id,
                requests,
                name=endpoint.container_name,
                host_ip=network.host_ip,
                versions=versions,
            )
            failpoint.hit("network.ports-held")
            old, now = (
                rules_of(endpoint, bindings_of(before)),
                rules_of(endpoint, bindings_of(held)),
            )
            gone = [rule for rule in old if rule not in now]
            new = [rule for rule in now if rule not in old]
            changed = True
            self._firewall.exchange(gone, new)
            failpoint.hit("network.ports-translated")
            self._ports.confirm(endpoint.id)
        except BaseException as error:
            if changed:
                self._firewall.exchange(new, gone)
            self._ports.put_back(endpoint.id, before)
            if isinstance(error, EstibaError):
                raise type(error)(
                    "driver failed programming external connectivity on endpoint "
                    f"{endpoint.container_name} ({endpoint.id}): {error}"
                ) from error
            raise
        self._ports.drop_others(before, held)
        self._reaper.forget_udp_flows(_udp_ports([*gone, *new]))
        return msgspec.structs.replace(endpoint, ports=bindings_of(held))

    def unpublish(self, endpoint: Endpoint) -> None:
        """Frees all ports of an endpoint; none is no error."""
        rules = rules_of(endpoint, endpoint.ports)
        self._firewall.exchange(rules, ())
        self._reaper.forget_udp_flows(_udp_ports(rules))
        self._ports.release(endpoint.id)
        failpoint.hit("network.ports-released")

    def adopt(self, endpoint: Endpoint) -> list[PortRule]:
        """Holds the ports of a live container again; returns the translations that it has."""
        lost = self._ports.adopt(
            endpoint.id, requests_of(endpoint.ports), name=endpoint.container_name
        )
        for request in lost:
            _log.warning(
                "port %s of container %s was taken by another program meanwhile",
                place_of(request.host_ip, request.host_port),
                endpoint.container_name,
            )
        return rules_of(endpoint, endpoint.ports)

    def rename(self, endpoint: Endpoint) -> None:
        self._ports.rename(endpoint.id, endpoint.container_name)

    def close(self) -> None:
        self._ports.close()


def rules_of(endpoint: Endpoint, bindings: dict[str, list[PortBinding]]) -> list[PortRule]:
    """The translations that belong to host ports."""
    rules = []
    for request in requests_of(bindings):
        address = _address(endpoint, ip_address(request.host_ip).version)
        if address:
            rules.append(
                PortRule(
                    request.protocol,
                    request.host_ip,
                    int(request.host_port),
                    ip_address(address),
                    request.container_port,
                )
            )
    return rules


def _address(endpoint: Endpoint, version: int) -> str:
    return endpoint.ip_address if version == 4 else endpoint.ipv6_address


def _udp_ports(rules: Sequence[PortRule]) -> set[int]:
    return {rule.host_port for rule in rules if rule.protocol == "udp"}
