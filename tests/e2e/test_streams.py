"""Hijacked connections and logs, as clients of every kind use and leave them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]

_LOOKS = 10


def test_old_form_of_attach_answers_200(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "-i", "--name", "box", "busybox", "cat")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(
            b"POST /v1.41/containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"
            b"Host: x\r\nContent-Length: 0\r\n\r\n"
        )
        head = raw.recv(65536)
        assert head.startswith(b"HTTP/1.1 200 OK") and b"raw-stream" in head
        daemon.docker("start", "box")
        raw.sendall(b"hello\n")
        assert raw.recv(100) == b"\x01\0\0\0\0\0\0\x06hello\n"


class WebSocketClient:
    """A WebSocket on the daemon's socket."""

    def __init__(self, daemon: PrivateDaemon, path: str) -> None:
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.wire = socket.socket(socket.AF_UNIX)
        self.wire.settimeout(10)
        self.wire.connect(str(daemon.socket))
        self.seen: list[Any] = []
        self.send(Request(host="x", target=path))
        self.wait_for(AcceptConnection)

    def send(self, event: Event) -> None:
        self.wire.sendall(self.protocol.send(event))

    def wait_for(self, kind: type[Event]) -> Any:
        """The next event of that kind; others wait for whoever asks for them."""
        while True:
            for place, event in enumerate(self.seen):
                if isinstance(event, kind):
                    return self.seen.pop(place)
            data = self.wire.recv(65536)
            self.protocol.receive_data(data or None)
            self.seen += self.protocol.events()


def test_attach_by_websocket(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-di", "--name", "box", "busybox", "cat")
    client = WebSocketClient(daemon, "/v1.41/containers/box/attach/ws?stream=1&stdin=1&stdout=1")
    client.send(BytesMessage(data=b"he", message_finished=False))
    client.send(Ping(payload=b"are you there"))
    assert client.wait_for(Pong).payload == b"are you there"
    client.send(BytesMessage(data=b"llo\n"))
    echoed = b""
    while len(echoed) < 6:
        echoed += client.wait_for(BytesMessage).data
    assert echoed == b"hello\n"
    client.send(TextMessage(data="\u00e9t\u00e9\n"))
    assert client.wait_for(BytesMessage).data == "\u00e9t\u00e9\n".encode()
    client.send(CloseConnection(code=1000))
    assert client.wait_for(CloseConnection).code == 1000
    assert client.wire.recv(1) == b""
    client.wire.close()


def test_a_websocket_that_only_listens_is_answered(daemon: PrivateDaemon) -> None:
    """Its pings, and its close, though the container says nothing."""
    daemon.docker("run", "-di", "--name", "box", "busybox", "cat")
    client = WebSocketClient(daemon, "/containers/box/attach/ws?stream=1&stdout=1")
    client.send(BytesMessage(data=b"nobody wants this\n"))
    client.send(Ping(payload=b"1"))
    assert client.wait_for(Pong).payload == b"1"
    client.send(CloseConnection(code=1000))
    client.wait_for(CloseConnection)
    client.wire.close()
    client = WebSocketClient(daemon, "/containers/box/attach/ws?stream=1&stdout=1")
    client.wire.sendall(b"\xff\xff\xff\xff")
    assert client.wait_for(CloseConnection).code == 1002
    client.wire.close()


def settled(descriptors: Path) -> int:
    """How many there are once those of the clients before have been closed."""
    seen: list[int] = []

    def is_still() -> bool:
        seen.append(len(os.listdir(descriptors)))
        return len(seen) >= _LOOKS and len(set(seen[-_LOOKS:])) == 1

    wait_until(is_still, what="the engine to be still")
    return seen[-1]


def test_who_leaves_a_quiet_container_is_forgotten(daemon: PrivateDaemon) -> None:
    """Attached, following its log, waiting for its end: nothing is ever written to them."""
    daemon.docker("run", "-di", "--name", "box", "busybox", "cat")
    assert daemon.process is not None
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    before = settled(descriptors)
    clients = []
    for request in (
        b"POST /containers/box/attach?stream=1&stdin=1&stdout=1",
        b"GET /containers/box/logs?stdout=1&follow=1",
        b"POST /containers/box/wait",
        b"GET /events?filters=%7B%22type%22%3A%5B%22plugin%22%5D%7D",
    ):
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        clients.append(raw)
    assert len(os.listdir(descriptors)) >= before + 4
    for raw in clients:
        raw.close()
    # The engine itself stays attached to the container from its first client on.
    wait_until(
        lambda: len(os.listdir(descriptors)) <= before + 1, what="the clients to be forgotten"
    )


def test_an_exec_goes_on_without_its_client(daemon: PrivateDaemon) -> None:
    """Its output is thrown away then, and nothing is left of it in the end."""
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    assert daemon.process is not None
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    before = settled(descriptors)
    command = ["sh", "-c", "yes | head -c 5000000; touch /done"]
    body = {"Cmd": command, "AttachStdin": True, "AttachStdout": True}
    made = daemon.request("POST", "/containers/box/exec", body)[1]["Id"]
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(daemon.socket))
        raw.sendall(
            f"POST /exec/{made}/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        raw.recv(1000)
    wait_until(
        lambda: daemon.request("GET", f"/exec/{made}/json")[1]["ExitCode"] == 0,
        what="the exec to end",
    )
    daemon.docker("exec", "box", "test", "-e", "/done")
    wait_until(lambda: len(os.listdir(descriptors)) <= before, what="its descriptors to be closed")
