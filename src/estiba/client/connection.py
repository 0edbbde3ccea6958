"""A stream to the daemon: blocking calls for requests, non-blocking ones for hijacked streams.

`_socket` is the C part of `socket`, whose import (selectors, enum) costs 10 ms; TCP and TLS take
the standard module.
"""

from __future__ import annotations

import _socket

from estiba.client.errors import NoDaemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from estiba.client.host import Host

CHUNK = 1 << 18


class Connection:
    """Plain bytes over a UNIX or TCP socket. `tls.TlsConnection` has the same methods."""

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bytes:
        """Blocks; empty at the end."""
        try:
            return self._socket.recv(CHUNK)
        except ConnectionResetError:
            return b""

    def send_all(self, data: bytes) -> None:
        self._socket.sendall(data)

    def try_receive(self) -> bytes | None:
        """What is there now: None when nothing is, empty at the end."""
        try:
            return self._socket.recv(CHUNK, _socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:
            return b""

    def try_send(self, data: bytes) -> int:
        """How many bytes were taken."""
        try:
            return self._socket.send(data, _socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0

    def end_input(self) -> None:
        """Half-close: the other side sees the end and may go on sending."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()


def connect(host: Host) -> Connection:
    """Raises NoDaemon naming the address."""
    try:
        if host.kind == "unix":
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            sock.connect(host.address)
            return Connection(sock)
        if host.kind == "ssh":
            from estiba.client.ssh import connect_ssh

            return connect_ssh(host)
        return _connect_tcp(host)
    except PermissionError:
        raise NoDaemon(
            f"permission denied while trying to connect to the daemon's socket at {host.url}: "
            "use root, or have the socket's group (estibad --group)",
            is_absent=False,
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NoDaemon(
            f"Cannot connect to the daemon at {host.url}: {reason}. Is it running?"
        ) from error


def _connect_tcp(host: Host) -> Connection:
    import socket

    sock = socket.create_connection((host.address, host.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if host.tls is None:
        return Connection(sock)
    from estiba.client.tls import TlsConnection

    return TlsConnection(sock, host)
