"""Logging in: a registry with passwords, one with tokens, and ones that answer something else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.support.registries import Authority
from tests.support.scripted import Ask, Reply, Script, scripted

from estiba.distribution.credentials import Credentials
from estiba.distribution.login import check_credentials, domain_of
from estiba.distribution.settings import RegistrySettings
from estiba.model.errors import Internal, InvalidArgument, Unauthorized

BASIC = f"Basic {base64.b64encode(b'ann:secret').decode()}"
ANN = Credentials("ann", "secret")


def basic(ask: Ask) -> Reply:
    if ask.header("Authorization") == BASIC:
        return Reply()
    return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})


def bearer(ask: Ask) -> Reply:
    if ask.path.startswith("/token"):
        known = ask.header("Authorization") == BASIC
        body = b'{"token":"t","refresh_token":"kept"}'
        return Reply(status=200 if known else 401, body=body if known else b"")
    if ask.header("Authorization") == "Bearer t":
        return Reply()
    realm = f"http://{ask.header('Host')}/token"
    challenge = f'Bearer realm="{realm}",service="registry"'
    return Reply(status=401, headers={"WWW-Authenticate": challenge})


def log_in(server: str, password: str = "secret") -> str:
    return check_credentials(server, Credentials("ann", password), RegistrySettings())


@pytest.mark.parametrize(("script", "token"), [(basic, ""), (bearer, "kept")])
def test_credentials(script: Script, token: str) -> None:
    with scripted(script) as server:
        assert log_in(server.host) == token
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            log_in(server.host, "wrong")
        asked = [path for path in server.paths() if path.startswith("/token")]
    assert all("service=registry" in path and "offline_token=true" in path for path in asked)
    assert bool(asked) == (script is bearer)


def test_a_registry_that_fails() -> None:
    with scripted(lambda ask: Reply(status=500)) as server:
        with pytest.raises(Internal, match="failed with status: 500"):
            log_in(server.host)
        assert len(server.asks) == 1
    with pytest.raises(Internal, match=r'Get "http://127.0.0.1:1/v2/": .*refused'):
        log_in("127.0.0.1:1")


def test_a_token_service_over_plain_http_is_for_insecure_registries_only(
    tmp_path: Path, names: None
) -> None:
    authority = Authority(tmp_path)
    certs = tmp_path / "certs.d"
    with scripted(bearer, certificate=authority.issue("server", "registry.test")) as server:
        host = f"registry.test:{server.port}"
        (certs / host).mkdir(parents=True)
        (certs / host / "ca.crt").write_bytes(authority.certificate.read_bytes())
        settings = RegistrySettings(certs_dirs=(certs,))
        with pytest.raises(Internal, match="no usable token service"):
            check_credentials(host, ANN, settings)
        assert not any("authorization" in ask.headers for ask in server.asks)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("localhost", "localhost"),
        ("https://r.example:5000/v2", "r.example:5000"),
        ("r.example", "r.example"),
    ],
)
def test_addresses(server: str, host: str) -> None:
    assert domain_of(server) == host


def test_addresses_refused() -> None:
    with pytest.raises(InvalidArgument, match="invalid registry address"):
        log_in("a b")
