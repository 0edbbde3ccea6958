"""HTTP/1.1: just what the Engine API needs, without an import that costs.

One connection a request; a hijacked connection is handed over with the bytes that came after the
head. Paths are made with `part` and `image_part`, which encode what a user typed.
"""

from __future__ import annotations

import os

from estiba.client.connection import Connection, connect
from estiba.client.errors import ApiError, ClientError
from estiba.client.host import Host, read_config
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

NEWEST = "1.51"
_OLDEST = "1.24"
_MAX_HEAD = 1 << 20
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Response:
    """An answer whose head has been read."""

    def __init__(self, connection: Connection, method: str) -> None:
        self.connection = connection
        self._buffer = b""
        lines = self._read_head().decode("latin-1").split("\r\n")
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
            data = self.connection.receive()
            if not data or len(self._buffer) > _MAX_HEAD:
                raise ClientError("the daemon closed the connection without an answer")
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises ClientError when it is cut off."""
        if not self._has_body:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
            return
        length = self.headers.get("content-length")
        remaining = int(length) if length is not None else None
        while remaining is None or remaining > 0:
            data = self._buffer or self.connection.receive()
            self._buffer = b""
            if not data:
                if remaining:
                    raise ClientError("the daemon closed the connection in the middle of an answer")
                return
            if remaining is not None:
                remaining -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            missing = int(self._line().split(b";")[0], 16)
            if not missing:
                return
            while missing:
                if not self._buffer:
                    self._more()
                piece, self._buffer = self._buffer[:missing], self._buffer[missing:]
                missing -= len(piece)
                yield piece
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _more(self) -> None:
        data = self.connection.receive()
        if not data:
            raise ClientError("the daemon closed the connection in the middle of an answer")
        self._buffer += data

    def read(self) -> bytes:
        """The whole body; the connection is closed."""
        data = b"".join(self.pieces())
        self.connection.close()
        return data

    def json(self) -> Any:
        data = self.read()
        return loads(data) if data.strip() else None

    def lines(self) -> Iterator[Any]:
        """JSON values, one a line."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    yield loads(line)
        if rest.strip():
            yield loads(rest)

    def hijacked(self) -> tuple[Connection, bytes]:
        """The connection, and what came with the head."""
        return self.connection, self._buffer

    def close(self) -> None:
        self.connection.close()


class Client:
    """A daemon's API at a version, negotiated when it is first used."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._version = os.environ.get("DOCKER_API_VERSION", "")
        self._server = ""

    @property
    def version(self) -> str:
        """The newest API version that both sides know."""
        if not self._version:
            self._version = min(self._ping(), NEWEST, key=version_key)
        return self._version

    def _ping(self) -> str:
        """The API version that the daemon offers."""
        answer = self._send("GET", "/_ping")
        answer.close()
        self._server = answer.headers.get("server", "?")
        return answer.headers.get("api-version", _OLDEST)

    @property
    def is_docker(self) -> bool:
        """Whether a genuine Docker Engine answers, which knows nothing of estiba's own."""
        if self.version and not self._server:
            self._ping()
        return self._server.startswith("Docker/")

    def require(self, version: str, what: str) -> None:
        """Raises ClientError when the daemon's API is older than what a flag needs."""
        if version_key(self.version) < version_key(version):
            raise ClientError(
                f'"{what}" requires API version {version}, but the Docker daemon API version is '
                f"{self.version}"
            )

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return self.call("GET", path, query).json()

    def post(self, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        return self.call("POST", path, query, body).json()

    def delete(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return self.call("DELETE", path, query).json()

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        *,
        source: Iterable[bytes] | None = None,
        upgrade: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request; `source` is sent in chunks instead of a JSON body.

        Raises ApiError for a refusal, NoDaemon when nothing answers.
        """
        target = f"/v{self.version}{path}{encode(query)}"
        response = self._send(
            method, target, body, source=source, upgrade=upgrade, headers=headers or {}
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
        source: Iterable[bytes] | None = None,
        upgrade: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Response:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._authority()}"]
        sent = {**_own_headers(), **(headers or {})}
        lines += [f"{name}: {value}" for name, value in sent.items()]
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
        data = b""
        if source is not None:
            kind = [] if "Content-Type" in sent else ["Content-Type: application/x-tar"]
            lines += [*kind, "Transfer-Encoding: chunked"]
        elif body is not None:
            data = dumps(body).encode(errors="surrogateescape")
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        elif method in ("POST", "PUT"):
            lines.append("Content-Length: 0")
        connection = connect(self.host)
        connection.send_all("\r\n".join([*lines, "", ""]).encode() + data)
        if source is not None:
            try:
                _send_chunks(connection, source)
            except BaseException:
                # The daemon sees a request that was cut off, and gives it up.
                connection.close()
                raise
        return Response(connection, method)

    def _authority(self) -> str:
        host = self.host
        if host.kind != "tcp":
            return "localhost"
        name = f"[{host.address}]" if ":" in host.address else host.address
        return f"{name}:{host.port}"


def _own_headers() -> dict[str, str]:
    """`HttpHeaders` of the user's config.json. Raises ClientError for what is no header."""
    wanted = read_config().get("HttpHeaders")
    if not isinstance(wanted, dict):
        return {}
    for name, value in wanted.items():
        text = f"{name}{value}"
        if not isinstance(value, str) or not name or not text.isprintable() or not text.isascii():
            raise ClientError(f"HttpHeaders of config.json: {name!r} cannot be sent as a header")
        if ":" in name or " " in name:
            raise ClientError(f"HttpHeaders of config.json: {name!r} is no name of a header")
    # As docker has it, nobody else speaks in this client's name.
    return {name: value for name, value in wanted.items() if name.lower() != "user-agent"}


def version_key(text: str) -> tuple[int, ...]:
    """For comparing API versions. Raises ClientError for what is none."""
    try:
        return tuple(int(number) for number in text.split("."))
    except ValueError:
        raise ClientError(f"not an API version: {text!r}") from None


def _send_chunks(connection: Connection, source: Iterable[bytes]) -> None:
    try:
        for piece in source:
            if piece:
                connection.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send_all(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        # The daemon has answered early: its answer says why.
        return


def _message(response: Response) -> str:
    data = response.read()
    try:
        return str(loads(data)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip() or f"HTTP status {response.status}"


def part(name: str) -> str:
    """One segment of a path. Raises ClientError for an empty one."""
    if not name.strip("/ "):
        raise ClientError("invalid name or ID: value is empty")
    return _quote(name.removeprefix("/"), _SAFE)


def image_part(name: str) -> str:
    """An image's name, which may hold slashes."""
    if not name.strip():
        raise ClientError("invalid image name: value is empty")
    return _quote(name, _SAFE | frozenset(b"/:@"))


def _quote(text: str, safe: frozenset[int]) -> str:
    data = text.encode(errors="surrogateescape")
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in data)


def encode(query: dict[str, Any] | None) -> str:
    """A query string: None and False are left out, True is 1, a list repeats, a dict is JSON."""
    found = []
    for name, value in (query or {}).items():
        for item in value if isinstance(value, list) else [value]:
            if item is None or item is False:
                continue
            text = dumps(item) if isinstance(item, dict) else "1" if item is True else str(item)
            found.append(f"{name}={_quote(text, _SAFE)}")
    return f"?{'&'.join(found)}" if found else ""
