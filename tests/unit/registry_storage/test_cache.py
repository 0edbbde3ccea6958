"""A cache of another registry: what is asked for once, what is served when that is down."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.scripted import Ask, Reply, ScriptedServer, scripted
from tests.unit.registry_storage.pushing import manifest

from estiba.distribution.settings import RegistrySettings
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import Unavailable
from estiba.registry.storage.cached_blobs import CachedBlobs, NoUploads
from estiba.registry.storage.cached_manifests import CachedManifests
from estiba.registry.storage.documents import OCI_MANIFEST
from estiba.registry.storage.errors import (
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    ReadOnly,
)
from estiba.registry.storage.ports import Driver, Opened
from estiba.registry.storage.quota import Limits
from estiba.registry.storage.settings import Upstream
from estiba.registry.storage.store import Store
from estiba.registry.storage.upstream import UpstreamClient

LAYER = os.urandom(900_000)
TTL = 300.0


@dataclass
class OtherRegistry:
    """Holds one repository, `team/app`, and is down or slow when a test says so."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    status: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    change: Callable[[Reply], Reply] = lambda reply: reply
    server: ScriptedServer | None = None

    def push(self, tag: str, *layers: bytes) -> bytes:
        body = manifest(b"{}", *layers)
        self.blobs |= {digest_of(data): data for data in (b"{}", *layers)}
        self.manifests |= {tag: body, digest_of(body): body}
        return body

    def __call__(self, ask: Ask) -> Reply:
        if self.status:
            return Reply(status=self.status)
        name, _, rest = ask.path.removeprefix("/v2/").rpartition("/")
        if name in ("team/app/manifests", "team/other/manifests") and rest in self.manifests:
            body = self.manifests[rest]
            headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(body)}
            return Reply(headers=headers, body=body)
        if name in ("team/app/blobs", "team/other/blobs") and rest in self.blobs:
            if ask.method == "GET":
                assert self.gate.wait(60)
            begin = int(ask.header("Range").removeprefix("bytes=").rstrip("-") or 0)
            body = self.blobs[rest]
            if begin and ask.method == "GET":
                span = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                return Reply(status=206, headers={"Content-Range": span}, body=body[begin:])
            return self.change(Reply(body=body)) if ask.method == "GET" else Reply(body=body)
        if ask.path.startswith("/v2/team/app/tags/list"):
            tags = ",".join(f'"{tag}"' for tag in self.manifests if ":" not in tag)
            return Reply(body=b'{"tags": [%s]}' % tags.encode())
        return Reply(status=404, body=b'{"errors": []}')

    def asked(self, method: str, what: str) -> int:
        assert self.server is not None
        return sum(what in path for path in self.server.paths(method))


@dataclass
class Cache:
    """What a server would serve, with a clock of its own."""

    store: Store
    blobs: CachedBlobs
    manifests: CachedManifests
    now: list[float]

    def later(self, seconds: float) -> None:
        self.now[0] += seconds


@pytest.fixture
def other() -> Iterator[OtherRegistry]:
    registry = OtherRegistry()
    registry.gate.set()
    with scripted(registry) as server:
        registry.server = server
        try:
            yield registry
        finally:
            registry.gate.set()


MakeCache = Callable[..., Cache]


@pytest.fixture
def make_cache(driver: Driver, other: OtherRegistry, tmp_path: Path) -> Iterator[MakeCache]:
    made: list[Cache] = []

    def make(limits: Limits | None = None) -> Cache:
        assert other.server is not None
        settings = RegistrySettings(attempts=2, backoff_s=0.01, read_timeout_s=20)
        client = UpstreamClient(Upstream(other.server.host, ttl=TTL, settings=settings))
        store = Store(driver, limits=limits)
        now = [1000.0]
        blobs = CachedBlobs(store.blobs, store.uploads, client, tmp_path / "spool")
        manifests = CachedManifests(store.manifests, client, clock=lambda: now[0])
        made.append(Cache(store, blobs, manifests, now))
        return made[-1]

    yield make
    other.gate.set()
    for cache in made:
        cache.blobs.close()


@pytest.fixture
def cache(make_cache: MakeCache) -> Cache:
    return make_cache()


def drain(opened: Opened) -> bytes:
    with contextlib.closing(opened):
        data = b""
        while piece := opened.read(64 << 10):
            data += piece
    return data


def landed(cache: Cache) -> None:
    """Downloads under way have ended."""
    for thread in list(cache.blobs._threads):
        thread.join()


def test_a_manifest_is_asked_for_once(cache: Cache, other: OtherRegistry) -> None:
    body = other.push("v1", LAYER)
    for _ in range(3):
        found = cache.manifests.get("team/app", "v1")
        assert (found.body, found.media_type) == (body, OCI_MANIFEST)
        assert cache.manifests.get("team/app", digest_of(body)).body == body
    assert other.asked("GET", "/manifests/") == 1
    assert other.asked("HEAD", "/manifests/v1") == 1


