"""How the daemon's settings lead to registries: certificates, mirrors, proxies, tokens.

The registry with TLS stands on the daemon's bridge, since loopback is never verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.registries import (
    Authority,
    GenuineRegistry,
    genuine_registry,
    token_registry,
)
from tests.support.scripted import Ask, Reply, scripted

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineRegistry.is_installed(), reason="needs Debian's docker-registry"),
]
USERS = {"ann": "secret"}


@dataclass(frozen=True, slots=True)
class Trusting:
    daemon: PrivateDaemon
    certs: Path
    root: Path


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusting]:
    root = tmp_path_factory.mktemp("trusting")
    certs = root / "certs.d"
    daemon = PrivateDaemon(root, "--registry-certs-dir", str(certs), "--max-download-attempts", "1")
    daemon.start()
    daemon.import_busybox()
    try:
        yield Trusting(daemon, certs, root)
    finally:
        daemon.close()


def log_in(daemon: PrivateDaemon, host: str, *, check: bool = True) -> str:
    done = daemon.docker(
        "login", "-u", "ann", "--password-stdin", host, stdin=b"secret", check=check
    )
    return done.stderr.decode()


def test_an_authority_of_certs_d(trusting: Trusting) -> None:
    daemon = trusting.daemon
    address = f"{daemon.subnet}.1"
    authority = Authority(trusting.root)
    certificate = authority.issue("server", address)
    with genuine_registry(
        trusting.root / "registry", certificate=certificate, users=USERS, address=address
    ) as registry:
        image = f"{registry.host}/team/busybox"
        daemon.docker("tag", "busybox", image)
        failed = log_in(daemon, registry.host, check=False)
        assert "cannot be verified" in failed
        assert f"certs.d/{registry.host}/ca.crt" in failed
        folder = trusting.certs / registry.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
        refused = daemon.docker("push", image, check=False)
        assert refused.returncode == 1
        assert b"no basic auth credentials" in refused.stderr
        log_in(daemon, registry.host)
        daemon.docker("push", image)
        daemon.docker("rmi", image)
        assert b"Downloaded newer image" in daemon.docker("pull", image).stdout
        daemon.docker("logout", registry.host)
        assert daemon.docker("pull", image, check=False).returncode == 1


def test_tokens_that_a_login_keeps(trusting: Trusting, tmp_path: Path) -> None:
    daemon = trusting.daemon
    with token_registry(tmp_path, USERS) as (registry, tokens):
        image = f"{registry.host}/library/busybox"
        daemon.docker("tag", "busybox", image)
        log_in(daemon, registry.host)
        # The password was exchanged for a token, which is what the client sends from now on.
        config = (daemon.root / "docker-config" / "config.json").read_text()
        assert "refresh-ann" in config
        daemon.docker("push", image)
        assert tokens.paths("POST")
        daemon.docker("logout", registry.host)
        daemon.docker("rmi", image)
        daemon.docker("pull", image)
        assert daemon.docker("push", image, check=False).returncode == 1


def test_mirrors_and_proxies(tmp_path: Path) -> None:
    """Names that nobody can look up are served all the same."""
    seen: list[Ask] = []

    def proxy(ask: Ask) -> Reply:
        seen.append(ask)
        return Reply(status=403, body=b'{"errors":[{"code":"DENIED","message":"by the proxy"}]}')

    with (
        genuine_registry(tmp_path / "mirror") as mirror,
        scripted(proxy) as server,
    ):
        daemon = PrivateDaemon(
            tmp_path,
            "--registry-mirror", f"r.invalid=http://{mirror.host}",
            "--insecure-registry", "plain.invalid",
            "--max-download-attempts", "1",
        )  # fmt: skip
        daemon.start({"HTTP_PROXY": f"http://u:hidden@{server.host}", "NO_PROXY": ""})
        try:
            daemon.import_busybox()
            there = f"{mirror.host}/team/busybox"
            daemon.docker("tag", "busybox", there)
            daemon.docker("push", there)
            daemon.docker("pull", "r.invalid/team/busybox")
            assert daemon.run("r.invalid/team/busybox", "echo", "mirrored") == "mirrored\n"
            failed = daemon.docker("pull", "plain.invalid/team/busybox", check=False)
            assert b"by the proxy" in failed.stderr
            ask = seen[-1]
            assert ask.path.startswith("http://plain.invalid/v2/team/busybox/manifests/latest")
            assert ask.header("Proxy-Authorization")
            failed = daemon.docker("pull", "r.invalid/team/other", check=False)
            assert failed.returncode == 1
            wait_until(lambda: "mirror" in daemon.log.read_text(), what="a line about the mirror")
            assert "hidden" not in daemon.log.read_text()
        finally:
            daemon.close()
