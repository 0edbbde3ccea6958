"""Bad input to the registry, from names to manifests to clients that stall. Nothing half-stored."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.support.daemon import DEADLINE_S, wait_until
from tests.support.registry import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    OwnRegistry,
    descriptor,
    digest_of,
)

BIG = os.urandom(1 << 20)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path_factory.mktemp("registry") / "root") as made:
        yield made
    assert "Traceback" not in made.log.read_text()


def raw(registry: OwnRegistry, data: bytes) -> bytes:
    """What comes back for bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", registry.port), timeout=30) as wire:
        wire.sendall(data)
        wire.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := wire.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def stored(registry: OwnRegistry) -> set[str]:
    """All files of the registry but those of repositories' uploads."""
    return {
        str(path.relative_to(registry.root))
        for path in registry.root.rglob("*")
        if path.is_file() and "_uploads" not in path.parts
    }


# -- paths and headers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/etc/manifests/passwd",
        "/v2/a/%2e%2e%2f%2e%2e%2fb/tags/list",
        "/v2/a/manifests/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v2/a/manifests/..",
        "/v2/a/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
        "/v2/a/blobs/sha256:%00",
        "/v2/a/blobs/uploads/..%2f..%2f_manifests",
        "/v2/_uploads/tags/list",
        "/v2/a/_manifests/tags/list",
        "/v2/a%00b/tags/list",
        "/v2/a%0d%0aSet-Cookie:%20x/tags/list",
        "/v2/a\\..\\b/tags/list",
        "/r/../../etc/passwd",
        "/r/a@sha256:..%2f..%2fetc",
        "/v2/" + "a/" * 5000 + "tags/list",
    ],
)
def test_paths_that_lead_elsewhere(registry: OwnRegistry, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "POST"):
        answer = registry.ask(method, path, b"x")
        assert 400 <= answer.status < 500, (method, answer)
        assert "set-cookie" not in answer.headers
        assert b"root:" not in answer.body


def test_headers_cannot_be_put_in(registry: OwnRegistry) -> None:
    digest = registry.push_blob("headers", b"data")
    evil = "x%0d%0aSet-Cookie:%20evil=1"
    for path in (
        f"/v2/headers/tags/list?n=1&last={evil}",
        f"/v2/headers/referrers/{digest}?artifactType={evil}",
        f"/v2/_catalog?n=1&last={evil}",
        f"/?last={evil}",
        f"/r/headers?last={evil}",
    ):
        assert "set-cookie" not in registry.ask("GET", path).headers
    answer = registry.ask("POST", f"/v2/headers/blobs/uploads/?mount={digest}&from={evil}")
    assert (answer.status, "set-cookie" in answer.headers) == (202, False)
    kind = "application/x\r\nSet-Cookie: evil=1"
    data = json.dumps(registry.image("headers")).encode()
    head = f"PUT /v2/headers/manifests/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    got = raw(registry, f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    assert b" 400 " in got and b"Set-Cookie" not in got


def test_media_types_that_are_none(registry: OwnRegistry) -> None:
    data = json.dumps(registry.image("kinds")).encode()
    for kind in ("", "text/html", "application/json", "a" * 1000, "<script>", MANIFEST + "x"):
        answer = registry.ask("PUT", "/v2/kinds/manifests/v1", data, Content_Type=kind)
        assert answer.status in ((201,) if not kind else (400,)), (kind, answer)
    mixed = registry.ask("PUT", "/v2/kinds/manifests/v2", data, Content_Type=INDEX)
    assert (mixed.status, mixed.code) == (400, "MANIFEST_INVALID")


def test_hosts_and_origins_of_web_pages(registry: OwnRegistry) -> None:
    assert registry.ask("GET", "/v2/", Host="evil.example").code == "DENIED"
    assert registry.ask("GET", "/v2/", Origin="http://evil.example").code == "DENIED"
    assert registry.ask("POST", "/v2/a/blobs/uploads/", Origin="null").code == "DENIED"
    own = f"http://localhost:{registry.port}"
    assert registry.ask("GET", "/v2/", Host=own[7:], Origin=own).status == 200


