"""Host ports: which are asked for, and holding them so that nobody else on the host gets them.

Translation is the firewall's work; the socket held here never sees a packet of a published
port. It makes the kernel refuse the port to others, and `ss` show who has it.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address
from itertools import chain

from estiba.model.container import PortBinding
from estiba.model.errors import (
    Conflict,
    EstibaError,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from estiba.network.heldports import HeldPort, HeldPorts, LeftPorts
from estiba.network.portusers import program_at
from estiba.network.record import PortRequest

ANY_ADDRESS = "0.0.0.0"
_ANYWHERE = {4: ANY_ADDRESS, 6: "::"}
_TRIES = 20
_SCTP_EPHEMERAL = range(49153, 65536)


class PortHolder:
    """All host ports of the engine, by the endpoint that they belong to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = HeldPorts()
        self._names: dict[str, str] = {}
        self._next_sctp = _SCTP_EPHEMERAL[0]

    def hold(
        self,
        owner: str,
        requests: Iterable[PortRequest],
        *,
        name: str,
        host_ip: str = ANY_ADDRESS,
        versions: Collection[int] = (4,),
    ) -> list[HeldPort]:
        """Takes all ports of an endpoint, or none: then it has those that it had before.

        What it has already is kept as it is. A request without a host address is held at
        `host_ip`, which means everywhere if it is 0.0.0.0: at that of each family in
        `versions`, those of the container. `name` is what the owner is called in errors.

        Raises Conflict for a port that another container or program has, FailedPrecondition
        for a host address of a family that the container has no address of.
        """
        wanted = [(request, _places(request, host_ip, versions)) for request in requests]
        with self._lock:
            before = self._held.of(owner)
            left = LeftPorts(before)
            self._names[owner] = name
            kept = [left.take(request, places, _numbers(request)) for request, places in wanted]
            made: list[HeldPort] = []
            try:
                for (request, places), held in zip(wanted, kept, strict=True):
                    if not held:
                        held += self._hold_all(request, places, left)
                        made += held
                        # Seen by the requests that follow.
                        self._held.add(owner, held)
            except BaseException:
                for port in made:
                    port.close(unless_in=before)
                self._replace(owner, before)
                raise
            self._held.replace(owner, [port for held in kept for port in held])
            return self._held.of(owner)

    def drop_others(self, before: Iterable[HeldPort], kept: Iterable[HeldPort]) -> None:
        """Closes the sockets of ports that were held `before` and are not `kept`."""
        holders = {port.holder for port in kept}
        for port in before:
            if port.holder not in holders:
                port.close()

    def held(self, owner: str) -> list[HeldPort]:
        with self._lock:
            return self._held.of(owner)

    def put_back(self, owner: str, ports: list[HeldPort]) -> None:
        """What the owner had before `hold`; closes what it got then."""
        with self._lock:
            for port in self._held.of(owner):
                port.close(unless_in=ports)
            self._replace(owner, ports)

    def adopt(self, owner: str, requests: Iterable[PortRequest], *, name: str) -> list[PortRequest]:
        """Takes the ports of a live container after a restart; returns those that others took.

        Their translation stays as it is, for the container has had them all along.
        """
        lost: list[PortRequest] = []
        with self._lock:
            self._names[owner] = name
            for request in requests:
                number = int(request.host_port)
                try:
                    port = self._bind(request, request.host_ip, number)
                    _listen(port)
                except (OSError, EstibaError):
                    lost.append(request)
                    port = HeldPort(request, request.host_ip, number, None)
                self._held.add(owner, [port])
        return lost

    def confirm(self, owner: str) -> None:
        """Makes the hold firm, once translation is in place.

        Only a listening socket keeps out programs that set SO_REUSEADDR. Before translation it
        would accept connections that nobody serves. Raises Conflict.
        """
        for port in self.held(owner):
            _listen(port)

    def rename(self, owner: str, name: str) -> None:
        with self._lock:
            if owner in self._names:
                self._names[owner] = name

    def release(self, owner: str) -> None:
        """Frees the ports of an endpoint; none is no error."""
        with self._lock:
            self._release(owner)

    def close(self) -> None:
        with self._lock:
            for owner in list(self._held):
                self._release(owner)

    def _release(self, owner: str) -> None:
        for port in self._held.remove(owner):
            port.close()
        self._names.pop(owner, None)

    def _replace(self, owner: str, ports: list[HeldPort]) -> None:
        self._held.replace(owner, ports)
        if not ports:
            self._names.pop(owner, None)

    def _hold_all(self, request: PortRequest, places: list[str], left: LeftPorts) -> list[HeldPort]:
        """The first port that is free at all places."""
        refusal: OSError | None = None
        for number in self._candidates(request):
            held: list[HeldPort] = []
            try:
                for place in places:
                    # The kernel chooses the number of an ephemeral port at the first place.
                    chosen = held[0].host_port if held else number
                    port = left.reuse(request, place, chosen)
                    held.append(port or self._bind(request, place, chosen))
                left.discard(held)
                return held
            except OSError as error:
                for port in held:
                    port.close(unless_in=left)
                refusal = error
                if error.errno == errno.EADDRNOTAVAIL:
                    raise InvalidArgument(
                        f"Bind for {place_of(place, chosen)} failed: the host has no address "
                        f"{place}"
                    ) from error
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise Unavailable(
                        f"cannot publish {request.key}: the engine holds a descriptor for each "
                        "published port, and has no more: raise its limit (LimitNOFILE)"
                    ) from error
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        where = place_of(place, request.host_port or "any port")
        whose = self._user_of(request.protocol, place, request.host_port)
        raise Conflict(f"Bind for {where} failed: port is already allocated{whose}") from refusal

    def _candidates(self, request: PortRequest) -> Iterator[int]:
        numbers = _numbers(request)
        if numbers:
            yield from numbers
            return
        if request.preferred:
            yield request.preferred
        if request.protocol == "sctp":
            first, stop = self._next_sctp, _SCTP_EPHEMERAL.stop
            for number in chain(range(first, stop), range(_SCTP_EPHEMERAL.start, first)):
                self._next_sctp = number + 1
                yield number
        else:
            # The kernel picks from ip_local_port_range and avoids what is in use; in one family,
            # so that the number may be taken in the other.
            yield from (0 for _ in range(_TRIES))

    def _bind(self, request: PortRequest, host_ip: str, port: int) -> HeldPort:
        if request.protocol == "sctp":
            self._check_sctp(host_ip, port)
            return HeldPort(request, host_ip, port, None)
        kind = socket.SOCK_STREAM if request.protocol == "tcp" else socket.SOCK_DGRAM
        is_ipv6 = ip_address(host_ip).version == 6
        holder = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, kind)
        try:
            if is_ipv6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if request.protocol == "tcp":
                # Connections of a program that had the port before may still be in TIME_WAIT.
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            holder.bind((host_ip, port))
        except BaseException:
            holder.close()
            raise
        return HeldPort(request, host_ip, holder.getsockname()[1], holder)

    def _check_sctp(self, host_ip: str, port: int) -> None:
        """Few kernels have SCTP sockets; the engine's own table stands in for them."""
        if self._owners("sctp", host_ip, port):
            raise OSError(errno.EADDRINUSE, "port is already allocated")

    def _owners(self, protocol: str, host_ip: str, port: int) -> list[str]:
        return [owner for owner, place in self._held.users(protocol, port) if _meet(place, host_ip)]

    def _user_of(self, protocol: str, host_ip: str, text: str) -> str:
        """Who has the port, in words, if it is one port and that can be told."""
        if not text.isdecimal():
            return ""
        owners = self._owners(protocol, host_ip, int(text))
        if owners:
            return f": container {self._names.get(owners[0], owners[0])} has it"
        program = program_at(protocol, int(text))
        return f": {program} has it" if program else ""


