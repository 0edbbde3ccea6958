"""Blobs, uploads, manifests, tags, referrers and the catalog, on files and in S3."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid

import pytest
from tests.unit.registry_storage.conftest import MakeDriver
from tests.unit.registry_storage.pushing import (
    descriptor,
    index,
    manifest,
    push_blob,
    push_image,
    read_blob,
)

from estiba.model.digest import digest_of
from estiba.registry.storage import keys
from estiba.registry.storage.documents import OCI_INDEX, OCI_MANIFEST
from estiba.registry.storage.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    OffsetInvalid,
    UploadInvalid,
    UploadUnknown,
)
from estiba.registry.storage.ports import Registry
from estiba.registry.storage.store import Store


def test_it_is_what_a_server_serves(store: Store) -> None:
    """The Protocols fit; mypy does not see tests."""
    assert isinstance(store.registry, Registry)


def test_a_blob_comes_back(store: Store) -> None:
    data = os.urandom(100_000)
    digest = push_blob(store, "team/app", data)
    assert store.blobs.stat("team/app", digest).size == len(data)
    assert read_blob(store, "team/app", digest) == data
    assert store.blobs.open("team/app", digest, 99_000).read(2000) == data[99_000:]
    assert store.blobs.location("team/app", digest) is None


def test_a_blob_belongs_to_its_repository(store: Store) -> None:
    digest = push_blob(store, "team/app", b"x")
    for attempt in (store.blobs.stat, store.blobs.open, store.blobs.delete):
        with pytest.raises(BlobUnknown) as caught:
            attempt("team/other", digest)
        assert caught.value.code == "BLOB_UNKNOWN"
    assert store.blobs.mount("team/third", digest, source="team/other") is None
    mounted = store.blobs.mount("team/other", digest, source="team/app")
    assert mounted is not None and mounted.size == 1
    store.blobs.delete("team/app", digest)
    with pytest.raises(BlobUnknown):
        store.blobs.stat("team/app", digest)
    assert read_blob(store, "team/other", digest) == b"x"


def test_an_upload_in_chunks(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    assert store.uploads.offset("a/b", upload) == 0
    with store.uploads.append("a/b", upload, offset=0) as writer:
        writer.write(b"abc")
        writer.write(memoryview(b"def"))
        assert writer.offset == 6
    assert store.uploads.offset("a/b", upload) == 6
    for wrong in (0, 5, 7):
        with pytest.raises(OffsetInvalid) as caught:
            store.uploads.append("a/b", upload, offset=wrong)
        assert caught.value.offset == 6
    with store.uploads.append("a/b", upload) as writer:
        writer.write(b"ghi")
    digest = digest_of(b"abcdefghi")
    assert store.uploads.finish("a/b", upload, digest).size == 9
    assert read_blob(store, "a/b", digest) == b"abcdefghi"
    with pytest.raises(UploadUnknown):
        store.uploads.offset("a/b", upload)


def test_an_empty_blob(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    assert store.uploads.finish("a/b", upload, digest_of(b"")).size == 0
    assert read_blob(store, "a/b", digest_of(b"")) == b""


def test_an_upload_goes_on_after_a_restart(make_driver: MakeDriver) -> None:
    store = Store(make_driver())
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload, offset=0) as writer:
        writer.write(b"x" * 1000)
    store = Store(make_driver())
    assert store.uploads.offset("a/b", upload) == 1000
    with store.uploads.append("a/b", upload, offset=1000) as writer:
        writer.write(b"y" * 1000)
    digest = digest_of(b"x" * 1000 + b"y" * 1000)
    store = Store(make_driver())
    assert store.uploads.finish("a/b", upload, digest).size == 2000
    assert read_blob(store, "a/b", digest) == b"x" * 1000 + b"y" * 1000


def test_another_digest_than_promised(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload) as writer:
        writer.write(b"abc")
    promised = digest_of(b"abd")
    with pytest.raises(DigestInvalid, match="send it again"):
        store.uploads.finish("a/b", upload, promised)
    with pytest.raises(UploadUnknown):
        store.uploads.offset("a/b", upload)
    for digest in (promised, digest_of(b"abc")):
        with pytest.raises(BlobUnknown):
            store.blobs.stat("a/b", digest)


def test_sha512(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload) as writer:
        writer.write(b"abc")
    digest = "sha512:" + hashlib.sha512(b"abc").hexdigest()
    store.uploads.finish("a/b", upload, digest)
    assert read_blob(store, "a/b", digest) == b"abc"


def test_links_that_docker_registry_wrote_for_sha512(store: Store) -> None:
    """It keeps such a blob by its sha256, and the link says so."""
    push_blob(store, "a/b", b"abc")
    digest = "sha512:" + hashlib.sha512(b"abc").hexdigest()
    store.driver.write(keys.layer_link("a/b", digest), digest_of(b"abc").encode())
    assert read_blob(store, "a/b", digest) == b"abc"
    assert store.blobs.stat("a/b", digest).size == 3
    store.driver.write(keys.layer_link("a/b", digest), b"sha256:../../../etc/passwd")
    with pytest.raises(BlobUnknown):
        store.blobs.open("a/b", digest)


def test_uploads_that_are_not_there(store: Store) -> None:
    mine = store.uploads.begin("a/b")
    for repository, upload in (
        ("a/b", str(uuid.uuid4())), ("a/c", mine), ("a/b", "../x"), ("a/b", ""),
    ):  # fmt: skip
        for attempt in (
            lambda r, u: store.uploads.offset(r, u), lambda r, u: store.uploads.append(r, u),
            lambda r, u: store.uploads.cancel(r, u),
            lambda r, u: store.uploads.finish(r, u, digest_of(b"")),
        ):  # fmt: skip
            with pytest.raises(UploadUnknown):
                attempt(repository, upload)


def test_an_upload_is_cancelled(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload) as writer:
        writer.write(b"abc")
    store.uploads.cancel("a/b", upload)
    with pytest.raises(UploadUnknown):
        store.uploads.offset("a/b", upload)
    assert list(store.driver.walk("docker")) == []


def test_two_requests_for_one_upload(store: Store) -> None:
    upload = store.uploads.begin("a/b")
    with store.uploads.append("a/b", upload):
        for attempt in (
            lambda: store.uploads.append("a/b", upload),
            lambda: store.uploads.finish("a/b", upload, digest_of(b"")),
            lambda: store.uploads.cancel("a/b", upload),
        ):
            with pytest.raises(UploadInvalid, match="another request"):
                attempt()
    store.uploads.cancel("a/b", upload)


def test_many_uploads_of_one_digest_at_once(store: Store) -> None:
    data = os.urandom(300_000)
    failures: list[BaseException] = []
    together = threading.Barrier(6)

    def push(number: int) -> None:
        try:
            upload = store.uploads.begin(f"a/{number % 2}")
            with store.uploads.append(f"a/{number % 2}", upload) as writer:
                writer.write(data)
            together.wait(30)
            store.uploads.finish(f"a/{number % 2}", upload, digest_of(data))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert read_blob(store, "a/0", digest_of(data)) == data
    assert read_blob(store, "a/1", digest_of(data)) == data
    assert not [key for key, _ in store.driver.walk("docker") if "_uploads" in key]


def test_a_manifest_by_tag_and_digest(store: Store) -> None:
    digest = push_image(store, "team/app", "v1", b"layer")
    for reference in ("v1", digest):
        found = store.manifests.get("team/app", reference)
        assert (found.digest, found.media_type) == (digest, OCI_MANIFEST)
        assert digest_of(found.body) == digest
    second = push_image(store, "team/app", "v1", b"other")
    assert store.manifests.get("team/app", "v1").digest == second
    assert store.manifests.get("team/app", digest).digest == digest
    for repository, reference in (("team/app", "v2"), ("team/x", "v1"), ("team/x", digest)):
        with pytest.raises(ManifestUnknown):
            store.manifests.get(repository, reference)


def test_what_a_manifest_refers_to_must_be_there(store: Store) -> None:
    push_blob(store, "a/b", b"{}")
    push_blob(store, "a/other", b"layer")
    body = manifest(b"{}", b"layer")
    with pytest.raises(ManifestBlobUnknown) as caught:
        store.manifests.put("a/b", body, OCI_MANIFEST, tag="v1")
    assert caught.value.detail["digest"] == digest_of(b"layer")
    with pytest.raises(ManifestBlobUnknown):
        store.manifests.put("a/b", index(body), OCI_INDEX, tag="v1")
    with pytest.raises(NameUnknown):
        store.manifests.tags("a/none")
    assert store.manifests.tags("a/b").names == []
    push_blob(store, "a/b", b"layer")
    store.manifests.put("a/b", body, OCI_MANIFEST)
    store.manifests.put("a/b", index(body), OCI_INDEX, tag="v1")
    assert store.manifests.get("a/b", "v1").media_type == OCI_INDEX


def test_a_manifest_of_another_digest_is_not_stored(store: Store) -> None:
    push_blob(store, "a/b", b"{}")
    body = manifest(b"{}")
    with pytest.raises(DigestInvalid):
        store.manifests.put("a/b", body, OCI_MANIFEST, digest=digest_of(b"x"))
    with pytest.raises(ManifestUnknown):
        store.manifests.get("a/b", digest_of(body))
    long = "sha512:" + hashlib.sha512(body).hexdigest()
    assert store.manifests.put("a/b", body, OCI_MANIFEST, digest=long).digest == long
    assert store.manifests.get("a/b", long).body == body


def test_unknown_media_types_are_kept(make_driver: MakeDriver) -> None:
    store = Store(make_driver())
    body = b'{"hello": "world"}'
    digest = store.manifests.put("a/b", body, "application/x.hello+json", tag="x").digest
    assert Store(make_driver()).manifests.get("a/b", digest).media_type == (
        "application/x.hello+json"
    )


def test_deleting_a_tag_keeps_the_manifest(store: Store) -> None:
    digest = push_image(store, "a/b", "v1", b"layer")
    assert store.manifests.delete("a/b", "v1") == digest
    with pytest.raises(ManifestUnknown):
        store.manifests.get("a/b", "v1")
    assert store.manifests.get("a/b", digest).digest == digest
    with pytest.raises(ManifestUnknown):
        store.manifests.delete("a/b", "v1")


def test_deleting_a_manifest_takes_its_tags(store: Store) -> None:
    digest = push_image(store, "a/b", "v1", b"layer")
    store.manifests.put("a/b", store.manifests.get("a/b", digest).body, OCI_MANIFEST, tag="v2")
    other = push_image(store, "a/b", "v3", b"other")
    push_image(store, "a/c", "v1", b"layer")
    assert store.manifests.delete("a/b", digest) == digest
    for reference in ("v1", "v2", digest):
        with pytest.raises(ManifestUnknown):
            store.manifests.get("a/b", reference)
    assert store.manifests.tags("a/b").names == ["v3"]
    assert store.manifests.get("a/b", "v3").digest == other
    assert store.manifests.get("a/c", "v1").digest == digest


def test_tags_come_sorted_in_pages(store: Store) -> None:
    body = store.manifests.get("a/b", push_image(store, "a/b", "v10", b"layer")).body
    for tag in ("v1", "v1-x", "v2", "V3", "_x"):
        store.manifests.put("a/b", body, OCI_MANIFEST, tag=tag)
    every = ["V3", "_x", "v1", "v1-x", "v10", "v2"]
    assert store.manifests.tags("a/b").names == every
    page = store.manifests.tags("a/b", limit=2)
    assert (page.names, page.more) == (every[:2], True)
    page = store.manifests.tags("a/b", limit=4, last="_x")
    assert (page.names, page.more) == (every[2:], False)
    assert store.manifests.tags("a/b", limit=0).names == []
    assert store.manifests.tags("a/b", last="zz").names == []


def test_the_catalog_in_pages(store: Store) -> None:
    every = ["a", "a/b", "a/b/c", "a/d", "a-b", "b/x/y/z", "c"]
    for name in every:
        push_image(store, name, "v1", b"layer")
    push_blob(store, "only/blobs", b"x")
    store.uploads.begin("only/uploads")
    assert store.catalog.repositories(limit=100).names == every
    assert not store.catalog.repositories(limit=100).more
    for size in range(1, 8):
        found: list[str] = []
        while True:
            page = store.catalog.repositories(limit=size, last=found[-1] if found else "")
            found += page.names
            if not page.more:
                break
        assert found == every
    assert store.catalog.repositories(limit=9, last="a/c").names == every[3:]
    assert store.catalog.repositories(limit=9, last="zzz").names == []
    assert store.catalog.size("a") == len(b"layer") + len(
        json.dumps({"layers": [digest_of(b"layer")]})
    )


def test_referrers(store: Store) -> None:
    subject = push_image(store, "a/b", "v1", b"layer")
    target = descriptor(store.manifests.get("a/b", subject).body, OCI_MANIFEST)
    assert store.manifests.referrers("a/b", subject) == []
    push_blob(store, "a/b", b"{}")
    signature = manifest(
        b"{}", subject=target, artifactType="application/x.sig", annotations={"by": "me"}
    )
    put = store.manifests.put("a/b", signature, OCI_MANIFEST)
    assert put.subject == subject
    plain = manifest(b"{}", subject=target)
    store.manifests.put("a/b", plain, OCI_MANIFEST)
    found = {each["digest"]: each for each in store.manifests.referrers("a/b", subject)}
    assert found[put.digest] == {
        "mediaType": OCI_MANIFEST,
        "digest": put.digest,
        "size": len(signature),
        "artifactType": "application/x.sig",
        "annotations": {"by": "me"},
    }
    assert found[digest_of(plain)]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    assert store.manifests.referrers("a/other", subject) == []
    store.manifests.delete("a/b", put.digest)
    assert [e["digest"] for e in store.manifests.referrers("a/b", subject)] == [digest_of(plain)]


def test_referrers_before_their_subject(store: Store) -> None:
    later = digest_of(b"later")
    push_blob(store, "a/b", b"{}")
    target = {"mediaType": OCI_MANIFEST, "digest": later, "size": 5}
    store.manifests.put("a/b", manifest(b"{}", subject=target), OCI_MANIFEST)
    assert len(store.manifests.referrers("a/b", later)) == 1


def test_referrers_that_nobody_indexed_are_found(make_driver: MakeDriver) -> None:
    """As docker-registry leaves them."""
    store = Store(make_driver())
    subject = push_image(store, "a/b", "v1", b"layer")
    target = descriptor(store.manifests.get("a/b", subject).body, OCI_MANIFEST)
    push_blob(store, "a/b", b"{}")
    store.manifests.put("a/b", manifest(b"{}", subject=target), OCI_MANIFEST)
    store.driver.delete_tree("docker/registry/v2/repositories/a/b/_referrers")
    assert len(Store(make_driver()).manifests.referrers("a/b", subject)) == 1


def test_another_size_than_the_manifest_says(store: Store) -> None:
    push_blob(store, "a/b", b"{}")
    body = manifest(b"{}").replace(b'"size": 2', b'"size": 3')
    with pytest.raises(ManifestInvalid, match="has 3 bytes, it has 2"):
        store.manifests.put("a/b", body, OCI_MANIFEST, tag="v1")
    with pytest.raises(ManifestUnknown):
        store.manifests.get("a/b", digest_of(body))