def test_a_tag_is_asked_for_again_later(cache: Cache, other: OtherRegistry) -> None:
    first = other.push("v1", b"one")
    assert cache.manifests.get("team/app", "v1").body == first
    second = other.push("v1", b"two")
    cache.later(TTL - 1)
    assert cache.manifests.get("team/app", "v1").body == first
    cache.later(2)
    assert cache.manifests.get("team/app", "v1").body == second
    cache.later(TTL + 1)
    assert cache.manifests.get("team/app", "v1").body == second
    assert other.asked("GET", "/manifests/") == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_tag_is_served_while_the_other_registry_is_down(
    cache: Cache, other: OtherRegistry, status: int
) -> None:
    body = other.push("v1", b"one")
    cache.manifests.get("team/app", "v1")
    other.status = status
    cache.later(TTL + 1)
    for _ in range(5):
        assert cache.manifests.get("team/app", "v1").body == body
    assert other.server is not None
    asked = len(other.server.asks)
    assert cache.manifests.get("team/app", "v1").body == body
    assert len(other.server.asks) == asked
    with pytest.raises(Unavailable):
        cache.manifests.get("team/app", "v2")
    other.status = 0
    second = other.push("v1", b"two")
    cache.later(11)
    assert cache.manifests.get("team/app", "v1").body == second


def test_a_tag_that_is_gone(cache: Cache, other: OtherRegistry) -> None:
    body = other.push("v1", b"one")
    cache.manifests.get("team/app", "v1")
    del other.manifests["v1"]
    cache.later(TTL + 1)
    with pytest.raises(ManifestUnknown):
        cache.manifests.get("team/app", "v1")
    assert cache.manifests.get("team/app", digest_of(body)).body == body
    other.status = 500
    with pytest.raises(Unavailable):
        cache.manifests.get("team/app", "v1")


def test_what_the_other_registry_refuses(cache: Cache, other: OtherRegistry) -> None:
    """Its 401 is about the cache's credentials, not the client's."""
    body = other.push("v1", b"one")
    cache.manifests.get("team/app", "v1")
    other.status = 403
    cache.later(TTL + 1)
    with pytest.raises(ManifestUnknown, match="not given to this cache"):
        cache.manifests.get("team/app", "v1")
    with pytest.raises(BlobUnknown, match="not given to this cache"):
        cache.blobs.stat("team/app", digest_of(b"one"))
    other.status = 500
    assert cache.manifests.get("team/app", "v1").body == body


def test_a_wrong_manifest_is_not_kept(cache: Cache, other: OtherRegistry) -> None:
    body = other.push("v1", b"one")
    other.manifests[digest_of(body)] = other.push("v2", b"two")
    with pytest.raises(Unavailable, match="sends what it should not"):
        cache.manifests.get("team/app", digest_of(body))
    other.manifests[digest_of(body)] = body
    assert cache.manifests.get("team/app", digest_of(body)).body == body


def test_a_blob_is_downloaded_once(cache: Cache, other: OtherRegistry) -> None:
    other.push("v1", LAYER)
    digest = digest_of(LAYER)
    assert cache.blobs.stat("team/app", digest).size == len(LAYER)
    assert drain(cache.blobs.open("team/app", digest)) == LAYER
    landed(cache)
    assert drain(cache.blobs.open("team/app", digest)) == LAYER
    assert drain(cache.blobs.open("team/app", digest, 899_990)) == LAYER[-10:]
    assert other.asked("GET", "/blobs/") == other.asked("HEAD", "/blobs/") == 1
    assert not [key for key, _ in cache.store.driver.walk("docker") if "_uploads" in key]


def test_clients_share_a_download(cache: Cache, other: OtherRegistry) -> None:
    other.push("v1", LAYER)
    other.gate.clear()
    offsets = (0, 0, 5, 500_000, len(LAYER) - 1, len(LAYER))
    opened = [cache.blobs.open("team/app", digest_of(LAYER), offset) for offset in offsets]
    got: dict[int, bytes] = {}

    def read(number: int) -> None:
        got[number] = drain(opened[number])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(offsets))]
    for thread in threads:
        thread.start()
    other.gate.set()
    for thread in threads:
        thread.join()
    assert [got[number] for number in range(len(offsets))] == [LAYER[at:] for at in offsets]
    assert all(each.size == len(LAYER) for each in opened)
    assert other.asked("GET", "/blobs/") == 1


def test_bytes_go_on_before_all_have_come(cache: Cache, other: OtherRegistry) -> None:
    other.push("v1", LAYER)
    other.change = lambda reply: dataclasses.replace(reply, hang=800_000)
    opened = cache.blobs.open("team/app", digest_of(LAYER))
    assert LAYER.startswith(opened.read(1 << 20))
    opened.close()
    cache.blobs.close()
    assert not [key for key, _ in cache.store.driver.walk("docker") if "_uploads" in key]


