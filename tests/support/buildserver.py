"""The daemon's side of `estiba build`, as a test writes it: the wire format, and no builder.

`POST /build` reads the whole body, checks that it is a tar with request.json first, and answers
with the lines that the test's play yields; what a play waits for, the client waits for as well.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KIND = "application/vnd.estiba.build.v1+tar"
DEADLINE_S = 30.0
IMAGE = "sha256:" + "ab" * 32


@dataclass(slots=True)
class Sent:
    """What the client sent: `members` by name, `order` as they came."""

    request: dict[str, Any]
    members: dict[str, tarfile.TarInfo]
    data: dict[str, bytes]
    headers: dict[str, str]
    order: list[str] = field(default_factory=list)


Play = Callable[[Sent], Iterable[dict[str, Any]]]


def read_body(body: bytes, headers: dict[str, str]) -> Sent:
    sent = Sent({}, {}, {}, headers)
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as tar:
        for info in tar:
            sent.order.append(info.name)
            sent.members[info.name] = info
            if info.isreg():
                file = tar.extractfile(info)
                assert file is not None
                sent.data[info.name] = file.read()
    assert sent.order[0] == "request.json"
    sent.request = json.loads(sent.data["request.json"])
    return sent


class BuildServer(ThreadingHTTPServer):
    """`builds` holds what came; `gone` is set when the client left before the play was over."""

    daemon_threads = True

    def __init__(self, play: Play) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.play = play
        self.builds: list[Sent] = []
        self.outputs: dict[str, bytes] = {}
        self.answers: dict[str, Any] = {}
        """JSON by "METHOD path" without the version, for other calls."""
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.refusal: tuple[int, str] | None = None
        self.gone = threading.Event()
        self.agents: list[tuple[str, str, Any]] = []
        """(session, id, socket) of the connections that the client holds ready."""
        self.agent_came = threading.Condition()
        self.kept: set[Any] = set()
        """Connections that have become the test's own."""

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"

    def take_agent(self) -> tuple[str, str, Any]:
        """The connection that the client holds ready; there will be another one."""
        with self.agent_came:
            assert self.agent_came.wait_for(lambda: self.agents, DEADLINE_S), "no agent came"
            return self.agents.pop(0)

    def shutdown_request(self, request: Any) -> None:
        if request not in self.kept:
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BuildServer

    def do_GET(self) -> None:
        path = self._path()
        if path == "/_ping":
            self.send_response_only(200)
            self.send_header("Api-Version", "1.51")
            self.send_header("Server", "Estiba/1.0 (linux)")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/build/outputs/"):
            self._whole(self.server.outputs.pop(path.rpartition("/")[2]))
        else:
            self._other(path)

    def do_POST(self) -> None:
        path = self._path()
        if path.startswith("/build/agents/"):
            self._agent(path.rpartition("/")[2])
        elif path == "/build" and self.headers["Content-Type"] == KIND:
            self._build()
        else:
            self._other(path)

    def _path(self) -> str:
        parts = urlsplit(self.path)
        path = parts.path
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        self.server.asked.append((f"{self.command} {path}", parse_qs(parts.query)))
        return path

    def _other(self, path: str) -> None:
        self._whole(json.dumps(self.server.answers[f"{self.command} {path}"]).encode())

    def _whole(self, body: bytes, status: int = 200) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _build(self) -> None:
        if self.server.refusal is not None:
            status, message = self.server.refusal
            self._whole(json.dumps({"message": message}).encode(), status)
            self.close_connection = True
            return
        body = b"".join(self._chunks())
        headers = {name.lower(): value for name, value in self.headers.items()}
        sent = read_body(body, headers)
        self.server.builds.append(sent)
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self.server.play(sent):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.gone.set()

    def _chunks(self) -> Iterator[bytes]:
        """Ends the connection when the client cuts its request off."""
        while True:
            line = self.rfile.readline()
            if not line:
                self.server.gone.set()
                raise ConnectionAbortedError
            size = int(line, 16)
            data = self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return
            yield data

    def _agent(self, session: str) -> None:
        name = parse_qs(urlsplit(self.path).query)["id"][0]
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.server.kept.add(self.connection)
        with self.server.agent_came:
            self.server.agents.append((session, name, self.connection))
            self.server.agent_came.notify_all()
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def build_server(play: Play) -> Iterator[BuildServer]:
    server = BuildServer(play)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- lines of an answer --------------------------------------------------------------------


def started(number: int, name: str, time_s: float = 0) -> dict[str, Any]:
    vertex = {"id": number, "name": name, "stage": "", "line": 1, "step": 1, "steps": 1, "text": ""}
    return {"started": {"vertex": vertex, "time": int(1e18 + time_s * 1e9)}}


def log(number: int, text: str, stream: int = 1) -> dict[str, Any]:
    return {"log": {"id": number, "stream": stream, "text": text}}


def status(number: int, item: str, action: str, current: int, total: int) -> dict[str, Any]:
    told = {"id": number, "item": item, "action": action, "current": current, "total": total}
    return {"status": told}


def finished(number: int, time_s: float = 0, **more: Any) -> dict[str, Any]:
    told = {"id": number, "time": int(1e18 + time_s * 1e9), "cached": False, "error": ""}
    return {"finished": {**told, "reason": "", "result": "", **more}}


def result(**more: Any) -> dict[str, Any]:
    found = {"image": IMAGE, "tags": [], "metadata": {}, "outputs": [], "warnings": 0}
    return {"result": {**found, **more}}
