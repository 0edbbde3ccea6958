"""An HTTP server that answers as a test says, badly too: it hangs, lies, cuts off."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ask:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`length` is what Content-Length claims, None without one: the body ends with the
    connection. After `cut` bytes of the body the connection ends, after `hang` nothing comes any
    more. `drip_s` is the pause after every byte. `raw` goes out instead of all else.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = -1
    chunked: bool = False
    cut: int | None = None
    hang: int | None = None
    drip_s: float = 0
    raw: bytes | None = None


Script = Callable[[Ask], Reply]


class ScriptedServer(ThreadingHTTPServer):
    """`asks` holds what came, in order."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asks: list[Ask] = []
        self.ended = threading.Event()
        self.is_tls = context is not None
        if context is not None:
            # The handshake belongs into the connection's thread.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self, method: str = "") -> list[str]:
        return [ask.path for ask in self.asks if method in ("", ask.method)]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        ask = Ask(self.command, self.path, headers, self.rfile.read(size))
        self.server.asks.append(ask)
        reply = self.server.script(ask)
        if reply.raw is not None:
            self.wfile.write(reply.raw)
            self.close_connection = True
            return
        self._head(reply)
        self._body(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _head(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.length is None:
            self.close_connection = True
        elif "Content-Length" not in reply.headers:
            length = len(reply.body) if reply.length == -1 else reply.length
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self, reply: Reply) -> None:
        if self.command == "HEAD":
            return
        end = min(n for n in (reply.cut, reply.hang, len(reply.body)) if n is not None)
        body = reply.body[:end]
        if reply.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if reply.cut is not None or reply.hang is not None else b"0\r\n\r\n"
        if reply.drip_s:
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                self.server.ended.wait(reply.drip_s)
        else:
            self.wfile.write(body)
        if reply.hang is not None:
            self.wfile.flush()
            self.server.ended.wait()
        if reply.cut is not None or reply.hang is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def scripted(
    script: Script, *, certificate: tuple[Path, Path] | None = None
) -> Iterator[ScriptedServer]:
    """With `certificate`, its file and its key's, it speaks TLS."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    server = ScriptedServer(script, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Stopwatch:
    """How long a block took, in seconds."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._begun = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._begun
