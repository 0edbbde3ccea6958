"""Against Debian's docker-registry and our own: open, with TLS and passwords, with tokens."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.registries import (
    Authority,
    GenuineRegistry,
    TokenService,
    bcrypt,
    genuine_registry,
    token_registry,
)
from tests.support.registry import OwnRegistry
from tests.support.relay import relay
from tests.support.scripted import ScriptedServer
from tests.unit.distribution.support import (
    CONFIG,
    GENUINE,
    manifest_of,
    noise,
    push_image,
    read_all,
    repository,
)

from estiba.distribution.content import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.login import check_credentials
from estiba.distribution.registry import Registry
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.uploads import CHUNK_BYTES
from estiba.model.digest import digest_of
from estiba.model.errors import (
    DataLoss,
    Forbidden,
    InvalidArgument,
    NotFound,
    Unauthorized,
    Unavailable,
)

pytestmark = pytest.mark.skipif(
    not GenuineRegistry.is_installed(), reason="needs Debian's docker-registry"
)
ANN = Credentials("ann", "secret")
USERS = {"ann": "secret"}
PATIENT = replace(GENUINE, attempts=10, backoff_s=0.05)
numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Place:
    """A registry, and how it is spoken to. Each test has repositories of its own."""

    host: str
    settings: RegistrySettings
    credentials: Credentials
    tokens: ScriptedServer | None = None

    def repository(self, path: str = "", *, push: bool = True) -> Repository:
        path = path or f"test/{next(numbers)}"
        return repository(self.host, path, self.settings, self.credentials, push=push)


@pytest.fixture(scope="module", params=["open", "tls", "tokens", "own", "own-tokens"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("registry")
    if request.param == "open":
        with genuine_registry(root) as registry:
            yield Place(registry.host, GENUINE, ANONYMOUS)
    elif request.param == "tls":
        certificate = Authority(root).issue("server", "127.0.0.1")
        with genuine_registry(root, certificate=certificate, users=USERS) as registry:
            yield Place(registry.host, GENUINE, ANN)
    elif request.param == "tokens":
        with token_registry(root, USERS) as (registry, tokens):
            yield Place(registry.host, GENUINE, ANN, tokens)
    elif request.param == "own":
        with OwnRegistry(root / "root") as own:
            yield Place(own.host, GENUINE, ANONYMOUS)
    else:
        with own_registry_with_tokens(root) as own:
            yield Place(own.host, GENUINE, ANN)


def own_registry_with_tokens(root: Path) -> OwnRegistry:
    passwords = root / "htpasswd"
    passwords.write_text(f"ann:{bcrypt('secret')}\n")
    flags = ("--htpasswd", str(passwords), "--auth", "token", "--self-signed", "127.0.0.1")
    return OwnRegistry(root / "root", flags)


def test_an_image_there_and_back(place: Place) -> None:
    layers = [noise(3 << 20, 1), noise(100, 2), b""]
    with place.repository() as target:
        body = push_image(target, "one", *layers)
        path = target.reference.path
    with place.repository(path, push=False) as source:
        content = source.resolve("one")
        assert (content.media_type, content.size) == (OCI_MANIFEST, len(body))
        assert content.digest == digest_of(body)
        for name in ("one", content.digest):
            fetched = source.manifest(name)
            assert (fetched.body, fetched.content) == (body, content)
        assert source.read_blob(digest_of(CONFIG), len(CONFIG)) == CONFIG
        for data in layers:
            assert read_all(source.blob(digest_of(data), len(data))) == data


def test_what_is_not_there(place: Place) -> None:
    with place.repository() as target:
        push_image(target, "one")
        with pytest.raises(NotFound, match=r"manifest for .*:two not found: manifest unknown"):
            target.manifest("two")
        with pytest.raises(NotFound, match="manifest for"):
            target.resolve("two")
        with pytest.raises(NotFound, match="blob sha256:000"):
            target.blob("sha256:" + "0" * 64, 1)
        assert not target.has_blob("sha256:" + "0" * 64)
        assert target.has_blob(digest_of(CONFIG))


def test_ranges(place: Place) -> None:
    data = noise(1 << 20)
    digest = digest_of(data)
    with place.repository() as target:
        target.upload_blob(io.BytesIO(data), size=len(data), digest=digest)
        for offset in (0, 1, 700_000, len(data)):
            hasher = hashlib.sha256(data[:offset])
            with target.blob(digest, len(data), offset=offset, hasher=hasher) as stream:
                assert stream.position == offset
                assert b"".join(iter(lambda: stream.read(70_000), b"")) == data[offset:]
        wrong = hashlib.sha256(b"x" * 1000)
        with pytest.raises(DataLoss, match="other bytes"):
            read_all(target.blob(digest, len(data), offset=1000, hasher=wrong))
        for size in (len(data) - 1, len(data) + 1):
            with pytest.raises(DataLoss, match=f"{size} bytes were announced"):
                target.blob(digest, size)
            with pytest.raises(DataLoss, match=f"{size} bytes were announced"):
                target.blob(digest, size, offset=10)


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_a_blob_of_unknown_size(place: Place, size: int) -> None:
    data = noise(size)
    heard: list[int] = []
    with place.repository() as target:
        content = target.upload_blob(io.BytesIO(data), progress=heard.append)
        assert (content.digest, content.size) == (digest_of(data), size)
        assert read_all(target.blob(content.digest, size)) == data
    assert heard == sorted(heard)
    assert (heard or [0])[-1] == size


@pytest.mark.parametrize(
    ("given", "message"),
    [(b"short", "5 of 6 bytes"), (b"longer.", "more than 6 bytes"), (b"wrong!", "the digest")],
)
def test_a_source_that_is_not_what_was_said(place: Place, given: bytes, message: str) -> None:
    digest = digest_of(b"sixsix")
    with place.repository() as target:
        with pytest.raises(DataLoss, match=message):
            target.upload_blob(io.BytesIO(given), size=6, digest=digest)
        assert not target.has_blob(digest)


def test_mounting(place: Place) -> None:
    data = noise(1000)
    with place.repository() as origin, place.repository() as target:
        origin.upload_blob(io.BytesIO(data), size=len(data), digest=digest_of(data))
        assert not target.has_blob(digest_of(data))
        assert target.mount_blob(digest_of(data), origin.reference.path)
        assert target.has_blob(digest_of(data))
        assert not target.mount_blob("sha256:" + "0" * 64, origin.reference.path)


def test_tags_and_deletion(place: Place) -> None:
    with place.repository() as target:
        body = push_image(target, "one", b"layer")
        tags = [f"t{number:04}" for number in range(1100)] if place.tokens is None else ["two"]
        for tag in tags[:1]:
            target.put_manifest(tag, body, OCI_MANIFEST)
        assert target.tags() == sorted(["one", tags[0]])
        assert target.referrers(digest_of(body)) == []
        target.delete_manifest(digest_of(body))
        with pytest.raises(NotFound):
            target.manifest("one")
        with pytest.raises(NotFound):
            target.delete_manifest(digest_of(body))
        target.delete_blob(digest_of(b"layer"))
        assert not target.has_blob(digest_of(b"layer"))


def test_other_forms(place: Place) -> None:
    """Docker's manifests, indexes, digests of another algorithm."""
    with place.repository() as target:
        body = push_image(target, "one")
        docker = manifest_of([], DOCKER_MANIFEST).replace(
            b"application/vnd.oci.image.config.v1+json",
            b"application/vnd.docker.container.image.v1+json",
        )
        assert target.put_manifest("docker", docker, DOCKER_MANIFEST).digest == digest_of(docker)
        assert target.resolve("docker").media_type == DOCKER_MANIFEST
        entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)}
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        index = json.dumps(document).encode()
        target.put_manifest("index", index, OCI_INDEX)
        assert target.manifest("index").content.is_index
        with pytest.raises(InvalidArgument, match="manifest blob unknown"):
            target.put_manifest("bad", manifest_of([b"absent"]), OCI_MANIFEST)
        with pytest.raises(InvalidArgument, match="its digest is"):
            target.put_manifest("sha256:" + "0" * 64, body, OCI_MANIFEST)


