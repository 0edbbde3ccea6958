"""The ways that lead to a registry: mirrors, proxies, plain HTTP, certificates of clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, needs_docker
from tests.support.proxy import proxy
from tests.support.registries import Authority, GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry
from tests.support.scripted import Reply, scripted
from tests.support.served import Served, tar_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineRegistry.is_installed(), reason="needs Debian's docker-registry"),
    needs_docker(28),
]
Make = Callable[..., PrivateDaemon]
ONCE = ("--max-download-attempts", "1")


def started(make_daemon: Make, *flags: str) -> PrivateDaemon:
    daemon = make_daemon(*ONCE, *flags)
    daemon.start()
    return daemon


@contextmanager
def nobody() -> Iterator[str]:
    """A host and port at which nobody listens, nor can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def pushed(daemon: PrivateDaemon, name: str) -> str:
    """The digest of an image of the test."""
    daemon.import_image("local:1", tar_of({"word": name.encode()}))
    daemon.docker("tag", "local:1", name)
    shown = daemon.docker("push", name).stdout.decode()
    daemon.docker("rmi", name, "local:1")
    return shown.rpartition("digest: ")[2].split()[0]


def test_mirrors_of_any_registry(make_daemon: Make, tmp_path: Path) -> None:
    """Those of one registry first, then those of all, then the registry; dead ones are passed."""
    with (
        nobody() as dead,
        genuine_registry(tmp_path / "mirror") as mirror,
        OwnRegistry(tmp_path / "general") as general,
        genuine_registry(tmp_path / "origin") as origin,
        scripted(lambda _: Reply(status=500, body=b"out of order")) as broken,
    ):
        flags = [f"r.invalid=http://{dead}", f"r.invalid=http://{mirror.host}/kept/here"]
        flags += [f"*=http://{broken.host}", f"*=http://{general.host}"]
        daemon = started(make_daemon, *(f"--registry-mirror={flag}" for flag in flags))
        digests = {
            "r.invalid/team/special:1": pushed(daemon, f"{mirror.host}/kept/here/team/special:1"),
            "r.invalid/team/general:1": pushed(daemon, f"{general.host}/team/general:1"),
            "other.invalid/team/general:1": pushed(daemon, f"{general.host}/team/general:1"),
            f"{origin.host}/team/own:1": pushed(daemon, f"{origin.host}/team/own:1"),
            "busybox:latest": pushed(daemon, f"{general.host}/library/busybox:latest"),
        }
        digests["r.invalid/team/general:1"] = digests["other.invalid/team/general:1"]
        for name, digest in digests.items():
            shown = daemon.docker("pull", name).stdout.decode()
            assert f"Digest: {digest}" in shown, name
        failed = daemon.docker("pull", "r.invalid/team/none:1", check=False)
        assert failed.returncode == 1 and b"r.invalid" in failed.stderr
        assert broken.asks
        daemon.docker("push", f"{origin.host}/team/own:1")
        assert not any(ask.method in ("POST", "PUT") for ask in broken.asks), "pulls only"


def test_a_mirror_that_breaks_off_or_lies(make_daemon: Make, tmp_path: Path) -> None:
    """The registry itself goes on with the blob where the mirror broke off."""
    served = Served()
    made = served.image([tar_of({"data": bytes(range(256)) * 20_000})], tag="1", compress=bytes)
    layer = served.layer_of(made)
    lies = Served()
    lies.blobs, lies.manifests = dict(served.blobs), dict(served.manifests)
    for fault in ({"cut": 3 << 20}, {"body": bytes(len(served.blobs[layer]))}):
        lies.faults[layer] = lambda _, reply, fault=fault: replace_reply(reply, fault)
        with scripted(lies) as mirror, scripted(served) as origin:
            daemon = started(make_daemon, f"--registry-mirror=*=http://{mirror.host}")
            name = f"{origin.host}/x:1"
            shown = daemon.docker("pull", name).stdout.decode()
            assert f"Digest: {made['digest']}" in shown
            assert any(layer in path for path in mirror.paths("GET"))
            (ask,) = [ask for ask in origin.asks if layer in ask.path]
            assert (ask.header("Range") == f"bytes={3 << 20}-") is ("cut" in fault)


def replace_reply(reply: Reply, changes: dict[str, object]) -> Reply:
    return replace(reply, **changes)  # type: ignore[arg-type]


