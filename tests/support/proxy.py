"""An HTTP proxy that knows names which nobody else can look up."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards plain requests, one a connection, and tunnels CONNECT. `seen` holds first lines."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, names: Mapping[str, tuple[str, int]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.names = dict(names)
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away."""


class _Handler(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        line = self.rfile.readline(65536).decode()
        self.server.seen.append(line.strip())
        method, target, version = line.split()
        headers = []
        while (header := self.rfile.readline(65536)) not in (b"\r\n", b""):
            if not header.lower().startswith((b"proxy-", b"connection:")):
                headers.append(header)
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        place = self.server.names.get(url.hostname or "")
        if place is None:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(place, timeout=30) as upstream:
            if method == "CONNECT":
                self.wfile.write(f"{version} 200 Connection established\r\n\r\n".encode())
            else:
                path = f"{url.path}?{url.query}" if url.query else url.path
                head = [f"{method} {path} {version}\r\n".encode(), *headers]
                upstream.sendall(b"".join([*head, b"Connection: close\r\n\r\n"]))
            back = threading.Thread(target=_pump, args=(upstream, self.connection), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := self.rfile.read1(65536):
                    upstream.sendall(data)
                upstream.shutdown(socket.SHUT_WR)
            back.join(30)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(names: Mapping[str, tuple[str, int]]) -> Iterator[Proxy]:
    """`names` are hosts, and where they are."""
    made = Proxy(names)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
