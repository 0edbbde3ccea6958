"""What surrounds the registry's API: rights, tokens, TLS, web hooks, metrics, logs, its end."""

from __future__ import annotations

import base64
import http.server
import json
import os
import signal
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tests.support.daemon import wait_until
from tests.support.ports import free_port
from tests.support.registries import Authority
from tests.support.registry import Answer, OwnRegistry, digest_of

POLICY = """
[[repository]]
match = "public/*"
read = ["anonymous"]
write = ["ana"]

[[repository]]
match = "ana/*"
read = ["ana"]
write = ["ana"]
delete = ["ana"]

[[repository]]
match = "shared/*"
read = ["*"]
write = ["ana"]
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., OwnRegistry]]:
    made: list[OwnRegistry] = []

    def start(*flags: str) -> OwnRegistry:
        made.append(OwnRegistry(tmp_path / f"registry{len(made)}", flags))
        made[-1].start()
        return made[-1]

    yield start
    for registry in made:
        if registry.process is not None and registry.process.poll() is None:
            assert registry.stop() == 0
        assert "Traceback" not in registry.log.read_text()


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[str, ...]:
    """Flags: `ana` and `ben`, whose passwords are their names, and POLICY."""
    htpasswd, policy = tmp_path / "htpasswd", tmp_path / "policy.toml"
    policy.write_text(POLICY)
    write_people(htpasswd, ana="ana", ben="ben")
    return "--htpasswd", str(htpasswd), "--policy", str(policy)


def write_people(path: Path, **passwords: str) -> None:
    path.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
            for name, password in passwords.items()
        )
    )


# -- rights --------------------------------------------------------------------------------


def fill(registry: OwnRegistry) -> None:
    registry.sign_in("ana", "ana")
    for name in ("public/a", "ana/a", "shared/a"):
        registry.push_image(name, "v1")


def statuses(registry: OwnRegistry) -> dict[str, list[int]]:
    """Of a pull, a push and a deletion of each repository."""
    requests = (("GET", "manifests/v1"), ("POST", "blobs/uploads/"), ("DELETE", "manifests/v9"))
    return {
        name: [registry.ask(method, f"/v2/{name}/a/{path}").status for method, path in requests]
        for name in ("public", "ana", "shared", "none")
    }


def test_rights_with_passwords(start: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start(*guarded)
    fill(registry)
    assert statuses(registry) == {
        "public": [200, 202, 403],
        "ana": [200, 202, 404],
        "shared": [200, 202, 403],
        "none": [403, 403, 403],
    }
    assert registry.ask("GET", "/v2/_catalog").json["repositories"] == [
        "ana/a", "public/a", "shared/a",
    ]  # fmt: skip
    registry.sign_in("ben", "ben")
    assert statuses(registry) == {
        "public": [200, 403, 403],
        "ana": [403, 403, 403],
        "shared": [200, 403, 403],
        "none": [403, 403, 403],
    }
    assert registry.ask("GET", "/v2/_catalog").json["repositories"] == ["public/a", "shared/a"]
    registry.authorization = ""
    assert statuses(registry) == {
        "public": [200, 401, 401],
        "ana": [401, 401, 401],
        "shared": [401, 401, 401],
        "none": [401, 401, 401],
    }
    unknown = registry.ask("GET", "/v2/")
    assert (unknown.status, unknown.code) == (401, "UNAUTHORIZED")
    assert unknown.header("WWW-Authenticate").startswith('Basic realm="estiba registry"')
    assert registry.ask("GET", "/v2/_catalog").status == 401
    assert registry.ask("GET", "/metrics").status == 401
    assert registry.ask("GET", "/healthz").body == b"ok\n"


def test_a_blob_is_not_mounted_out_of_what_one_may_not_read(
    start: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    htpasswd, policy = tmp_path / "htpasswd", tmp_path / "policy.toml"
    write_people(htpasswd, ana="ana", ben="ben")
    policy.write_text(
        "".join(
            f"[[repository]]\nmatch = '{name}/*'\nread = ['{name}']\nwrite = ['{name}']\n"
            for name in ("ana", "ben")
        )
    )
    registry = start("--htpasswd", str(htpasswd), "--policy", str(policy))
    registry.sign_in("ana", "ana")
    registry.push_image("ana/secret", "v1")
    digest = registry.push_blob("ana/secret", b"nobody's business")
    registry.sign_in("ben", "ben")
    for query in (f"mount={digest}&from=ana/secret", f"mount={digest}"):
        assert registry.ask("POST", f"/v2/ben/own/blobs/uploads/?{query}").status == 202
    assert registry.ask("HEAD", f"/v2/ben/own/blobs/{digest}").status == 404


def test_the_page_and_rights(start: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start(*guarded, "--auth", "token")
    fill(registry)
    page = registry.ask("GET", "/")
    assert b"/r/ana/a" in page.body and b"/r/shared/a" in page.body
    registry.sign_in("ben", "ben")
    page = registry.ask("GET", "/")
    assert b"/r/ana/a" not in page.body and b"/r/shared/a" in page.body
    assert registry.ask("GET", "/r/ana/a").status == 403
    assert registry.ask("GET", "/r/shared/a").status == 200
    for authorization in ("", "Basic " + base64.b64encode(b"ben:wrong").decode()):
        registry.authorization = authorization
        refused = registry.ask("GET", "/r/ana/a")
        assert refused.status == 401
        assert refused.header("WWW-Authenticate").startswith("Basic ")
    registry.authorization = ""
    assert registry.ask("GET", "/r/public/a").status == 200


# -- tokens --------------------------------------------------------------------------------


def bearer(answer: Answer) -> str:
    assert answer.status == 200, answer
    assert answer.header("Cache-Control") == "no-store"
    assert answer.json["access_token"] == answer.json["token"]
    return "Bearer " + str(answer.json["token"])


def claims(authorization: str) -> dict[str, Any]:
    payload = authorization.removeprefix("Bearer ").split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return decoded


def form(registry: OwnRegistry, **fields: str) -> Answer:
    return registry.ask(
        "POST", "/token", urllib.parse.urlencode(fields).encode(),
        Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip


def test_tokens(start: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start(*guarded, "--auth", "token")
    fill(registry)
    registry.authorization = ""
    challenge = registry.ask("POST", "/v2/shared/a/blobs/uploads/").header("WWW-Authenticate")
    assert challenge == (
        f'Bearer realm="http://{registry.host}/token",service="estiba registry",'
        'scope="repository:shared/a:pull,push"'
    )
    scope = "scope=repository:shared/a:pull,push,delete&scope=repository:public/a:pull"
    registry.sign_in("ben", "ben")
    token = bearer(registry.ask("GET", f"/token?service=estiba+registry&{scope}"))
    assert claims(token)["sub"] == "ben"
    assert claims(token)["access"] == [
        {"type": "repository", "name": "shared/a", "actions": ["pull"]},
        {"type": "repository", "name": "public/a", "actions": ["pull"]},
    ]
    registry.authorization = token
    assert registry.ask("GET", "/v2/").status == 200
    assert registry.ask("GET", "/v2/shared/a/manifests/v1").status == 200
    denied = registry.ask("POST", "/v2/shared/a/blobs/uploads/")
    assert (denied.status, denied.code) == (403, "DENIED")
    assert registry.ask("GET", "/v2/_catalog").status == 401
    registry.authorization = ""
    anonymous = bearer(registry.ask("GET", f"/token?{scope}"))
    registry.authorization = anonymous
    assert registry.ask("GET", "/v2/public/a/manifests/v1").status == 200
    scoped = registry.ask("GET", "/v2/shared/a/manifests/v1")
    assert scoped.status == 401
    assert scoped.header("WWW-Authenticate").endswith('error="insufficient_scope"')
    registry.authorization = anonymous[:-2] + "xx"
    forged = registry.ask("GET", "/v2/public/a/manifests/v1")
    assert forged.status == 401
    assert forged.header("WWW-Authenticate").endswith('error="invalid_token"')


def test_refresh_tokens(start: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start(*guarded, "--auth", "token")
    asked = {"service": "estiba registry", "client_id": "test", "scope": "repository:ana/a:pull"}
    signed_in = form(
        registry, grant_type="password", username="ana", password="ana", access_type="offline",
        **asked,
    )  # fmt: skip
    token, refresh = bearer(signed_in), signed_in.json["refresh_token"]
    assert claims(token)["access"][0]["actions"] == ["pull"]
    for _ in range(2):
        again = form(registry, grant_type="refresh_token", refresh_token=refresh, **asked)
        assert claims(bearer(again))["sub"] == "ana"
    registry.sign_in("ana", "ana")
    offered = registry.ask("GET", "/token?offline_token=true").json
    assert "refresh_token" in offered
    assert "refresh_token" not in registry.ask("GET", "/token").json
    registry.authorization = "Bearer " + refresh
    assert registry.ask("GET", "/v2/").status == 401
    registry.authorization = ""
    wrong = form(registry, grant_type="password", username="ana", password="x", **asked)
    assert wrong.status == 401
    write_people(Path(guarded[1]), ana="new", ben="ben")
    gone = form(registry, grant_type="refresh_token", refresh_token=refresh, **asked)
    assert gone.status == 401
    for bad in ({"grant_type": "x"}, {"grant_type": "refresh_token", "refresh_token": "x"}, {}):
        assert form(registry, **bad).status in (400, 401)
    assert registry.ask("POST", "/token", b"{}", Content_Type="application/json").status == 400
    assert registry.ask("PUT", "/token").status == 405


def test_tokens_outlive_a_restart_and_are_shared(
    start: Callable[..., OwnRegistry], guarded: list[str], tmp_path: Path
) -> None:
    key = ("--auth", "token", "--token-key", str(tmp_path / "token.key"))
    one, two = start(*guarded, *key), start(*guarded, *key)
    one.sign_in("ana", "ana")
    token = bearer(one.ask("GET", "/token?scope=repository:ana/a:pull,push"))
    one.authorization = two.authorization = token
    two.push_image("ana/a", "v1")
    assert one.stop() == 0
    one.start()
    one.push_image("ana/a", "v1")


# -- TLS, read-only ------------------------------------------------------------------------


def test_clients_with_certificates(start: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.issue("server", "127.0.0.1")
    registry = start(
        "--tls-cert", str(certificate), "--tls-key", str(key),
        "--tls-client-ca", str(authority.certificate),
    )  # fmt: skip
    trusting = str(authority.certificate)
    registry.context = ssl.create_default_context(cafile=trusting)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        registry.ask("GET", "/v2/")
    registry.context.load_cert_chain(*other.issue("stranger"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        registry.ask("GET", "/v2/")
    registry.context = ssl.create_default_context(cafile=trusting)
    registry.context.load_cert_chain(*authority.issue("client"))
    registry.push_image("a", "v1")


def test_blobs_over_tls(start: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    registry = start("--self-signed", "127.0.0.1")
    ca = registry.root / "estiba" / "tls" / "ca.pem"
    registry.context = ssl.create_default_context(cafile=str(ca))
    data = os.urandom(5 << 20)
    path = f"/v2/tls/blobs/{registry.push_blob('tls', data)}"
    assert registry.ask("GET", path).body == data
    part = registry.ask("GET", path, Range="bytes=100000-3999999")
    assert (part.status, part.body) == (206, data[100_000:4_000_000])
    before = ca.read_bytes()
    assert registry.stop() == 0
    registry.start()
    assert ca.read_bytes() == before
    assert registry.ask("GET", path).body == data


def test_read_only(start: Callable[..., OwnRegistry]) -> None:
    registry = start()
    digest = registry.push_image("a", "v1")
    blob = registry.push_blob("a", b"x")
    registry.stop()
    registry.flags = ("--read-only",)
    registry.start()
    assert registry.ask("GET", "/v2/a/manifests/v1").status == 200
    for method, path in [
        ("PUT", "/v2/a/manifests/v2"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("DELETE", f"/v2/a/manifests/{digest}"),
        ("DELETE", f"/v2/a/blobs/{blob}"),
    ]:
        answer = registry.ask(method, path, b"x")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")


# -- being watched -------------------------------------------------------------------------


class Receiver:
    """A web hook that fails at first, and keeps what it is told."""

    def __init__(self) -> None:
        receiver = self
        self.failures = 2
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.headers.append(dict(self.headers))
                receiver.failures -= 1
                if receiver.failures < 0:
                    receiver.events += json.loads(body)["events"]
                self.send_response(200 if receiver.failures < 0 else 500)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook?x=1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_web_hooks(
    start: Callable[..., OwnRegistry], guarded: list[str], receiver: Receiver, tmp_path: Path
) -> None:
    secret = tmp_path / "headers"
    secret.write_text("Authorization: Bearer hidden\n")
    hooks = ("--webhook", receiver.url, "--webhook-headers", str(secret))
    registry = start(*guarded, *hooks)
    registry.sign_in("ana", "ana")
    digest = registry.push_image("ana/a", "v1")
    blob = registry.push_blob("ana/a", b"blob")
    registry.ask("HEAD", "/v2/ana/a/manifests/v1")
    registry.ask("GET", "/v2/ana/a/manifests/v1", User_Agent="tester/1")
    registry.ask("GET", f"/v2/ana/a/blobs/{blob}")
    registry.ask("POST", f"/v2/ana/b/blobs/uploads/?mount={blob}&from=ana/a")
    registry.ask("DELETE", "/v2/ana/a/manifests/v1")
    registry.ask("DELETE", f"/v2/ana/a/manifests/{digest}")
    wait_until(lambda: len(receiver.events) >= 9, what="all events")
    assert [event["action"] for event in receiver.events] == [
        "push", "push", "push", "push", "pull", "pull", "mount", "delete", "delete",
    ]  # fmt: skip
    pushed, pulled = receiver.events[2], receiver.events[4]
    assert pushed["target"]["digest"] == digest and pushed["target"]["tag"] == "v1"
    assert pushed["target"]["mediaType"].endswith("manifest.v1+json")
    assert pushed["actor"] == {"name": "ana"}
    assert pulled["request"]["useragent"] == "tester/1"
    assert pulled["request"]["addr"] == "127.0.0.1"
    assert receiver.events[6]["target"]["fromRepository"] == "ana/a"
    kind = "application/vnd.docker.distribution.events.v1+json"
    assert {head["Content-Type"] for head in receiver.headers} == {kind}
    assert {head["Authorization"] for head in receiver.headers} == {"Bearer hidden"}
    assert "hidden" not in registry.log.read_text()
    # Counted once the last answer of the hook has come.
    wait_until(
        lambda: b"estiba_registry_events_delivered_total 9" in registry.ask("GET", "/metrics").body,
        what="the count of what was delivered",
    )


def test_a_web_hook_that_hangs_holds_nothing_up(start: Callable[..., OwnRegistry]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        registry = start("--webhook", f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        for number in range(20):
            registry.push_image("a", f"v{number}")
        assert registry.stop() == 0
        assert "events were not delivered" in registry.log.read_text()


def test_metrics_on_an_address_of_their_own(start: Callable[..., OwnRegistry]) -> None:
    port = free_port()
    registry = start("--metrics-addr", f"127.0.0.1:{port}")
    content = registry.image("a")
    sizes = sum(part["size"] for part in (content["config"], *content["layers"]))
    registry.push_manifest("a", content, "v1")
    assert registry.ask("GET", "/metrics").status == 404
    own, registry.port = registry.port, port
    answer = registry.ask("GET", "/metrics")
    assert answer.header("Content-Type").startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    name = "estiba_registry_http_requests_total"
    assert f'{name}{{endpoint="manifest",method="PUT",code="201"}} 1' in text
    assert 'estiba_registry_http_request_seconds_bucket{endpoint="upload",le="+Inf"} 2' in text
    assert f"estiba_registry_received_bytes_total {sizes}" in text
    assert registry.ask("GET", "/v2/").status == 404
    registry.port = own


def test_quotas_and_how_full_they_are(start: Callable[..., OwnRegistry]) -> None:
    registry = start("--quota", "1MB", "--quota-for", "team=100KB")
    registry.push_blob("team/a", bytes(50_000))
    metrics = registry.ask("GET", "/metrics").body.decode().splitlines()
    for line in (
        'quota_used_bytes{prefix="team"} 50000',
        'quota_used_bytes{prefix=""} 50000',
        'quota_bytes{prefix="team"} 102400',
        'quota_bytes{prefix=""} 1048576',
    ):
        assert f"estiba_registry_{line}" in metrics
    data = os.urandom(90_000)
    path = registry.begin("team/b")
    full = registry.ask("PUT", f"{path}?digest={digest_of(data)}", data)
    assert (full.status, full.code) == (413, "DENIED")
    registry.push_blob("other", data)


def test_the_access_log(start: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    registry = start("--access-log", str(path))
    registry.push_image("a", "v1")
    registry.ask("GET", "/v2/a/manifests/v1?secret=1", User_Agent='evil"\\agent')
    registry.ask("GET", "/v2/%0aforged/tags/list")
    assert registry.stop() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 7
    assert lines[5].keys() == {
        "time", "client", "user", "method", "path", "status", "bytes", "ms", "agent",
    }  # fmt: skip
    assert lines[5]["path"] == "/v2/a/manifests/v1" and lines[5]["status"] == 200
    assert lines[5]["agent"] == 'evil"\\agent'
    assert lines[6]["path"] == "/v2/\nforged/tags/list"
    assert "secret" not in path.read_text()


# -- its end -------------------------------------------------------------------------------


def test_a_stop_in_the_middle_of_things(start: Callable[..., OwnRegistry]) -> None:
    registry = start()
    data = os.urandom(2 << 20)
    path = registry.begin("a")
    wire = socket.create_connection(("127.0.0.1", registry.port))
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    wire.sendall(head.encode() + data[: 1 << 20])
    wait_until(
        lambda: registry.ask("GET", path).header("Range") == f"0-{(1 << 20) - 1}",
        what="the first half",
    )
    idle = socket.create_connection(("127.0.0.1", registry.port))
    assert registry.stop(signal.SIGTERM) == 0
    assert idle.recv(100) == b""
    wire.close()
    idle.close()
    registry.start()
    offset = int(registry.ask("GET", path).header("Range").partition("-")[2]) + 1
    assert offset == 1 << 20
    rest = registry.ask("PATCH", path, data[offset:], Content_Range=f"{offset}-{len(data) - 1}")
    assert rest.status == 202
    assert registry.ask("PUT", f"{path}?digest={digest_of(data)}").status == 201


def test_two_on_one_root_or_port(start: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    registry = start()
    second = OwnRegistry(registry.root)
    with pytest.raises(AssertionError, match="another registry serves"):
        second.start()
    third = OwnRegistry(tmp_path / "third", port=registry.port)
    with pytest.raises(AssertionError, match="cannot listen on"):
        third.start()


def test_memory_does_not_grow_with_a_blob(start: Callable[..., OwnRegistry]) -> None:
    registry = start()
    piece, count = os.urandom(1 << 20), 300
    path = registry.begin("a")
    assert registry.ask("PATCH", path, (piece for _ in range(count))).status == 202
    assert registry.process is not None
    status = Path(f"/proc/{registry.process.pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    assert peak_kib < 100 << 10
    assert registry.ask("GET", path).header("Range") == f"0-{(count << 20) - 1}"
