"""HTTP/1.1 over a socket: just what the Engine API needs, without an import that costs.

One connection a request. A hijacked connection is handed over as a socket with the bytes that
came after the head.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from estiba.client.errors import ApiError, ClientError, NoDaemon
from estiba.client.host import Host

NEWEST = "1.51"
_OLDEST_KNOWN = "1.24"
_CHUNK = 1 << 18
_MAX_HEAD = 1 << 20
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")

Query = dict[str, Any]
Source = Iterator[bytes]


class Response:
    """An answer whose head has been read."""

    def __init__(self, connection: socket.socket, method: str) -> None:
        self._socket = connection
        self._buffer = b""
        head = self._read_head()
        lines = head.decode("latin-1").split("\r\n")
        try:
            self.status = int(lines[0].split(" ", 2)[1])
        except (IndexError, ValueError):
            raise ClientError(f"not an HTTP answer: {lines[0][:80]!r}") from None
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._has_body = method != "HEAD" and self.status not in (101, 204, 304)

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            data = self._socket.recv(_CHUNK)
            if not data or len(self._buffer) > _MAX_HEAD:
                raise ClientError("the daemon closed the connection without an answer")
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        if not self._has_body:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
            return
        length = self.headers.get("content-length")
        remaining = int(length) if length is not None else None
        while remaining is None or remaining > 0:
            data = self._buffer or self._socket.recv(_CHUNK)
            self._buffer = b""
            if not data:
                return
            if remaining is not None:
                remaining -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                return
            missing = size
            while missing:
                if not self._buffer:
                    self._more()
                piece, self._buffer = self._buffer[:missing], self._buffer[missing:]
                missing -= len(piece)
                yield piece
            while len(self._buffer) < 2:
                self._more()
            self._buffer = self._buffer[2:]

    def _more(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ClientError("the daemon closed the connection in the middle of an answer")
        self._buffer += data

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def json(self) -> Any:
        data = self.read()
        return json.loads(data) if data.strip() else None

    def lines(self) -> Iterator[Any]:
        """JSON values, one a line."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    yield json.loads(line)
        if rest.strip():
            yield json.loads(rest)

    def hijacked(self) -> tuple[socket.socket, bytes]:
        """The connection, and what came with the head."""
        return self._socket, self._buffer

    def close(self) -> None:
        self._socket.close()


class Client:
    """A daemon's API at a version; negotiated when it is first used."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._version = os.environ.get("DOCKER_API_VERSION", "")

    @property
    def version(self) -> str:
        """The newest version that both sides know."""
        if not self._version:
            offered = self._send("GET", "/_ping").headers.get("api-version", _OLDEST_KNOWN)
            self._version = min(offered, NEWEST, key=lambda text: [int(n) for n in text.split(".")])
        return self._version

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query).json()

    def post(self, path: str, query: Query | None = None, body: Any = None) -> Any:
        return self.call("POST", path, query, body).json()

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.call("DELETE", path, query).json()

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        source: Source | None = None,
        upgrade: bool = False,
        content_type: str = "application/json",
    ) -> Response:
        """One request; `source` is sent in chunks.

        Raises ApiError for a refusal, NoDaemon when nothing answers.
        """
        target = f"/v{self.version}{quote(path)}{encode(query)}"
        response = self._send(
            method, target, body, source=source, upgrade=upgrade, content_type=content_type
        )
        if response.status >= 400:
            raise ApiError(response.status, _message(response))
        return response

    def _send(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        source: Source | None = None,
        upgrade: bool = False,
        content_type: str = "application/json",
    ) -> Response:
        data = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} {target} HTTP/1.1", "Host: estiba", f"User-Agent: estiba/{NEWEST}"]
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        else:
            lines.append("Connection: close")
        if source is not None:
            lines += [f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
        elif body is not None or method in ("POST", "PUT"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        connection = self._connect()
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + data)
        if source is not None:
            _send_chunks(connection, source)
        return Response(connection, method)

    def _connect(self) -> socket.socket:
        host = self.host
        try:
            if host.kind == "unix":
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(host.address)
                return connection
            connection = socket.create_connection((host.address, host.port))
        except OSError as error:
            where = (
                f"unix://{host.address}"
                if host.kind == "unix"
                else f"tcp://{host.address}:{host.port}"
            )
            raise NoDaemon(
                f"Cannot connect to the daemon at {where}: {error.strerror}. Is it running?"
            ) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _secured(connection, host) if host.tls is not None else connection


def _secured(connection: socket.socket, host: Host) -> socket.socket:
    import ssl

    tls = host.tls
    assert tls is not None
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if not tls.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if tls.certificate and os.path.exists(tls.certificate):
            context.load_cert_chain(tls.certificate, tls.key)
        return context.wrap_socket(connection, server_hostname=host.address)
    except (OSError, ssl.SSLError) as error:
        raise ClientError(f"cannot speak TLS with {host.address}: {error}") from error


def _send_chunks(connection: socket.socket, source: Source) -> None:
    try:
        for piece in source:
            if piece:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        # The daemon has answered early: its answer says why.
        return


def _message(response: Response) -> str:
    data = response.read()
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip() or f"HTTP status {response.status}"


def quote(text: str) -> str:
    """Percent-encoding of a path."""
    return "".join(
        chr(byte) if byte in _SAFE else f"%{byte:02X}"
        for byte in text.encode(errors="surrogateescape")
    )


def encode(query: Query | None) -> str:
    """A query string; None and False are left out, True is 1, containers are JSON."""
    parts = []
    for name, value in (query or {}).items():
        if value is None or value is False:
            continue
        values = value if isinstance(value, list) else [value]
        for item in values:
            text = (
                json.dumps(item) if isinstance(item, dict) else "1" if item is True else str(item)
            )
            parts.append(f"{name}={quote(text).replace('/', '%2F').replace(':', '%3A')}")
    return f"?{'&'.join(parts)}" if parts else ""
