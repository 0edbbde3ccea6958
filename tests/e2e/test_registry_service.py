"""What surrounds the registry's API: rights, tokens, TLS, its end."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import wait_until
from tests.support.registries import Authority
from tests.support.registry import Answer, OwnRegistry, digest_of, write_people

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


def test_rights_with_passwords(
    start_registry: Callable[..., OwnRegistry], guarded: list[str]
) -> None:
    registry = start_registry(*guarded)
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
    start_registry: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    htpasswd, policy = tmp_path / "htpasswd", tmp_path / "policy.toml"
    write_people(htpasswd, ana="ana", ben="ben")
    policy.write_text(
        "".join(
            f"[[repository]]\nmatch = '{name}/*'\nread = ['{name}']\nwrite = ['{name}']\n"
            for name in ("ana", "ben")
        )
    )
    registry = start_registry("--htpasswd", str(htpasswd), "--policy", str(policy))
    registry.sign_in("ana", "ana")
    registry.push_image("ana/secret", "v1")
    digest = registry.push_blob("ana/secret", b"nobody's business")
    registry.sign_in("ben", "ben")
    for query in (f"mount={digest}&from=ana/secret", f"mount={digest}"):
        assert registry.ask("POST", f"/v2/ben/own/blobs/uploads/?{query}").status == 202
    assert registry.ask("HEAD", f"/v2/ben/own/blobs/{digest}").status == 404


def test_the_page_and_rights(
    start_registry: Callable[..., OwnRegistry], guarded: list[str]
) -> None:
    registry = start_registry(*guarded, "--auth", "token")
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


def test_tokens(start_registry: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start_registry(*guarded, "--auth", "token")
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


def test_refresh_tokens(start_registry: Callable[..., OwnRegistry], guarded: list[str]) -> None:
    registry = start_registry(*guarded, "--auth", "token")
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
    start_registry: Callable[..., OwnRegistry], guarded: list[str], tmp_path: Path
) -> None:
    key = ("--auth", "token", "--token-key", str(tmp_path / "token.key"))
    one, two = start_registry(*guarded, *key), start_registry(*guarded, *key)
    one.sign_in("ana", "ana")
    token = bearer(one.ask("GET", "/token?scope=repository:ana/a:pull,push"))
    one.authorization = two.authorization = token
    two.push_image("ana/a", "v1")
    assert one.stop() == 0
    one.start()
    one.push_image("ana/a", "v1")


# -- TLS, read-only ------------------------------------------------------------------------


def test_clients_with_certificates(
    start_registry: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.issue("server", "127.0.0.1")
    registry = start_registry(
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


def test_blobs_over_tls(start_registry: Callable[..., OwnRegistry], tmp_path: Path) -> None:
    registry = start_registry("--self-signed", "127.0.0.1")
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


def test_read_only(start_registry: Callable[..., OwnRegistry]) -> None:
    registry = start_registry()
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


# -- its end -------------------------------------------------------------------------------


def test_a_stop_in_the_middle_of_things(start_registry: Callable[..., OwnRegistry]) -> None:
    registry = start_registry()
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


def test_two_on_one_root_or_port(
    start_registry: Callable[..., OwnRegistry], tmp_path: Path
) -> None:
    registry = start_registry()
    second = OwnRegistry(registry.root)
    with pytest.raises(AssertionError, match="another registry serves"):
        second.start()
    third = OwnRegistry(tmp_path / "third", port=registry.port)
    with pytest.raises(AssertionError, match="cannot listen on"):
        third.start()


def test_memory_does_not_grow_with_a_blob(start_registry: Callable[..., OwnRegistry]) -> None:
    registry = start_registry()
    piece, count = os.urandom(1 << 20), 300
    path = registry.begin("a")
    assert registry.ask("PATCH", path, (piece for _ in range(count))).status == 202
    assert registry.process is not None
    status = Path(f"/proc/{registry.process.pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    assert peak_kib < 100 << 10
    assert registry.ask("GET", path).header("Range") == f"0-{(count << 20) - 1}"