# -- blobs ---------------------------------------------------------------------------------


def test_a_wrong_digest_leaves_nothing(registry: OwnRegistry) -> None:
    before = stored(registry)
    path = registry.begin("wrong")
    answer = registry.ask("PUT", f"{path}?digest={digest_of(b'other')}", BIG)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.ask("GET", path).code == "BLOB_UPLOAD_UNKNOWN"
    assert registry.ask("GET", f"/v2/wrong/blobs/{digest_of(BIG)}").status == 404
    assert stored(registry) == before


@pytest.mark.parametrize("sent", [1000, 700_000])
@pytest.mark.parametrize("ending", ["half-close", "reset"])
def test_a_body_that_breaks_off_can_be_gone_on_with(
    registry: OwnRegistry, sent: int, ending: str
) -> None:
    path = registry.begin("broken")
    wire = socket.create_connection(("127.0.0.1", registry.port), timeout=30)
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BIG)}\r\n\r\n"
    wire.sendall(head.encode() + BIG[:sent])
    if ending == "half-close":
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(1000) == b""
    else:
        wait_until(lambda: registry.ask("GET", path).header("Range") != "0-0" or sent == 1000,
                   what="the first bytes")  # fmt: skip
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.close()

    def rest() -> bool:
        offset = int(registry.ask("GET", path).header("Range").partition("-")[2])
        offset += 1 if offset else 0
        got = registry.ask("PATCH", path, BIG[offset:], Content_Range=f"{offset}-{len(BIG) - 1}")
        return got.status == 202

    wait_until(rest, what="the upload to be free again")
    assert registry.ask("PUT", f"{path}?digest={digest_of(BIG)}").status == 201


def test_a_digest_that_two_upload_at_once(registry: OwnRegistry) -> None:
    data = os.urandom(3 << 20)
    digest = digest_of(data)
    paths = [registry.begin(name) for name in ("twice", "twice", "twice/other", "twice")]
    answers: list[int] = []

    def push(path: str) -> None:
        answers.append(registry.ask("PUT", f"{path}?digest={digest}", data).status)

    threads = [threading.Thread(target=push, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 4
    for name in ("twice", "twice/other"):
        assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").body == data
    same = [path for path in stored(registry) if digest[7:] in path and path.endswith("/data")]
    assert len(same) == 1


def test_an_upload_that_two_write_to(registry: OwnRegistry) -> None:
    path = registry.begin("shared")
    wire = socket.create_connection(("127.0.0.1", registry.port), timeout=30)
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BIG)}\r\n\r\n"
    wire.sendall(head.encode() + BIG[:500_000])
    wait_until(lambda: registry.ask("GET", path).header("Range") != "0-0", what="the first bytes")
    second = registry.ask("PATCH", path, b"intruder")
    assert (second.status, second.code) == (400, "BLOB_UPLOAD_INVALID")
    wire.sendall(BIG[500_000:])
    assert b" 202 " in wire.recv(1000)
    wire.close()
    assert registry.ask("PUT", f"{path}?digest={digest_of(BIG)}").status == 201


def test_an_upload_is_its_repositorys(registry: OwnRegistry) -> None:
    path = registry.begin("mine")
    stolen = path.replace("/mine/", "/yours/")
    for method in ("GET", "PATCH", "DELETE"):
        assert registry.ask(method, stolen, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert registry.ask("GET", path).status == 204


# -- manifests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"schemaVersion":2}',
        b'{"schemaVersion":1}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"schemaVersion":2,"config":[],"layers":{}}',
        b'{"schemaVersion":2,"config":{"digest":"../../x","size":1},"layers":[]}',
        b'{"schemaVersion":2,"config":{"digest":1,"size":"x","mediaType":[]},"layers":[]}',
        b'{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:' + b"0" * 64
        + b'","size":-1},"layers":[]}',
    ],
)  # fmt: skip
def test_manifests_that_are_none(registry: OwnRegistry, body: bytes) -> None:
    answer = registry.ask("PUT", "/v2/bad/manifests/v1", body, Content_Type=MANIFEST)
    assert answer.status == 400, answer
    assert answer.code in ("MANIFEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID")
    assert registry.ask("GET", "/v2/bad/manifests/v1").status == 404