def test_a_connection_that_breaks_is_made_again(cache: Cache, other: OtherRegistry) -> None:
    other.push("v1", LAYER)
    other.change = lambda reply: dataclasses.replace(reply, cut=500_000)
    assert drain(cache.blobs.open("team/app", digest_of(LAYER))) == LAYER
    landed(cache)
    assert cache.store.blobs.stat("team/app", digest_of(LAYER)).size == len(LAYER)


def test_a_wrong_blob_reaches_nobody_whole(cache: Cache, other: OtherRegistry) -> None:
    other.push("v1", LAYER)
    wrong = LAYER[:-1] + bytes([LAYER[-1] ^ 1])
    other.blobs[digest_of(LAYER)] = wrong
    opened = cache.blobs.open("team/app", digest_of(LAYER))
    got = b""
    with pytest.raises(Unavailable, match="broke off"), contextlib.closing(opened):
        while piece := opened.read(64 << 10):
            got += piece
    assert len(got) < len(LAYER)
    landed(cache)
    with pytest.raises(BlobUnknown):
        cache.store.blobs.stat("team/app", digest_of(LAYER))
    assert not [key for key, _ in cache.store.driver.walk("docker") if "_uploads" in key]
    other.blobs[digest_of(LAYER)] = LAYER
    assert drain(cache.blobs.open("team/app", digest_of(LAYER))) == LAYER


def test_what_is_nowhere(cache: Cache, other: OtherRegistry) -> None:
    digest = digest_of(b"none")
    for attempt in (cache.blobs.stat, cache.blobs.open):
        with pytest.raises(BlobUnknown):
            attempt("team/app", digest)
    for reference in ("none", digest):
        with pytest.raises(ManifestUnknown):
            cache.manifests.get("team/app", reference)
    with pytest.raises(NameUnknown):
        cache.manifests.tags("team/none")
    assert cache.blobs.location("team/app", digest) is None


def test_a_blob_of_another_repository_is_taken_over(cache: Cache, other: OtherRegistry) -> None:
    """Only if the other registry has it there too."""
    other.push("v1", LAYER)
    drain(cache.blobs.open("team/app", digest_of(LAYER)))
    landed(cache)
    assert drain(cache.blobs.open("team/other", digest_of(LAYER))) == LAYER
    with pytest.raises(BlobUnknown):
        cache.blobs.open("team/third", digest_of(LAYER))
    assert other.asked("GET", "/blobs/") == 1


def test_a_full_cache_passes_on(make_cache: MakeCache, other: OtherRegistry) -> None:
    cache = make_cache(Limits(total=10_000))
    body = other.push("v1", LAYER, b"small")
    assert drain(cache.blobs.open("team/app", digest_of(LAYER))) == LAYER
    assert drain(cache.blobs.open("team/app", digest_of(LAYER), 10)) == LAYER[10:]
    assert drain(cache.blobs.open("team/app", digest_of(b"small"))) == b"small"
    assert cache.manifests.get("team/app", "v1").body == body
    landed(cache)
    used = cache.store.usage.used()
    assert used is not None and used < 10_000
    tiny = make_cache(Limits(total=1))
    assert tiny.manifests.get("team/app", digest_of(other.push("v2", b"x"))).body


def test_tags_and_referrers(cache: Cache, other: OtherRegistry) -> None:
    body = other.push("v2", b"one")
    other.push("v1", b"one")
    cache.manifests.get("team/app", "v1")
    page = cache.manifests.tags("team/app", limit=1)
    assert (page.names, page.more) == (["v1"], True)
    assert cache.manifests.tags("team/app", last="v1").names == ["v2"]
    assert cache.manifests.referrers("team/app", digest_of(body)) == []
    other.status = 503
    assert cache.manifests.tags("team/app").names == ["v1"]
    assert cache.manifests.referrers("team/app", digest_of(body)) == []


def test_it_takes_no_pushes(cache: Cache) -> None:
    uploads, digest = NoUploads(), "sha256:" + hashlib.sha256().hexdigest()
    for attempt in (
        lambda: uploads.begin("a/b"), lambda: uploads.offset("a/b", ""),
        lambda: uploads.append("a/b", ""), lambda: uploads.finish("a/b", "", digest),
        lambda: uploads.cancel("a/b", ""), lambda: cache.blobs.delete("a/b", digest),
        lambda: cache.blobs.mount("a/b", digest, source="c"),
        lambda: cache.manifests.put("a/b", b"", ""),
        lambda: cache.manifests.delete("a/b", "v1"),
    ):  # fmt: skip
        with pytest.raises(ReadOnly, match="push and delete there"):
            attempt()
