"""Host ports: which are asked for, and holding them so that nobody else on the host gets them.

Translation is the firewall's work; the socket held here never sees a packet of a published
port. It makes the kernel refuse the port to others, and `ss` show who has it.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from estiba.model.container import PortBinding
from estiba.model.errors import Conflict, FailedPrecondition, InvalidArgument
from estiba.network.record import PortRequest

ANY_ADDRESS = "0.0.0.0"
_SCTP_EPHEMERAL = range(49153, 65536)


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


class PortHolder:
    """All host ports of the engine, by the endpoint that they belong to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, list[HeldPort]] = {}

    def hold(
        self, owner: str, requests: Iterable[PortRequest], *, host_ip: str = ANY_ADDRESS
    ) -> list[HeldPort]:
        """Takes all ports of an endpoint or none.

        Raises Conflict for a port that another container or program has.
        """
        self.release(owner)
        with self._lock:
            held = self._held.setdefault(owner, [])
            try:
                for request in requests:
                    held.append(self._hold_one(request, request.host_ip or host_ip))
            except BaseException:
                self._release(owner)
                raise
            return list(held)

    def adopt(self, owner: str, requests: Iterable[PortRequest]) -> list[PortRequest]:
        """Takes the ports of a live container after a restart; returns those that others took.

        Their translation stays as it is, for the container has had them all along.
        """
        lost: list[PortRequest] = []
        with self._lock:
            held = self._held.setdefault(owner, [])
            for request in requests:
                try:
                    port = self._hold_one(request, request.host_ip)
                    _listen(port)
                except Conflict:
                    lost.append(request)
                    port = HeldPort(request, request.host_ip, int(request.host_port), None)
                held.append(port)
        return lost

    def swap(
        self, owner: str, requests: Iterable[PortRequest], *, host_ip: str = ANY_ADDRESS
    ) -> tuple[list[HeldPort], list[HeldPort]]:
        """Takes these ports in place of what the owner has: what is held now, and what it had.

        A host port in both is not let go. Of the others `drop` those that it had, or `swap_back`.
        Raises as `hold` does; the owner has what it had then.
        """
        with self._lock:
            earlier = self._held.get(owner, [])
            spare, held = list(earlier), []
            try:
                for request in requests:
                    kept = next((port for port in spare if _serves(port, request, host_ip)), None)
                    if kept is not None:
                        spare.remove(kept)
                        held.append(replace(kept, request=request))
                    else:
                        held.append(self._hold_one(request, request.host_ip or host_ip))
            except BaseException:
                _close(held, but=earlier)
                raise
            self._held[owner] = held
            return list(held), earlier

    def swap_back(self, owner: str, earlier: list[HeldPort]) -> None:
        with self._lock:
            _close(self._held.get(owner, []), but=earlier)
            self._held[owner] = earlier

    def drop(self, ports: list[HeldPort], *, but: list[HeldPort]) -> None:
        """Frees `ports`, but for those that are among the others too."""
        with self._lock:
            _close(ports, but=but)

    def confirm(self, owner: str) -> None:
        """Makes the hold firm, once translation is in place.

        Only a listening socket keeps out programs that set SO_REUSEADDR. Before translation it
        would accept connections that nobody serves. Raises Conflict.
        """
        for port in self._held.get(owner, ()):
            _listen(port)

    def release(self, owner: str) -> None:
        """Frees the ports of an endpoint; none is no error."""
        with self._lock:
            self._release(owner)

    def close(self) -> None:
        with self._lock:
            for owner in list(self._held):
                self._release(owner)

    def _release(self, owner: str) -> None:
        for port in self._held.pop(owner, ()):
            if port.holder is not None:
                port.holder.close()

    def _hold_one(self, request: PortRequest, host_ip: str) -> HeldPort:
        if ip_address(host_ip).version != 4:
            raise FailedPrecondition(
                f"cannot publish {request.key} on [{host_ip}]: the container has no IPv6 "
                "address, and addresses are not translated between IPv6 and IPv4; "
                "publish it on an IPv4 address"
            )
        for port in _candidates(request):
            try:
                return self._bind(request, host_ip, port)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise InvalidArgument(
                        f"Bind for {host_ip}:{port} failed: the host has no address {host_ip}"
                    ) from error
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        where = request.host_port or "any port"
        raise Conflict(f"Bind for {host_ip}:{where} failed: port is already allocated")

    def _bind(self, request: PortRequest, host_ip: str, port: int) -> HeldPort:
        if request.protocol == "sctp":
            self._check_sctp(host_ip, port)
            return HeldPort(request, host_ip, port, None)
        kind = socket.SOCK_STREAM if request.protocol == "tcp" else socket.SOCK_DGRAM
        holder = socket.socket(socket.AF_INET, kind)
        try:
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
        for others in self._held.values():
            for other in others:
                same = ANY_ADDRESS in (host_ip, other.host_ip) or host_ip == other.host_ip
                if same and (other.request.protocol, other.host_port) == ("sctp", port):
                    raise OSError(errno.EADDRINUSE, "port is already allocated")


def _serves(port: HeldPort, request: PortRequest, host_ip: str) -> bool:
    """Whether a held port is one that the request may get."""
    asked = (request.protocol, request.host_ip or host_ip)
    if (port.request.protocol, port.host_ip) != asked:
        return False
    if request.host_port in ("", "0"):
        return port.request.key == request.key and port.host_port == request.preferred
    return port.host_port in _parse_range(request.host_port)


def _close(ports: list[HeldPort], *, but: list[HeldPort]) -> None:
    kept = {id(port.holder) for port in but if port.holder is not None}
    for port in ports:
        if port.holder is not None and id(port.holder) not in kept:
            port.holder.close()


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


def _candidates(request: PortRequest) -> Iterator[int]:
    if request.host_port and request.host_port != "0":
        yield from _parse_range(request.host_port)
        return
    if request.preferred:
        yield request.preferred
    if request.protocol == "sctp":
        yield from _SCTP_EPHEMERAL
    else:
        # The kernel picks from ip_local_port_range and avoids what is in use.
        yield 0


def _listen(port: HeldPort) -> None:
    if port.holder is None or port.request.protocol != "tcp":
        return
    try:
        port.holder.listen(0)
    except OSError as error:
        raise Conflict(
            f"Bind for {port.host_ip}:{port.host_port} failed: port is already allocated"
        ) from error


def _parse_range(text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        ports = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        ports = range(0)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise InvalidArgument(f"invalid port or range of ports: {text[:32]!r}: use 1 to 65535")
    return ports