def test_a_manifest_over_four_mebibytes(registry: OwnRegistry) -> None:
    content = registry.image("large")
    content["annotations"] = {"filler": "x" * (4 << 20)}
    data = json.dumps(content).encode()
    path = "/v2/large/manifests/v1"
    answer = registry.ask("PUT", path, data, Content_Type=MANIFEST)
    assert (answer.status, answer.code) == (413, "MANIFEST_INVALID")
    pieces = (data[at : at + 65536] for at in range(0, len(data), 65536))
    assert registry.ask("PUT", path, pieces, Content_Type=MANIFEST).status == 413
    content["annotations"]["filler"] = "x" * ((4 << 20) - 2000)
    registry.push_manifest("large", content, "v1")


def test_a_manifest_under_another_digest(registry: OwnRegistry) -> None:
    data = json.dumps(registry.image("other")).encode()
    path = f"/v2/other/manifests/{digest_of(b'else')}"
    answer = registry.ask("PUT", path, data, Content_Type=MANIFEST)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.ask("GET", f"/v2/other/manifests/{digest_of(data)}").status == 404


def test_a_manifest_that_names_itself_and_cycles(registry: OwnRegistry) -> None:
    """No index can hold its own digest, so what it names does not exist yet."""
    one, two = digest_of(b"one"), digest_of(b"two")
    for inner in (one, two):
        entry = {"mediaType": INDEX, "digest": inner, "size": 100}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] * 3}
        data = json.dumps(index).encode()
        answer = registry.ask("PUT", "/v2/cycle/manifests/v1", data, Content_Type=INDEX)
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    image = registry.image("cycle")
    data = json.dumps(image).encode()
    image["subject"] = descriptor(MANIFEST, data)
    digest = registry.push_manifest("cycle", image)
    assert registry.ask("GET", f"/v2/cycle/referrers/{digest}").json["manifests"] == []


def test_very_many_layers(registry: OwnRegistry) -> None:
    content = registry.image("many")
    content["layers"] = [descriptor(LAYER, f"none {n}".encode()) for n in range(10_000)]
    begun = time.monotonic()
    data = json.dumps(content).encode()
    answer = registry.ask("PUT", "/v2/many/manifests/v1", data, Content_Type=MANIFEST)
    assert answer.status == 400
    assert len(answer.body) < 1 << 20
    assert time.monotonic() - begun < 10


# -- clients that stall or guess -----------------------------------------------------------


