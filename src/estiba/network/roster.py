"""Who is connected to what: the endpoints of an engine, in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import msgspec

from estiba.model.errors import Conflict
from estiba.network.record import Endpoint, NetworkRecord


class Roster:
    """Endpoints by container, then by network; one under way is there already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._endpoints: dict[str, dict[str, Endpoint]] = {}

    def enrol(
        self, network: NetworkRecord, endpoint: Endpoint, prefix: str
    ) -> tuple[Endpoint, tuple[int, ...]]:
        """Notes an endpoint before it is made.

        Returns it with a name for its interface, the first free one after `prefix` unless it has
        one, and the families whose default route it is to have. Raises Conflict.
        """
        with self._lock:
            mine = self._endpoints.setdefault(endpoint.container_id, {})
            others = [other for key, other in mine.items() if key != network.id]
            used = {other.interface for other in others}
            if endpoint.interface and endpoint.interface in used:
                raise Conflict(
                    f"interface name {endpoint.interface} is taken in container "
                    f"{endpoint.container_name}: choose another one"
                )
            if prefix and not endpoint.interface:
                free = next(n for n in range(len(used) + 1) if f"{prefix}{n}" not in used)
                endpoint = msgspec.structs.replace(endpoint, interface=f"{prefix}{free}")
            mine[network.id] = endpoint
        default_route = tuple(
            version
            for version in (4, 6)
            if all(
                endpoint.gateway_rank < other.gateway_rank
                for other in others
                if other.gateway_of(version)
            )
        )
        return endpoint, default_route

    def put(self, endpoints: Iterable[Endpoint]) -> None:
        with self._lock:
            for endpoint in endpoints:
                mine = self._endpoints.setdefault(endpoint.container_id, {})
                mine[endpoint.network_id] = endpoint

    def strike(self, container_id: str, network_id: str) -> None:
        """Forgets an endpoint; one that is not there is no error."""
        with self._lock:
            mine = self._endpoints.get(container_id, {})
            mine.pop(network_id, None)
            if not mine:
                self._endpoints.pop(container_id, None)

    def find(self, container_id: str, network_id: str) -> Endpoint | None:
        with self._lock:
            return self._endpoints.get(container_id, {}).get(network_id)

    def of_container(self, container_id: str) -> list[Endpoint]:
        with self._lock:
            return list(self._endpoints.get(container_id, {}).values())

    def of_network(self, network_id: str) -> list[Endpoint]:
        with self._lock:
            return [mine[network_id] for mine in self._endpoints.values() if network_id in mine]

    def all(self) -> list[Endpoint]:
        with self._lock:
            return [endpoint for mine in self._endpoints.values() for endpoint in mine.values()]


def default_routes(endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, int]]:
    """Which of a container's endpoints has the default route of which family. Pure."""
    candidates = sorted(endpoints, key=lambda endpoint: endpoint.gateway_rank)
    chosen = []
    for version in (4, 6):
        first = next((one for one in candidates if one.gateway_of(version)), None)
        if first is not None:
            chosen.append((first, version))
    return chosen
