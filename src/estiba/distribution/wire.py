"""A connection below HTTP: TCP, a proxy's tunnel, TLS; deadlines; ended from another thread."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estiba.distribution.cancel import CancelToken
from estiba.distribution.proxies import Proxy
from estiba.distribution.urls import Origin

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_BUFFER_BYTES = 64 << 10
_MAX_TUNNEL_HEAD_BYTES = 16 << 10


class Wire:
    """Behaves as the socket that `http.client` wants, which closes it once itself and once for
    every reader.

    `arm` sets by when what follows must have happened; time-outs are TimeoutError.
    """

    def __init__(self, raw: socket.socket, timeout_s: float) -> None:
        self._socket = raw
        self._users = 1
        self.arm(timeout_s)

    def arm(self, seconds: float) -> None:
        """Reads must be over in `seconds` from now, and each write."""
        self._deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)

    def wrap(self, context: ssl.SSLContext, host: str) -> None:
        """The handshake of TLS."""
        # The plain socket is empty as soon as the other one exists, before the handshake.
        self._socket = tls = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        tls.do_handshake()

    def tunnel(self, origin: Origin, proxy: Proxy) -> None:
        """CONNECT through a proxy (RFC 9110, 9.3.6). Raises OSError when it refuses."""
        target = f"{origin.authority.removesuffix(f':{origin.port}')}:{origin.port}"
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        if proxy.authorization:
            head += f"Proxy-Authorization: {proxy.authorization}\r\n"
        self._socket.sendall(f"{head}\r\n".encode())
        answer = bytearray()
        # By the byte: what follows the head belongs to TLS.
        while not answer.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte or len(answer) > _MAX_TUNNEL_HEAD_BYTES or self._is_late():
                raise OSError("the proxy gave no answer")
            answer += byte
        status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(status) < 2 or not status[1].startswith("2"):
            shown = status[1][:3] if len(status) > 1 else ""
            raise OSError(f"the proxy refused the connection with status {shown!r}")

    def sendall(self, data: ReadableBuffer) -> None:
        self._socket.sendall(data)

    def receive_into(self, buffer: WriteableBuffer) -> int:
        if self._is_late():
            raise TimeoutError("timed out")
        return self._socket.recv_into(buffer)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def is_usable(self) -> bool:
        """Whether an idle connection was neither closed nor spoken on by the other side."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def shut(self) -> None:
        """Ends what blocks on it, from any thread; never blocks and never raises."""
        with contextlib.suppress(OSError):
            # That of the class below TLS: no farewell, and no state of a running read is touched.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    # -- what http.client calls ----------------------------------------------------------------

    def makefile(self, mode: str) -> io.BufferedReader:
        self._users += 1
        return io.BufferedReader(_Reader(self), _BUFFER_BYTES)

    def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._wire.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._wire.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Route:
    """How an origin is reached. `context` is None for plain HTTP."""

    origin: Origin
    proxy: Proxy | None
    context: ssl.SSLContext | None


def open_wire(route: Route, timeout_s: float, cancel: CancelToken) -> Wire:
    """Connects in `timeout_s`. Raises OSError, ssl.SSLError among them, and Cancelled."""
    host, port = route.origin.host, route.origin.port
    if route.proxy is not None:
        host, port = route.proxy.host, route.proxy.port
    deadline = time.monotonic() + timeout_s
    wire = Wire(_dial(host, port, deadline, cancel), timeout_s)
    try:
        wire.arm(max(deadline - time.monotonic(), 0.001))
        with cancel.ending_with(lambda: wire.shut()):
            if route.context is not None:
                if route.proxy is not None:
                    wire.tunnel(route.origin, route.proxy)
                wire.wrap(route.context, route.origin.host)
    except BaseException:
        wire.close()
        raise
    return wire


def _dial(host: str, port: int, deadline: float, cancel: CancelToken) -> socket.socket:
    """Every address has its share of the time that is left."""
    cancel.check()
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - index)
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(max(share, 0.001))
            with cancel.ending_with(lambda made=made: _shut(made)):  # type: ignore[misc]
                made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            made.close()
            cancel.check()
            failure = error
        except BaseException:
            made.close()
            raise
    raise failure


def _shut(made: socket.socket) -> None:
    with contextlib.suppress(OSError):
        made.shutdown(socket.SHUT_RDWR)