def test_the_catalogue(place: Place) -> None:
    with place.repository() as target:
        push_image(target, "one")
        path = target.reference.path
    with Registry(place.host, place.settings, place.credentials) as registry:
        if place.tokens is None:
            assert path in registry.catalog()


def test_a_fork_shares_connections_and_tokens(place: Place) -> None:
    from estiba.distribution.cancel import CancelToken

    data = noise(1000)
    with place.repository() as target:
        target.upload_blob(io.BytesIO(data), size=len(data), digest=digest_of(data))
        before = len(place.tokens.asks) if place.tokens else 0
        cancel = CancelToken()
        part = target.fork(cancel)
        assert read_all(part.blob(digest_of(data), len(data))) == data
        cancel.cancel()
        part.close()
        assert read_all(target.blob(digest_of(data), len(data))) == data
        assert (len(place.tokens.asks) if place.tokens else 0) == before


# -- credentials --------------------------------------------------------------------------


def test_a_token_kept_of_our_own_registry(tmp_path: Path) -> None:
    with own_registry_with_tokens(tmp_path) as own:
        identity = check_credentials(own.host, ANN, GENUINE)
        assert identity
        kept = Credentials("<token>", "", identity_token=identity)
        with repository(own.host, "a/b", GENUINE, kept, push=True) as target:
            body = push_image(target, "one", b"layer")
            assert target.manifest("one").body == body
        wrong = Credentials("ann", "wrong")
        with repository(own.host, "a/b", GENUINE, wrong) as source, pytest.raises(Unauthorized):
            source.manifest("one")