def test_proxies(make_daemon: Make, tmp_path: Path) -> None:
    """Plain HTTP goes through as it is, TLS in a tunnel; what is excepted never does."""
    authority = Authority(tmp_path)
    certificate = authority.issue("server", "tls.invalid")
    certs = tmp_path / "certs.d" / "tls.invalid"
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(authority.certificate.read_bytes())
    with (
        genuine_registry(tmp_path / "plain") as plain,
        genuine_registry(tmp_path / "tls", certificate=certificate) as tls,
        proxy({"plain.invalid": ("127.0.0.1", plain.port),
               "tls.invalid": ("127.0.0.1", tls.port)}) as between,
    ):  # fmt: skip
        daemon = started(
            make_daemon,
            "--http-proxy", between.url, "--https-proxy", between.url,
            "--no-proxy", "direct.invalid",
            "--insecure-registry", "plain.invalid", "--insecure-registry", "direct.invalid",
            "--registry-certs-dir", str(tmp_path / "certs.d"),
        )  # fmt: skip
        for host in ("plain.invalid", "tls.invalid"):
            digest = pushed(daemon, f"{host}/team/word:1")
            assert (
                f"Digest: {digest}".encode() in daemon.docker("pull", f"{host}/team/word:1").stdout
            )
        lines = list(between.seen)
        assert any(line.startswith("GET http://plain.invalid/v2/") for line in lines)
        assert "CONNECT tls.invalid:443 HTTP/1.1" in lines
        assert not any("http://tls.invalid" in line for line in lines)
        failed = daemon.docker("pull", "direct.invalid/x:1", check=False)
        assert b"cannot be looked up" in failed.stderr
        failed = daemon.docker("pull", "unknown.invalid/x:1", check=False)
        assert b"502" in failed.stderr and b"proxy" in failed.stderr
        assert not any("direct.invalid" in line for line in between.seen)
        here = f"127.0.0.1:{plain.port}"
        daemon.docker("pull", f"{here}/team/word:1")
        assert not any(here in line for line in between.seen), "loopback is always direct"


def test_plain_http_only_where_it_is_allowed(make_daemon: Make, tmp_path: Path) -> None:
    """By address, and by the network that it is in."""
    daemon = started(make_daemon)
    address = f"{daemon.subnet}.1"
    with genuine_registry(tmp_path / "registry", address=address) as registry:
        name = f"{registry.host}/team/word:1"
        daemon.import_image("local:1", tar_of({"a": b"a"}))
        daemon.docker("tag", "local:1", name)
        failed = daemon.docker("push", name, check=False)
        assert failed.returncode == 1
        assert f"--insecure-registry={registry.host}".encode() in failed.stderr
        for allowed in (registry.host, f"{daemon.subnet}.0/24"):
            daemon.stop()
            daemon.flags = (*ONCE, "--insecure-registry", allowed)
            daemon.start()
            daemon.docker("push", name)
            daemon.docker("pull", name)


def test_certificates_of_clients(make_daemon: Make, tmp_path: Path) -> None:
    daemon = started(make_daemon, "--registry-certs-dir", str(tmp_path / "certs.d"))
    address = f"{daemon.subnet}.1"
    servers, users = Authority(tmp_path, "servers"), Authority(tmp_path, "users")
    certificate = servers.issue("server", address)
    with genuine_registry(
        tmp_path / "registry", certificate=certificate, clients=users.certificate, address=address
    ) as registry:
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(servers.certificate.read_bytes())
        failed = daemon.docker("pull", f"{registry.host}/team/word:1", check=False)
        assert b"wants a client certificate" in failed.stderr, failed.stderr
        assert f"certs.d/{registry.host}/".encode() in failed.stderr
        for path, suffix in zip(users.issue("client"), ("cert", "key"), strict=True):
            (folder / f"client.{suffix}").write_bytes(path.read_bytes())
        digest = pushed(daemon, f"{registry.host}/team/word:1")
        shown = daemon.docker("pull", f"{registry.host}/team/word:1").stdout.decode()
        assert f"Digest: {digest}" in shown
        (folder / "client.key").unlink()
        failed = daemon.docker("pull", f"{registry.host}/team/word:2", check=False)
        assert b"client.key" in failed.stderr
