"""Garbage collection beside pushes, and of a registry that stands still."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.unit.registry_storage.conftest import HOUR, Clock, stored
from tests.unit.registry_storage.pushing import (
    descriptor,
    index,
    manifest,
    push_blob,
    push_image,
    read_blob,
)

from estiba.model.digest import Digest, digest_of
from estiba.model.errors import Cancelled
from estiba.registry.storage import keys
from estiba.registry.storage.collection import PeriodicCollection, Report
from estiba.registry.storage.documents import DOCKER_V1, OCI_INDEX, OCI_MANIFEST
from estiba.registry.storage.errors import BlobUnknown, ManifestUnknown, UploadUnknown
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.ports import Driver
from estiba.registry.storage.store import Store


def there(store: Store, repository: str, digest: Digest) -> bool:
    """By its link alone, which is no use of it."""
    return any(
        key == keys.layer_link(repository, digest)
        for key, _ in store.driver.walk(keys.layers(repository))
    )


def test_an_image_with_a_tag_stays(store: Store, clock: Clock) -> None:
    digest = push_image(store, "a/b", "v1", b"layer")
    clock.ahead = 1000 * HOUR
    report = store.collect(delete_untagged=True)
    assert (report.repositories, report.manifests, report.blobs_kept) == (1, 1, 3)
    assert report.blobs_doomed == report.links_deleted == report.manifests_deleted == 0
    assert store.manifests.get("a/b", "v1").digest == digest
    assert read_blob(store, "a/b", digest_of(b"layer")) == b"layer"


def test_what_nothing_refers_to_goes_in_two_steps(store: Store, clock: Clock) -> None:
    blob = push_blob(store, "a/b", b"garbage")
    assert store.collect().links_deleted == 0
    clock.ahead = 11 * HOUR
    report = store.collect()
    assert (report.links_deleted, report.blobs_doomed, report.blobs_deleted) == (1, 1, 0)
    with pytest.raises(BlobUnknown):
        store.blobs.stat("a/b", blob)
    assert stored(store) == set()
    clock.ahead = 22 * HOUR
    report = store.collect()
    assert (report.blobs_deleted, report.bytes_deleted) == (1, 7)
    assert list(store.driver.walk("estiba/doomed")) == []
    assert list(store.driver.walk("docker")) == []


def test_alone_it_goes_at_once(store: Store, clock: Clock) -> None:
    push_blob(store, "a/b", b"garbage")
    push_blob(store, "a/c", b"more")
    clock.ahead = 11 * HOUR
    store.collect()
    report = store.collect(alone=True)
    assert report.blobs_deleted == 2
    assert list(store.driver.walk("estiba/doomed")) == []
    push_blob(store, "a/b", b"garbage")
    clock.ahead = 30 * HOUR
    assert store.collect(alone=True).bytes_deleted == 7


def test_the_layers_of_a_deleted_manifest_go(store: Store, clock: Clock) -> None:
    digest = push_image(store, "a/b", "v1", b"shared", b"own")
    push_image(store, "a/b", "v2", b"shared")
    push_image(store, "a/c", "v1", b"own")
    store.manifests.delete("a/b", digest)
    clock.ahead = 11 * HOUR
    store.collect()
    assert there(store, "a/b", digest_of(b"shared"))
    assert not there(store, "a/b", digest_of(b"own"))
    assert read_blob(store, "a/c", digest_of(b"own")) == b"own"
    assert digest not in stored(store)


@pytest.mark.parametrize(("hours", "renewed"), [(4, False), (6, True)])
def test_whoever_asks_for_a_blob_keeps_it(
    store: Store, clock: Clock, hours: int, renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client asks, gets a yes, pushes other layers for hours, then the manifest."""
    digest = push_blob(store, "a/b", b"base")
    clock.ahead = hours * HOUR
    written: list[str] = []
    write = type(store.driver).write

    def spy(driver: Driver, key: str, data: bytes) -> None:
        written.append(key)
        write(driver, key, data)

    monkeypatch.setattr(type(store.driver), "write", spy)
    assert store.blobs.stat("a/b", digest).size == 4
    assert written == ([keys.layer_link("a/b", digest)] if renewed else [])


