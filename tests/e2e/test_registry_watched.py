"""Who watches a registry: web hooks, metrics, quotas, the access log."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import wait_until
from tests.support.ports import free_port
from tests.support.registry import OwnRegistry, digest_of


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
    start_registry: Callable[..., OwnRegistry],
    guarded: list[str],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    secret = tmp_path / "headers"
    secret.write_text("Authorization: Bearer hidden\n")
    hooks = ("--webhook", receiver.url, "--webhook-headers", str(secret))
    registry = start_registry(*guarded, *hooks)
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


def test_a_web_hook_that_hangs_holds_nothing_up(start_registry: Callable[..., OwnRegistry]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        registry = start_registry("--webhook", f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        for number in range(20):
            registry.push_image("a", f"v{number}")
        assert registry.stop() == 0
        assert "events were not delivered" in registry.log.read_text()


def test_metrics_on_an_address_of_their_own(start_registry: Callable[..., OwnRegistry]) -> None:
    port = free_port()
    registry = start_registry("--metrics-addr", f"127.0.0.1:{port}")
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


def test_quotas_and_how_full_they_are(start_registry: Callable[..., OwnRegistry]) -> None:
    registry = start_registry("--quota", "1MB", "--quota-for", "team=100KB")
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


def test_the_access_log(start_registry: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    registry = start_registry("--access-log", str(path))
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
