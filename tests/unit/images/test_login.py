"""Logging in: a registry with passwords, one with tokens, and ones that answer something else."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from estiba.images.login import Credentials, check_credentials
from estiba.model.errors import Internal, InvalidArgument, Unauthorized

BASIC = f"Basic {base64.b64encode(b'ann:secret').decode()}"


class Registry(BaseHTTPRequestHandler):
    """`/v2/` wants a password or a token, as `kind` says; `/token` gives one for a password."""

    kind = "basic"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if self.path.startswith("/token"):
            self.asked.append(self.path)
            known = given == BASIC
            self._answer(200 if known else 401, b'{"token":"t"}' if known else b"")
        elif self.kind == "broken":
            self._answer(500)
        elif given == ("Bearer t" if self.kind == "bearer" else BASIC):
            self._answer(200)
        else:
            self._answer(401)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if status == 401 and self.kind == "bearer":
            host = self.headers["Host"]
            challenge = f'Bearer realm="http://{host}/token",service="registry"'
            self.send_header("WWW-Authenticate", challenge)
        elif status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_credentials(server: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "kind", kind)
    monkeypatch.setattr(Registry, "asked", [])
    check_credentials(Credentials("ann", "secret", server))
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        check_credentials(Credentials("ann", "wrong", server))
    assert all("service=registry" in path for path in Registry.asked)
    assert bool(Registry.asked) == (kind == "bearer")


def test_a_registry_that_fails(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "kind", "broken")
    with pytest.raises(Internal, match="failed with status: 500"):
        check_credentials(Credentials("ann", "secret", server))
    with pytest.raises(Internal, match=r'Get "http://127.0.0.1:1/v2/": .*refused'):
        check_credentials(Credentials("ann", "secret", "127.0.0.1:1"))


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("", "registry-1.docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("https://r.example:5000/v2", "r.example:5000"),
        ("r.example", "r.example"),
    ],
)
def test_addresses(server: str, host: str) -> None:
    assert Credentials("a", "b", server).host == host


def test_addresses_refused() -> None:
    with pytest.raises(InvalidArgument, match="invalid registry address"):
        check_credentials(Credentials("a", "b", "a b"))
