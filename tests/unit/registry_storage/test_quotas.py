"""Limits on stored bytes: refused before anything is stored, true after a restart."""

from __future__ import annotations

import pytest
from tests.unit.registry_storage.conftest import MakeDriver
from tests.unit.registry_storage.pushing import manifest, push_blob, push_image

from estiba.model.digest import digest_of
from estiba.registry.storage import keys
from estiba.registry.storage.documents import OCI_MANIFEST
from estiba.registry.storage.errors import BlobUnknown, QuotaExceeded, UploadUnknown
from estiba.registry.storage.quota import Limits
from estiba.registry.storage.store import Store

KIB = 1024


def blobs(store: Store) -> int:
    return sum(stat.size for _, stat in store.driver.walk(keys.BLOBS))


def test_a_registry_that_is_full(make_driver: MakeDriver) -> None:
    store = Store(make_driver(), limits=Limits(total=10 * KIB))
    push_blob(store, "a/b", b"x" * 6 * KIB)
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload) as writer:
        writer.write(b"y" * 3 * KIB)
        with pytest.raises(QuotaExceeded, match="the registry may hold 10240 bytes and holds 6144"):
            writer.write(b"y" * 2 * KIB)
    with pytest.raises(UploadUnknown):
        store.uploads.offset("a/b", upload)
    assert not [key for key, _ in store.driver.walk(keys.ROOT) if "_uploads" in key]
    assert store.usage.used() == blobs(store) == 6 * KIB
    push_blob(store, "a/c", b"z" * 4 * KIB)
    with pytest.raises(QuotaExceeded) as caught:
        push_blob(store, "a/c", b"!")
    assert (caught.value.code, caught.value.status) == ("DENIED", 413)
    assert store.usage.used() == blobs(store) == 10 * KIB


def test_what_is_there_already_costs_nothing(make_driver: MakeDriver) -> None:
    store = Store(make_driver(), limits=Limits(total=10 * KIB))
    digest = push_blob(store, "a/b", b"x" * 5 * KIB)
    push_blob(store, "a/c", b"x" * 5 * KIB)
    assert store.usage.used() == 5 * KIB
    assert store.blobs.mount("a/d", digest, source="a/b") is not None
    assert store.usage.used() == 5 * KIB


def test_uploads_under_way_count(make_driver: MakeDriver) -> None:
    store = Store(make_driver(), limits=Limits(total=10 * KIB))
    first, second = store.uploads.begin("a/b"), store.uploads.begin("a/b")
    with store.uploads.append("a/b", first) as writer:
        writer.write(b"x" * 6 * KIB)
    with (
        store.uploads.append("a/b", second) as writer,
        pytest.raises(QuotaExceeded),
    ):
        writer.write(b"y" * 6 * KIB)
    store.uploads.cancel("a/b", first)
    push_blob(store, "a/b", b"y" * 6 * KIB)


def test_a_prefix_has_a_limit_of_its_own(make_driver: MakeDriver) -> None:
    limits = Limits(prefixes={"team": 5 * KIB, "team/small": KIB})
    store = Store(make_driver(), limits=limits)
    digest = push_blob(store, "other/app", b"x" * 6 * KIB)
    push_blob(store, "teams/app", b"x" * 6 * KIB)
    with pytest.raises(QuotaExceeded, match="repositories below team may hold 5120 bytes"):
        store.blobs.mount("team/app", digest, source="other/app")
    with pytest.raises(BlobUnknown):
        store.blobs.stat("team/app", digest)
    with pytest.raises(QuotaExceeded, match="below team/small"):
        push_blob(store, "team/small", b"y" * 2 * KIB)
    same = push_blob(store, "team/one", b"z" * 4 * KIB)
    assert store.blobs.mount("team/two", same, source="team/one") is not None
    assert store.usage.used("team") == 4 * KIB
    store.blobs.delete("team/one", same)
    assert store.usage.used("team") == 4 * KIB
    store.blobs.delete("team/two", same)
    assert store.usage.used("team") == 0
    push_blob(store, "team/one", b"!" * 5 * KIB)


def test_manifests_count(make_driver: MakeDriver) -> None:
    store = Store(make_driver(), limits=Limits(total=KIB, prefixes={"a": KIB}))
    push_blob(store, "a/b", b"{}")
    body = manifest(b"{}", annotations={"long": "x" * KIB})
    with pytest.raises(QuotaExceeded):
        store.manifests.put("a/b", body, OCI_MANIFEST, tag="v1")
    assert store.manifests.tags("a/b").names == []
    assert store.usage.used() == store.usage.used("a") == blobs(store) == 2


def test_the_count_is_the_same_after_a_restart(make_driver: MakeDriver) -> None:
    limits = Limits(total=100 * KIB, prefixes={"a": 100 * KIB, "a/b": 100 * KIB, "c": KIB})
    store = Store(make_driver(), limits=limits, grace=0)
    digest = push_image(store, "a/b", "v1", b"x" * KIB, b"y" * KIB)
    push_image(store, "a", "v1", b"x" * KIB)
    push_image(store, "b", "v1", b"z" * KIB)
    unused = push_blob(store, "a/b", b"unused")
    counts = [store.usage.used(prefix) for prefix in ("", "a", "a/b", "c")]
    assert counts[0] == blobs(store)
    assert counts[3] == 0
    again = Store(make_driver(), limits=limits, grace=0)
    assert [again.usage.used(prefix) for prefix in ("", "a", "a/b", "c")] == counts
    again.manifests.delete("a/b", digest)
    again.collect(alone=True)
    assert again.usage.used() == blobs(again)
    third = Store(make_driver(), limits=limits)
    for prefix in ("", "a", "a/b", "c"):
        assert third.usage.used(prefix) == again.usage.used(prefix)
    assert third.usage.used("a/b") == 0
    assert unused != digest_of(b"")


def test_a_count_beside_pushes_is_right(make_driver: MakeDriver) -> None:
    """What is stored and removed while the count goes on."""
    store = Store(make_driver(), limits=Limits(total=100 * KIB, prefixes={"a": 100 * KIB}))
    gone = push_blob(store, "a/b", b"gone")
    with store.usage.counting():
        store.usage.unlinked("a/b", gone)
        store.usage.blob_removed(gone)
        store.usage.found_link("a/b", gone, 4)
        store.usage.found_blob(gone, 4)
        push_blob(store, "a/b", b"new one")
        assert store.usage.used() == 7
    assert store.usage.used() == store.usage.used("a") == 7


def test_a_count_that_fails_changes_nothing(make_driver: MakeDriver) -> None:
    store = Store(make_driver(), limits=Limits(total=100 * KIB))
    push_blob(store, "a/b", b"four")
    with pytest.raises(OSError), store.usage.counting():
        raise OSError
    assert store.usage.used() == 4