def test_others_are_served_while_some_stall(registry: OwnRegistry) -> None:
    """Half a head, half a body, an answer that nobody reads: a hundred of each."""
    digest = registry.push_blob("stall", os.urandom(8 << 20))
    half = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\nx"
    heads = [b"GET /v2/ HTTP/1.1\r\nHost: loc"] * 100
    heads += [f"PATCH {registry.begin('stall')} {half}".encode() for _ in range(100)]
    heads += [f"GET /v2/stall/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()] * 100
    wires = []
    for head in heads:
        wire = socket.create_connection(("127.0.0.1", registry.port))
        wire.sendall(head)
        wires.append(wire)
    begun = time.monotonic()
    registry.push_image("stall/not", "v1")
    assert registry.ask("GET", "/v2/stall/not/manifests/v1").status == 200
    assert len(registry.ask("GET", f"/v2/stall/blobs/{digest}").body) == 8 << 20
    assert time.monotonic() - begun < DEADLINE_S
    for wire in wires:
        wire.close()


def test_guessing_passwords(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("ana:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode())
    with OwnRegistry(tmp_path / "root", ("--htpasswd", str(path), "--auth", "token")) as registry:
        challenge = registry.ask("GET", "/v2/").header("WWW-Authenticate")
        assert challenge == f'Bearer realm="http://{registry.host}/token",service="estiba registry"'
        injected = registry.ask("GET", "/v2/", Host='x",realm="http://evil/')
        assert (injected.status, injected.code) == (403, "DENIED")
        for header in ("Basic !!!", "Basic " + "x" * 10_000, "Digest x", "Bearer a.b.c", "x"):
            assert registry.ask("GET", "/v2/", Authorization=header).status == 401
        pair = base64.b64encode(b"ana:wrong").decode()
        codes = [
            registry.ask("GET", "/token", Authorization=f"Basic {pair}").status for _ in range(14)
        ]
        assert codes[:10] == [401] * 10 and codes[10:] == [429] * 4
        registry.sign_in("ana", "right")
        blocked = registry.ask("GET", "/v2/")
        assert (blocked.status, blocked.code) == (429, "TOOMANYREQUESTS")
        assert int(blocked.header("Retry-After")) <= 60
        log = registry.log.read_text()
        assert "failed attempt to sign in as 'ana' from 127.0.0.1" in log
        assert "wrong" not in log and pair not in log


def test_killed_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    registry = OwnRegistry(tmp_path / "root")
    registry.start()
    path = registry.begin("killed")
    connection = http.client.HTTPConnection("127.0.0.1", registry.port)
    connection.request("PATCH", path, BIG[:300_000], {"Content-Range": "0-299999"})
    assert connection.getresponse().status == 202
    assert registry.stop(signal.SIGKILL) == -signal.SIGKILL
    registry.start()
    assert registry.ask("GET", path).header("Range") == "0-299999"
    rest = registry.ask("PATCH", path, BIG[300_000:], Content_Range=f"300000-{len(BIG) - 1}")
    assert rest.status == 202
    assert registry.stop(signal.SIGTERM) == 0
    registry.start()
    assert registry.ask("PUT", f"{path}?digest={digest_of(BIG)}").status == 201
    assert registry.ask("GET", f"/v2/killed/blobs/{digest_of(BIG)}").body == BIG
    assert registry.stop() == 0


def test_the_page_shows_what_is_hostile_as_text(registry: OwnRegistry) -> None:
    evil = "</code><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    config = json.dumps(
        {
            "architecture": evil,
            "os": ["list"],
            "created": evil,
            "config": {"Labels": {evil: evil, "number": 5}},
            "history": [{"created_by": evil, "comment": evil}, "text", None],
        }
    ).encode()
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": evil,
        "config": descriptor(CONFIG, config, registry.push_blob("page", config)),
        "layers": [descriptor(LAYER, b"x", registry.push_blob("page", b"x"))],
        "annotations": {evil: evil},
    }
    digest = registry.push_manifest("page", content, "v1")
    subject = {**registry.image("page"), "artifactType": "application/x"}
    subject["subject"] = {"mediaType": MANIFEST, "digest": digest, "size": 1000}
    registry.push_manifest("page", subject)
    for path in ("/", "/r/page", f"/r/page@{digest}"):
        answer = registry.ask("GET", path, Accept="text/html")
        assert answer.status == 200
        assert b"<script" not in answer.body and b"<img" not in answer.body
        policy = answer.header("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.body.count(b"&lt;script&gt;") >= 6
    assert b"application/x" in answer.body
    missing = registry.ask("GET", "/r/page@" + digest_of(b"none"))
    assert missing.status == 404 and b"<h1>Error 404</h1>" in missing.body
    assert registry.ask("GET", "/r/<script>").status == 400
