"""Host ports that an endpoint has, and which of them serve it when it asks for others."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from estiba.model.container import PortBinding
from estiba.network.record import PortRequest

_Place = tuple[str, int, str]
_Asked = tuple[str, str, bool]


@dataclass(frozen=True, slots=True)
class HeldPort:
    """A host port that belongs to an endpoint. `holder` is None where no socket can hold it."""

    request: PortRequest
    host_ip: str
    host_port: int
    holder: socket.socket | None

    @property
    def binding(self) -> PortBinding:
        return PortBinding(host_ip=self.host_ip, host_port=str(self.host_port))

    @property
    def place(self) -> _Place:
        return self.host_ip, self.host_port, self.request.protocol

    def close(self, *, unless_in: Iterable[HeldPort] = ()) -> None:
        """Closes the holder, unless one of the others has the same."""
        if self.holder is not None and all(o.holder is not self.holder for o in unless_in):
            self.holder.close()


class HeldPorts:
    """Those of all endpoints."""

    def __init__(self) -> None:
        self._of: dict[str, list[HeldPort]] = {}
        self._at: dict[tuple[str, int], dict[tuple[str, str], None]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def of(self, owner: str) -> list[HeldPort]:
        return list(self._of.get(owner, ()))

    def users(self, protocol: str, number: int) -> list[tuple[str, str]]:
        """The endpoints that have a port, each with the host address that it has it at."""
        return list(self._at.get((protocol, number), ()))

    def add(self, owner: str, ports: Iterable[HeldPort]) -> None:
        for port in ports:
            self._of.setdefault(owner, []).append(port)
            users = self._at.setdefault((port.request.protocol, port.host_port), {})
            users[owner, port.host_ip] = None

    def remove(self, owner: str) -> list[HeldPort]:
        """What the endpoint had until now."""
        removed = self._of.pop(owner, [])
        for port in removed:
            where = port.request.protocol, port.host_port
            users = self._at.get(where, {})
            users.pop((owner, port.host_ip), None)
            if not users:
                self._at.pop(where, None)
        return removed

    def replace(self, owner: str, ports: Iterable[HeldPort]) -> None:
        self.remove(owner)
        self.add(owner, ports)


class LeftPorts:
    """Those that an endpoint has and that no request has taken yet."""

    def __init__(self, held: Iterable[HeldPort]) -> None:
        self._by_place: dict[_Place, HeldPort] = {}
        self._numbers: dict[_Asked, dict[int, None]] = {}
        for port in held:
            self._by_place[port.place] = port
            self._numbers.setdefault(_asked(port.request, port.host_ip), {})[port.host_port] = None

    def __iter__(self) -> Iterator[HeldPort]:
        return iter(self._by_place.values())

    def take(
        self, request: PortRequest, places: list[str], numbers: range | None
    ) -> list[HeldPort]:
        """Those that serve the request as they are, at all places; none if there are not all.

        `numbers` are those that it asks for, None if any will do.
        """
        for number in self._suiting(request, places[0], numbers) if places else ():
            same = [self._by_place.get((place, number, request.protocol)) for place in places]
            found = [port for port in same if port and port.request.key == request.key]
            if len(found) == len(places):
                self.discard(found)
                return found
        return []

    def reuse(self, request: PortRequest, place: str, number: int) -> HeldPort | None:
        """A port that leads elsewhere so far: its socket is kept."""
        port = self._by_place.get((place, number, request.protocol))
        return replace(port, request=request) if port else None

    def discard(self, held: Iterable[HeldPort]) -> None:
        """Forgets those at the places of these."""
        for one in held:
            port = self._by_place.pop(one.place, None)
            if port:
                del self._numbers[_asked(port.request, port.host_ip)][port.host_port]

    def _suiting(self, request: PortRequest, place: str, numbers: range | None) -> Iterator[int]:
        """The numbers that it may be served by, so far as the first place tells."""
        if numbers is None:
            yield from self._numbers.get((request.key, place, False), ())
        elif len(numbers) == 1:
            yield numbers[0]
        else:
            for is_fixed in (True, False):
                held = self._numbers.get((request.key, place, is_fixed), ())
                yield from (number for number in held if number in numbers)


def _asked(request: PortRequest, place: str) -> _Asked:
    return request.key, place, request.is_fixed