def test_where_nothing_can_be_written_one_can_read(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = push_blob(store, "a/b", b"base")
    clock.ahead = 6 * HOUR

    def refuse(driver: Driver, key: str, data: bytes) -> None:
        raise PermissionError(key)

    monkeypatch.setattr(type(store.driver), "write", refuse)
    assert store.blobs.stat("a/b", digest).size == 4


def test_uploads_expire(store: Store, clock: Clock) -> None:
    old = store.uploads.begin("a/b")
    with store.uploads.append("a/b", old) as writer:
        writer.write(b"x")
    busy = store.uploads.begin("a/b")
    clock.ahead = 9 * HOUR
    assert store.collect().uploads_expired == 0
    clock.ahead = 11 * HOUR
    with store.uploads.append("a/b", busy):
        assert store.collect().uploads_expired == 1
    with pytest.raises(UploadUnknown):
        store.uploads.offset("a/b", old)
    assert store.uploads.offset("a/b", busy) == 0


def test_untagged_manifests_only_when_asked(store: Store, clock: Clock) -> None:
    tagged = push_image(store, "a/b", "v1", b"one")
    untagged = push_image(store, "a/b", None, b"two")
    clock.ahead = 9 * HOUR
    assert store.collect(delete_untagged=True).manifests_deleted == 0
    clock.ahead = 11 * HOUR
    assert store.collect().manifests_deleted == 0
    assert store.collect(delete_untagged=True).manifests_deleted == 1
    with pytest.raises(ManifestUnknown):
        store.manifests.get("a/b", untagged)
    assert store.manifests.get("a/b", "v1").digest == tagged
    assert not there(store, "a/b", digest_of(b"two"))


def test_what_a_tag_leads_to_is_not_untagged(store: Store, clock: Clock) -> None:
    """Platforms of an index, and signatures of both, have no tags of their own."""
    child = push_image(store, "a/b", None, b"one")
    body = store.manifests.get("a/b", child).body
    parent = store.manifests.put("a/b", index(body), OCI_INDEX, tag="v1").digest
    push_blob(store, "a/b", b"{}")
    kept = {child, parent}
    for subject, kind in ((body, OCI_MANIFEST), (index(body), OCI_INDEX)):
        signature = manifest(b"{}", subject=descriptor(subject, kind))
        kept.add(store.manifests.put("a/b", signature, OCI_MANIFEST).digest)
    stray = manifest(b"{}", subject={"mediaType": "x", "size": 1, "digest": digest_of(b"?")})
    store.manifests.put("a/b", stray, OCI_MANIFEST)
    clock.ahead = 11 * HOUR
    assert store.collect(delete_untagged=True).manifests_deleted == 1
    for digest in kept:
        store.manifests.get("a/b", digest)
    assert len(store.manifests.referrers("a/b", child)) == 1
    assert store.manifests.referrers("a/b", digest_of(b"?")) == []


def test_manifests_that_it_does_not_understand_keep_what_they_name(
    store: Store, clock: Clock
) -> None:
    """docker-registry took manifests of version 1, and takes types that are unknown here."""
    one, two = push_blob(store, "a/b", b"one"), push_blob(store, "a/b", b"two")
    bodies = (
        b'{"schemaVersion": 1, "fsLayers": [{"blobSum": "%s"}]}' % one.encode(),
        b'{"schemaVersion": 2, "layers": {"strange": "%s"}}' % two.encode(),
    )
    for body in bodies:
        store.driver.write(keys.blob(digest_of(body)), body)
        key = keys.revision_link("a/b", digest_of(body))
        store.driver.write(key, digest_of(body).encode())
    clock.ahead = 11 * HOUR
    assert store.collect().links_deleted == 0
    assert store.manifests.get("a/b", digest_of(bodies[0])).media_type == DOCKER_V1
    assert store.manifests.get("a/b", digest_of(bodies[1])).media_type == OCI_MANIFEST


def test_a_damaged_link_stops_nothing(store: Store, clock: Clock) -> None:
    push_image(store, "a/b", "v1", b"layer")
    store.driver.write(f"{keys.layers('a/b')}/sha256/nonsense/link", b"nonsense")
    store.driver.write(keys.layer_link("a/b", digest_of(b"gone")), b"")
    store.driver.write(f"{keys.BLOBS}/sha256/ab/nonsense/data", b"")
    clock.ahead = 11 * HOUR
    assert store.collect().links_deleted == 1
    assert read_blob(store, "a/b", digest_of(b"layer")) == b"layer"


def test_a_repository_behind_a_symlink_ends_it(tmp_path: Path, clock: Clock) -> None:
    """Its blobs must not count as garbage because it cannot be read."""
    store = Store(FileDriver(tmp_path / "root"), grace=10 * HOUR, clock=clock)
    push_image(store, "a/b", "v1", b"layer")
    push_image(store, "c", "v1", b"other")
    moved = tmp_path / "elsewhere"
    place = tmp_path / "root/docker/registry/v2/repositories/a/b"
    place.rename(moved)
    place.symlink_to(moved)
    clock.ahead = 11 * HOUR
    with pytest.raises(OSError, match="symbolic links"):
        store.collect(alone=True)
    place.unlink()
    moved.rename(place)
    assert read_blob(store, "a/b", digest_of(b"layer")) == b"layer"
    store.close()


def test_a_collection_can_be_stopped(store: Store) -> None:
    push_image(store, "a/b", "v1", b"layer")
    with pytest.raises(Cancelled):
        store.collect(lambda: True)


def test_a_report_is_one_line() -> None:
    assert str(Report(repositories=1, bytes_deleted=7)) == (
        "1 repositories, 0 manifests, 0 uploads expired, 0 manifests deleted, 0 links deleted, "
        "0 blobs kept, 0 blobs doomed, 0 blobs deleted, 7 bytes deleted"
    )


def test_collections_come_again_until_stopped() -> None:
    ran = threading.Semaphore(0)

    def collect(stopped: object) -> Report:
        ran.release()
        raise OSError("the first one fails")

    periodic = PeriodicCollection(collect, 0.001)
    periodic.start()
    for _ in range(3):
        assert ran.acquire(timeout=30)
    periodic.stop()