def test_passwords(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("server", "127.0.0.1")
    with genuine_registry(tmp_path / "r", certificate=certificate, users=USERS) as registry:
        for wrong in (ANONYMOUS, Credentials("ann", "wrong"), Credentials("bob", "secret")):
            with (
                repository(registry.host, "a/b", GENUINE, wrong, push=True) as target,
                pytest.raises(Unauthorized, match=r"are you logged in|no basic auth credentials"),
            ):
                target.upload_blob(io.BytesIO(b"x"))
        assert check_credentials(registry.host, ANN, GENUINE) == ""
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            check_credentials(registry.host, Credentials("ann", "wrong"), GENUINE)


def test_tokens(tmp_path: Path) -> None:
    with token_registry(tmp_path, USERS) as (registry, service):
        host = registry.host
        identity = check_credentials(host, ANN, GENUINE)
        assert identity == "refresh-ann"
        kept = Credentials("", "", identity_token=identity)
        with repository(host, "library/x", GENUINE, kept, push=True) as target:
            body = push_image(target, "one", b"layer")
        assert service.paths("POST")
        with repository(host, "library/x", GENUINE) as source:
            assert source.manifest("one").body == body
        with repository(host, "other/x", GENUINE) as source, pytest.raises(Unauthorized):
            source.manifest("one")
        wrong = Credentials("ann", "wrong")
        with (
            repository(host, "library/x", GENUINE, wrong) as source,
            pytest.raises(Unauthorized, match="incorrect username or password"),
        ):
            source.manifest("one")
        with (
            repository(host, "library/x", GENUINE, push=True) as target,
            pytest.raises((Unauthorized, Forbidden)),
        ):
            target.upload_blob(io.BytesIO(b"x"))
        giver = service.script
        assert isinstance(giver, TokenService)
        made = giver.token("ann", ["repository:library/x:pull"])
        ready = Credentials(registry_token=made)
        asked = len(service.asks)
        with repository(host, "library/x", GENUINE, ready) as source:
            assert source.manifest("one").body == body
        assert len(service.asks) == asked


# -- a bad network ------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    data = noise(8 << 20)
    digest = digest_of(data)
    with genuine_registry(tmp_path) as registry, relay(registry.port) as between:
        with repository(registry.host, "a/b", GENUINE, push=True) as target:
            target.upload_blob(io.BytesIO(data), size=len(data), digest=digest)
        with repository(between.host, "a/b", GENUINE) as source:
            between.cuts = [3 << 20, 2 << 20, 1 << 20]
            assert read_all(source.blob(digest, len(data))) == data
            assert between.cuts == []
            between.cuts = [500] * 20
            with pytest.raises(Unavailable, match="ended the connection"):
                read_all(source.blob(digest, len(data)))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("make", [genuine_registry, OwnRegistry])
def test_an_upload_goes_on_where_it_broke(
    tmp_path: Path, known: bool, make: Callable[[Path], AbstractContextManager[Any]]
) -> None:
    data = noise(20 << 20)
    heard: list[int] = []
    said = {"size": len(data), "digest": digest_of(data)} if known else {}
    with (
        make(tmp_path / "root") as registry,
        relay(registry.port, upward=True) as between,
        repository(between.host, "a/b", PATIENT, push=True) as target,
    ):
        assert not target.has_blob(digest_of(data))
        between.cuts = [9 << 20, 5 << 20]
        content = target.upload_blob(io.BytesIO(data), progress=heard.append, **said)
        assert between.cuts == []
        assert content.digest == digest_of(data)
        assert read_all(target.blob(content.digest, len(data))) == data
    if make is OwnRegistry:
        # It keeps what arrived; docker-registry begins anew.
        assert min(heard[20:]) > 4 << 20


def test_an_upload_whose_source_is_opened_again(tmp_path: Path) -> None:
    data = noise(10 << 20)
    digest = digest_of(data)

    class Once:
        def __init__(self) -> None:
            self._data = io.BytesIO(data)

        def read(self, _: int, /) -> bytes:
            return self._data.read(700_001)

    with (
        genuine_registry(tmp_path) as registry,
        relay(registry.port, upward=True) as between,
        repository(between.host, "a/b", GENUINE, push=True) as target,
    ):
        between.cuts = [4 << 20]
        with pytest.raises(Unavailable, match="cannot be read again"):
            target.upload_blob(Once(), size=len(data), digest=digest)
        assert not target.has_blob(digest)
        between.cuts = [4 << 20]
        target.upload_blob(Once(), size=len(data), digest=digest, reopen=Once)
        assert read_all(target.blob(digest, len(data))) == data


def test_a_registry_that_restarts_in_the_middle(tmp_path: Path) -> None:
    data = noise(4 << 20)
    registry = GenuineRegistry(tmp_path)
    registry.start()
    try:
        with repository(registry.host, "a/b", PATIENT, push=True) as target:
            target.upload_blob(io.BytesIO(data), size=len(data), digest=digest_of(data))
            with target.blob(digest_of(data), len(data)) as stream:
                first = stream.read(1 << 16)
                registry.stop()
                registry.start()
                rest = b"".join(iter(lambda: stream.read(1 << 16), b""))
            assert first + rest == data
    finally:
        registry.stop()