def _places(request: PortRequest, default: str, versions: Collection[int]) -> list[str]:
    """The host addresses that a request is held at."""
    if not request.host_ip and default == ANY_ADDRESS:
        return [_ANYWHERE[version] for version in sorted(versions)]
    place = str(ip_address(request.host_ip or default))
    version = ip_address(place).version
    if version not in versions:
        if not request.host_ip:
            return []
        raise FailedPrecondition(
            f"cannot publish {request.key} on {place_of(place)}: the container has no "
            f"IPv{version} address on this network, and addresses are not translated between "
            f"IPv6 and IPv4; publish it on an IPv{10 - version} address, or use a network with "
            f"IPv{version}"
        )
    return [place]


def _meet(one: str, other: str) -> bool:
    """Whether two host addresses cover a common one."""
    if ip_address(one).version != ip_address(other).version:
        return False
    return one == other or bool({one, other} & set(_ANYWHERE.values()))


def place_of(host_ip: str, port: object = "") -> str:
    """An address and a port as people write them."""
    where = f"[{host_ip}]" if ":" in host_ip else host_ip
    return f"{where}:{port}" if port != "" else where


def bindings_of(held: list[HeldPort]) -> dict[str, list[PortBinding]]:
    """Held ports as inspect shows them."""
    found: dict[str, list[PortBinding]] = {}
    for port in held:
        found.setdefault(port.request.key, []).append(port.binding)
    return found


def requests_of(bindings: dict[str, list[PortBinding]]) -> list[PortRequest]:
    """The requests that give exactly these bindings again."""
    return [
        PortRequest(
            container_port=int(key.partition("/")[0]),
            protocol=key.partition("/")[2],
            host_ip=host.host_ip,
            host_port=host.host_port,
        )
        for key, hosts in bindings.items()
        for host in hosts
    ]


def _listen(port: HeldPort) -> None:
    if port.holder is None or port.request.protocol != "tcp":
        return
    try:
        port.holder.listen(0)
    except OSError as error:
        raise Conflict(
            f"Bind for {place_of(port.host_ip, port.host_port)} failed: port is already allocated"
        ) from error


def _numbers(request: PortRequest) -> range | None:
    """Those that it asks for, None if any will do."""
    return _parse_range(request.host_port) if request.is_fixed else None


def _parse_range(text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        ports = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        ports = range(0)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise InvalidArgument(f"invalid port or range of ports: {text[:32]!r}: use 1 to 65535")
    return ports
