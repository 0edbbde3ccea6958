"""Certificates and proxies."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.registries import Authority
from tests.support.scripted import Reply, scripted
from tests.unit.distribution.support import (
    ANN,
    BODY,
    DATA,
    DIGEST,
    GOOD,
    QUICK,
    moved,
    repository,
    serving,
    trusting,
)

from estiba.distribution.proxies import Proxies
from estiba.model.errors import (
    FailedPrecondition,
    Unavailable,
)

TARGET = "/v2/library/thing/manifests/one"


def test_a_certificate_must_be_vouched_for(
    tmp_path: Path, authority: Authority, names: None
) -> None:
    certificate = authority.issue("server", "registry.test")
    with scripted(serving({"one": GOOD}), certificate=certificate) as server:
        host = f"registry.test:{server.port}"
        with (
            repository(host) as source,
            pytest.raises(Unavailable, match=rf"cannot be verified.*certs.d/{host}/ca.crt"),
        ):
            source.manifest("one")
        certs = trusting(tmp_path, host, authority.certificate)
        settings = replace(QUICK, certs_dirs=(certs,))
        with repository(host, settings=settings) as source:
            assert source.manifest("one").body == BODY
        # The authority is trusted for this registry alone, and its certificate for one name.
        other = f"other.test:{server.port}"
        with (
            repository(other, settings=settings) as source,
            pytest.raises(Unavailable, match="cannot be verified"),
        ):
            source.manifest("one")
        trusting(tmp_path, other, authority.certificate)
        with (
            repository(other, settings=settings) as source,
            pytest.raises(Unavailable, match="cannot be verified: Hostname mismatch"),
        ):
            source.manifest("one")
        with repository(other, settings=replace(QUICK, insecure=("other.test",))) as source:
            assert source.manifest("one").body == BODY


def test_a_client_certificate(tmp_path: Path, authority: Authority, names: None) -> None:
    import ssl

    certificate = authority.issue("server", "registry.test")
    client = authority.issue("client")
    with scripted(serving({"one": GOOD}), certificate=certificate) as server:
        context = server.socket.context
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        host = f"registry.test:{server.port}"
        certs = trusting(tmp_path, host, authority.certificate)
        settings = replace(QUICK, certs_dirs=(certs,))
        with repository(host, settings=settings) as source, pytest.raises(Unavailable):
            source.manifest("one")
        for path in client:
            (certs / host / path.name).write_bytes(path.read_bytes())
        with repository(host, settings=settings) as source:
            assert source.manifest("one").body == BODY
        (certs / host / "client.key").unlink()
        with (
            repository(host, settings=settings) as source,
            pytest.raises(FailedPrecondition, match=r"missing key client\.key"),
        ):
            source.manifest("one")
        (certs / host / "bad.crt").write_text("rubbish")
        with (
            repository(host, settings=settings) as source,
            pytest.raises(FailedPrecondition, match=r"bad\.crt cannot be used"),
        ):
            source.manifest("one")


def test_a_secure_registry_is_never_asked_over_plain_http(names: None) -> None:
    with scripted(serving({"one": GOOD})) as server:
        with (
            repository(f"registry.test:{server.port}", credentials=ANN) as source,
            pytest.raises(Unavailable, match=r"no TLS with.* it seems to speak plain HTTP"),
        ):
            source.manifest("one")
        assert server.asks == []


def test_a_redirect_to_plain_http_is_refused(
    tmp_path: Path, authority: Authority, names: None
) -> None:
    certificate = authority.issue("server", "registry.test")
    with scripted(serving({"data": Reply(body=DATA)})) as storage:
        elsewhere = f"http://{storage.host}/data"
        replies = {
            DIGEST: moved(elsewhere),
            "uploads/": Reply(status=202, headers={"Location": elsewhere}),
        }
        with scripted(serving(replies), certificate=certificate) as server:
            host = f"registry.test:{server.port}"
            settings = replace(QUICK, certs_dirs=(trusting(tmp_path, host, authority.certificate),))
            with repository(host, settings=settings, push=True) as both:
                with pytest.raises(Unavailable, match="from HTTPS to plain HTTP"):
                    both.blob(DIGEST, len(DATA))
                with pytest.raises(Unavailable, match="from HTTPS to plain HTTP"):
                    both.upload_blob(io.BytesIO(DATA), size=len(DATA), digest=DIGEST)
        assert storage.asks == []


@pytest.fixture
def tunnel() -> Iterator[tuple[str, list[str]]]:
    """A proxy for CONNECT, to the port of this host; and what it was asked."""
    heads: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            heads.append(head.decode())
            port = int(heads[-1].split(" ")[1].rpartition(":")[2])
            server = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heads
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_tunnel_through_a_proxy(
    tmp_path: Path, authority: Authority, names: None, tunnel: tuple[str, list[str]]
) -> None:
    proxy, heads = tunnel
    certificate = authority.issue("server", "registry.test")
    with scripted(serving({"one": GOOD}), certificate=certificate) as server:
        host = f"registry.test:{server.port}"
        settings = replace(
            QUICK,
            certs_dirs=(trusting(tmp_path, host, authority.certificate),),
            proxies=Proxies(https=f"http://u:p%40ss@{proxy}"),
        )
        with repository(host, settings=settings) as source:
            assert source.manifest("one").body == BODY
        basic = base64.b64encode(b"u:p@ss").decode()
        assert heads[0].startswith(f"CONNECT {host} HTTP/1.1\r\n")
        assert f"Proxy-Authorization: Basic {basic}\r\n" in heads[0]
        assert "proxy-authorization" not in server.asks[0].headers
        direct = replace(settings, proxies=Proxies(https=f"http://{proxy}", bypass=".test"))
        with repository(host, settings=direct) as source:
            source.manifest("one")
        assert len(heads) == 1


def test_plain_http_through_a_proxy(names: None) -> None:
    with scripted(serving({"one": GOOD})) as proxy:
        settings = replace(
            QUICK, insecure=("plain.test",), proxies=Proxies(http=f"http://u:p@{proxy.host}")
        )
        with repository("plain.test", settings=settings) as source:
            assert source.manifest("one").body == BODY
        ask = proxy.asks[-1]
        assert ask.path == f"http://plain.test{TARGET}"
        assert ask.header("Host") == "plain.test"
        assert ask.header("Proxy-Authorization").startswith("Basic ")


def test_a_proxy_that_refuses(names: None) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"

    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(refusal)
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = replace(QUICK, proxies=Proxies(https=proxy))
        with (
            repository("registry.test", settings=settings) as source,
            pytest.raises(Unavailable, match=r"the proxy refused the connection.*407"),
        ):
            source.manifest("one")
        thread.join()
