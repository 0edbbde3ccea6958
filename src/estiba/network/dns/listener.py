"""A container's name server at 127.0.0.11:53: sockets in its namespace, and what leads to them.

The sockets have ports that the kernel chooses, so that the container can bind port 53 itself. Its
packets to port 53 are given the port of the socket on their way out, and the answers port 53, by
two chains of three rules; all else passes after the first. Nothing is translated by connection
tracking: a client that goes on asking with one socket is answered again after a restart of the
engine, when the ports are others. Where the container has rules of its own that track, they see
both ways with the port of the socket: one chain stands before, the other behind.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from estiba.kernel import failpoint, nft_batch
from estiba.kernel.netns import run_in_netns
from estiba.kernel.nft import open_notices
from estiba.kernel.nft_batch import FilterChain
from estiba.network.resolv import INTERNAL_SERVER

TABLE = "estiba_dns"
PORT = 53

_LOOPBACK_INDEX = 1
_BEFORE_TRACKING, _BEHIND_ALL_OTHERS = -400, 400
_SOURCE_ADDRESS, _DESTINATION_ADDRESS = 12, 16
_SOURCE_PORT, _DESTINATION_PORT = 0, 2
_CHECKSUM = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}
_BACKLOG = 64
_RECEIVE_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Listener:
    """Open sockets; they belong to the namespace for good, whichever thread uses them."""

    udp: socket.socket
    tcp: socket.socket
    notices: socket.socket
    """Hears when somebody changes the rules of the namespace."""

    ports: tuple[int, int]

    def close(self) -> None:
        for each in (self.udp, self.tcp, self.notices):
            each.close()


def open_listener(sandbox: Path) -> Listener:
    """Opens sockets in the namespace and leads port 53 to them, also where an earlier engine
    led it elsewhere. Raises OSError, and nothing is left open then.
    """
    return run_in_netns(sandbox, _open)


def write_rules(sandbox: Path, listener: Listener) -> int:
    """Leads port 53 to the sockets again, where others have changed the rules.

    Returns the id of the thread that did it, which others may see named. Raises OSError.
    """

    def write() -> int:
        nft_batch.write_table(TABLE, redirection(*listener.ports))
        return threading.get_native_id()

    return run_in_netns(sandbox, write)


def _open() -> Listener:
    with ExitStack() as undo:
        udp = undo.enter_context(_bound(socket.SOCK_DGRAM))
        tcp = undo.enter_context(_bound(socket.SOCK_STREAM))
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        tcp.listen(_BACKLOG)
        ports = udp.getsockname()[1], tcp.getsockname()[1]
        nft_batch.write_table(TABLE, redirection(*ports))
        notices = undo.enter_context(open_notices())
        failpoint.hit("network.names-opened")
        undo.pop_all()
    return Listener(udp, tcp, notices, ports)


def _bound(kind: int) -> socket.socket:
    handle = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        handle.bind((INTERNAL_SERVER, 0))
    except BaseException:
        handle.close()
        raise
    return handle


def redirection(udp_port: int, tcp_port: int) -> list[FilterChain]:
    """The chains that lead questions to these ports and let the answers come from port 53."""
    ports = ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port))
    questions = [
        _set(_DESTINATION_ADDRESS, _DESTINATION_PORT, each, PORT, to) for each, to in ports
    ]
    answers = [_set(_SOURCE_ADDRESS, _SOURCE_PORT, each, of, PORT) for each, of in ports]
    elsewhere = nft_batch.leaves_not_by(_LOOPBACK_INDEX) + nft_batch.accept()
    out = nft_batch.HOOK_LOCAL_OUT
    return [
        FilterChain("questions", out, _BEFORE_TRACKING, [elsewhere, *questions]),
        FilterChain("answers", out, _BEHIND_ALL_OTHERS, [elsewhere, *answers]),
    ]


def _set(address_at: int, port_at: int, protocol: int, old: int, new: int) -> bytes:
    return (
        nft_batch.network_header(address_at, IPv4Address(INTERNAL_SERVER).packed)
        + nft_batch.protocol(protocol)
        + nft_batch.transport_header(port_at, _port(old))
        + nft_batch.set_transport_header(port_at, _port(new), _CHECKSUM[protocol])
    )


def _port(number: int) -> bytes:
    return struct.pack("!H", number)
