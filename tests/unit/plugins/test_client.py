"""A plugin is a stranger: whatever it does, a call ends in time and says why."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from tests.support.daemon import wait_until
from tests.support.registries import Authority

from estiba.model.errors import (
    EstibaError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from estiba.plugins import client as client_module
from estiba.plugins.client import MAX_ANSWER_BYTES, Client, NotServed, Patience, PluginError
from estiba.plugins.places import Address, Places
from estiba.plugins.registry import NETWORK, VOLUME, Registry

PATIENT = Patience(
    call_s=20.0, query_s=20.0, away_s=0.3, turn_s=0.1, first_pause_s=0.02, silence_s=30.0
)
"""With one who answers, however busy the machine is."""

HASTY = replace(PATIENT, call_s=0.3)
LIMIT_S = 10.0
"""Less than any patience that is not asked for here."""

Answer = Callable[[socket.socket, bytes], None]


class Thing(msgspec.Struct):
    mountpoint: str = msgspec.field(default="", name="Mountpoint")


class Raw:
    """A plugin that answers with bytes."""

    def __init__(self, path: Path, says: bytes = b"{}") -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.says(says)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(32)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.requests.append(request)
            try:
                self.answer(connection, request)
            except OSError:
                pass

    def says(self, body: bytes, status: int = 200) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.answer = lambda connection, request: connection.sendall(head + body)


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Raw]:
    made = Raw(tmp_path / "raw.sock")
    yield made
    made.server.shutdown(socket.SHUT_RDWR)
    made.server.close()


@pytest.fixture
def client(raw: Raw) -> Client:
    return Client("raw", Address(path=str(raw.path)), PATIENT)


def test_a_call_is_json_over_post_as_the_protocol_says(raw: Raw, client: Client) -> None:
    raw.says(b'{"Mountpoint": "/x", "Err": ""}')
    assert client.call("VolumeDriver.Path", {"Name": "v"}, Thing).mountpoint == "/x"
    (request,) = raw.requests
    assert request.startswith(b"POST /VolumeDriver.Path HTTP/1.1\r\n")
    assert b"Accept: application/vnd.docker.plugins.v1.1+json\r\n" in request
    assert request.endswith(b'{"Name":"v"}')


def test_what_the_plugin_says_is_told(raw: Raw, client: Client) -> None:
    raw.says(b'{"Err": "no room"}')
    with pytest.raises(PluginError, match="no room"):
        client.call("VolumeDriver.Create", {}, Thing)
    raw.says(b'{"Err": "no room"}', 500)
    with pytest.raises(PluginError, match=r"plugin raw: VolumeDriver.Create: no room"):
        client.call("VolumeDriver.Create", {}, Thing)
    raw.says(b'{"Err": "no\\u001b[31m\\nroom"}')
    with pytest.raises(PluginError, match=r"no \[31m room"):
        client.call("VolumeDriver.Create", {}, Thing)
    raw.says(b"404 page\x1b[31m not found", 404)
    with pytest.raises(NotServed, match=r"404 page \[31m not found"):
        client.call("VolumeDriver.Create", {}, Thing)


@pytest.mark.parametrize("body", [b"", b"null", b'{"Mountpoint": null, "Err": null}'])
def test_what_is_null_is_not_there(raw: Raw, client: Client, body: bytes) -> None:
    raw.says(body)
    assert client.call("VolumeDriver.Path", {}, Thing) == Thing()


@pytest.mark.parametrize(
    "body",
    [
        b'{"Mountpoint": 7}',
        b"[]",
        b'["Mountpoint"]',
        b"not JSON",
        b"\xff\xfe",
        b'{"Mountpoint": "' + b"[" * 10,
        b'{"Status": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
)
def test_an_answer_of_the_wrong_form_is_an_error(raw: Raw, client: Client, body: bytes) -> None:
    raw.says(body)
    with pytest.raises(Internal, match="not what the protocol says"):
        client.call("VolumeDriver.Path", {}, Thing)


def test_what_is_no_http_is_told_in_letters_alone(raw: Raw, client: Client) -> None:
    raw.answer = lambda connection, request: connection.sendall(b"\x1b]0;gotcha\x07 \r\n\r\n")
    with pytest.raises(Unavailable) as raised:
        client.call("VolumeDriver.Create", {}, Thing)
    assert "gotcha" in str(raised.value) and str(raised.value).isprintable()


def _wait(over: threading.Event, at_most_s: float = 20) -> None:
    over.wait(at_most_s)


def _endless(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(100):
        connection.sendall(b" " * (1 << 20))


def _dripping(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b" ")
        _wait(threading.Event(), 0.05)


def _endless_head(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        connection.sendall(b"X-%d: y\r\n" % number)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda connection, request: None, "broke off"),
        (lambda connection, request: connection.recv(1), "no answer in time"),
        (lambda connection, request: connection.sendall(b"\0\1\2garbage\r\n\r\n"), "raw"),
        (
            lambda connection, request: connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
            ),
            "broke off",
        ),
        (_endless, f"larger than {MAX_ANSWER_BYTES}"),
        (_dripping, "no answer in time"),
        (_endless_head, "headers"),
    ],
)
def test_one_that_misbehaves_is_left_in_time(raw: Raw, answer: Answer, words: str) -> None:
    raw.answer = answer
    patience = HASTY if words == "no answer in time" else PATIENT
    client = Client("raw", Address(path=str(raw.path)), patience)
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=words):
        client.call("VolumeDriver.Mount", {}, Thing)
    assert time.monotonic() - begin < LIMIT_S
    assert len(raw.requests) == 1, "what may have begun is not asked again"


def test_one_that_is_away_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    client = Client("late", Address(path=str(path)), PATIENT)
    with pytest.raises(Unavailable, match="nobody listens at unix://"):
        client.call("VolumeDriver.Mount", {}, Thing)
    found: list[str] = []

    def ask() -> None:
        found.append(client.call("VolumeDriver.Mount", {}, Thing, away_s=20).mountpoint)

    thread = threading.Thread(target=ask)
    thread.start()
    late = Raw(path, b'{"Mountpoint": "/late"}')
    thread.join(20)
    assert found == ["/late"]
    late.server.close()


def test_calls_that_are_not_answered_hold_few_threads(raw: Raw, client: Client) -> None:
    """Twenty callers of one plugin that hangs: most of them are sent away at once."""
    over = threading.Event()
    raw.answer = lambda connection, request: _wait(over)
    failures: list[str] = []

    def ask() -> None:
        try:
            client.call("VolumeDriver.Mount", {}, Thing, timeout_s=60)
        except EstibaError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(failures) == 14, what="those without a turn")
    assert all("6 calls wait for it" in words for words in failures)
    over.set()
    for thread in threads:
        thread.join()


def test_queries_go_on_without_one_that_hangs(
    raw: Raw, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    raw.answer = lambda connection, request: _wait(over)
    with pytest.raises(Unavailable):
        client.call("VolumeDriver.Get", {}, Thing, is_query=True, timeout_s=0.2)
    for _ in range(50):
        with pytest.raises(Unavailable, match="no answer in time"):
            client.call("VolumeDriver.Get", {}, Thing, is_query=True)
    assert len(raw.requests) == 1
    over.set()
    raw.says(b'{"Mountpoint": "/x"}')
    later = time.monotonic() + PATIENT.silence_s
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: later))
    found = client.call("VolumeDriver.Get", {}, Thing, is_query=True)
    assert found.mountpoint == "/x", "it is asked again"


# -- the registry ------------------------------------------------------------------------------


def test_a_plugin_is_greeted_once_and_known_by_what_it_does(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "blue.sock")
    raw.says(b'{"Implements": ["VolumeDriver"]}')
    registry = Registry(Places((tmp_path,), ()), PATIENT)
    assert not registry.active(VOLUME)
    assert registry.get("blue", VOLUME).name == "blue"
    assert registry.get("blue", VOLUME) is registry.get("blue", VOLUME)
    assert list(registry.active(VOLUME)) == ["blue"]
    assert len(raw.requests) == 1
    assert raw.requests[0].startswith(b"POST /Plugin.Activate ")
    with pytest.raises(FailedPrecondition, match="does not implement"):
        registry.get("blue", NETWORK)
    with pytest.raises(NotFound, match='plugin "red" not found'):
        registry.get("red", VOLUME)
    raw.server.close()


def test_one_that_comes_back_elsewhere_is_found_there(tmp_path: Path) -> None:
    manifest, spec = b'{"Implements": ["VolumeDriver"]}', tmp_path / "blue.spec"
    first, second = (Raw(tmp_path / f"{n}.socket", manifest) for n in ("first", "second"))
    registry = Registry(Places((), (tmp_path,)), PATIENT)
    spec.write_text(f"unix://{first.path}")
    before = registry.get("blue", VOLUME)
    first.path.unlink()
    with pytest.raises(Unavailable, match="nobody listens"):
        before.client.call("VolumeDriver.List", {}, Thing)
    assert registry.get("blue", VOLUME) is before, "nothing else is known of it"
    spec.write_text(f"unix://{second.path}")
    assert registry.get("blue", VOLUME).client.address.path == str(second.path)
    first.server.close()
    second.server.close()


def test_greeting_one_that_hangs_does_not_keep_others_waiting(tmp_path: Path) -> None:
    slow, quick = Raw(tmp_path / "slow.sock"), Raw(tmp_path / "quick.sock")
    over = threading.Event()
    slow.answer = lambda connection, request: _wait(over)
    quick.says(b'{"Implements": ["VolumeDriver"]}')
    registry = Registry(Places((tmp_path,), ()), PATIENT)

    def ask() -> None:
        with pytest.raises(Unavailable):
            registry.get("slow", VOLUME)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: slow.requests, what="the slow one to be greeted")
    registry.get("quick", VOLUME)
    assert thread.is_alive(), "the slow one is greeted still"
    over.set()
    thread.join()
    slow.server.close()
    quick.server.close()


def test_a_look_around_greets_each_once(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "blue.sock", b'{"Implements": ["VolumeDriver"]}')
    (tmp_path / "gone.spec").write_text(f"unix://{tmp_path}/nowhere.sock")
    registry = Registry(Places((tmp_path,), (tmp_path,)), PATIENT)
    begin = time.monotonic()
    for _ in range(3):
        registry.look_around()
    assert time.monotonic() - begin < LIMIT_S, "nobody who is away is waited for"
    assert registry.names(VOLUME) == ["blue"]
    assert len(raw.requests) == 1
    raw.server.close()


def test_a_crowd_at_a_plugin_that_is_away_is_sent_away_soon(tmp_path: Path) -> None:
    """Each of them waiting its own 30 s in turn would hold threads for minutes."""
    (tmp_path / "gone.spec").write_text(f"unix://{tmp_path}/nowhere.sock")
    registry = Registry(Places((), (tmp_path,)), PATIENT, activation_s=2.0)
    failures: list[str] = []

    def ask() -> None:
        with pytest.raises(Unavailable) as told:
            registry.get("gone", VOLUME)
        failures.append(str(told.value))

    begin = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin < LIMIT_S
    assert sum("nobody listens" in words for words in failures) == 4
    assert sum("wait for its first word" in words for words in failures) == 16


def test_a_plugin_behind_tls_is_verified_if_it_says_so(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"Implements": ["VolumeDriver"]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.issue("plugin", "127.0.0.1")
    mine, mine_key = authority.issue("engine", "engine")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    specs = tmp_path / "specs"
    specs.mkdir()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    files = {"CertFile": str(mine), "KeyFile": str(mine_key)}
    tls = {
        "good": {**files, "CAFile": str(authority.certificate)},
        "lax": files,
        "wrong": {**files, "CAFile": str(other.certificate)},
        "nobody": {"CAFile": str(authority.certificate)},
        "missing": {"CAFile": "/nowhere"},
    }
    for name, config in tls.items():
        spec = {"Addr": url, "TLSConfig": config}
        (specs / f"{name}.json").write_bytes(msgspec.json.encode(spec))
    registry = Registry(Places((), (specs,)), PATIENT, activation_s=0.1)
    try:
        assert registry.get("good", VOLUME).name == "good"
        assert registry.get("lax", VOLUME).name == "lax"
        with pytest.raises(Unavailable, match="certificate verify failed"):
            registry.get("wrong", VOLUME)
        with pytest.raises(Unavailable):
            registry.get("nobody", VOLUME)
        with pytest.raises(InvalidArgument, match="TLS files of the plugin"):
            registry.get("missing", VOLUME)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
