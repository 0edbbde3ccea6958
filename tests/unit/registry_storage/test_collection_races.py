"""Garbage collection and pushes at the same moment."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from tests.unit.registry_storage.conftest import HOUR, Clock, stored
from tests.unit.registry_storage.pushing import (
    manifest,
    push_blob,
    push_image,
    read_blob,
)

from estiba.model.digest import digest_of
from estiba.registry.storage import keys
from estiba.registry.storage.collection import Collection, Report
from estiba.registry.storage.documents import OCI_MANIFEST
from estiba.registry.storage.errors import BlobUnknown
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.store import Store


class Midway(Collection):
    """Something happens between mark and sweep."""

    def _sweep_blobs(self) -> None:
        midway()
        super()._sweep_blobs()


def midway() -> None:
    """Replaced by the tests."""


def between(store: Store, what: object, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(f"{__name__}.midway", what)
    return Midway(store.manifests, store.uploads).run()


def test_a_mount_between_mark_and_sweep(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link was there when marking; the blob is doomed, and comes back when it is used."""
    data = b"layer"
    push_blob(store, "a/b", data)
    store.blobs.delete("a/b", digest_of(data))
    clock.ahead = 11 * HOUR

    def link() -> None:
        # As another instance would: no lock is shared.
        store.driver.write(keys.layer_link("a/c", digest_of(data)), digest_of(data).encode())

    report = between(store, link, monkeypatch)
    assert report.blobs_doomed == 1
    assert stored(store) == set()
    assert read_blob(store, "a/c", digest_of(data)) == data
    assert stored(store) == {digest_of(data)}
    assert list(store.driver.walk("estiba/doomed")) == []


def test_a_doomed_blob_with_a_link_comes_back_by_itself(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"layer"
    push_image(store, "a/x", "v1", b"other")
    push_blob(store, "a/b", data)
    store.blobs.delete("a/b", digest_of(data))
    clock.ahead = 11 * HOUR
    between(
        store,
        lambda: store.driver.write(
            keys.layer_link("a/c", digest_of(data)), digest_of(data).encode()
        ),
        monkeypatch,
    )
    assert digest_of(data) not in stored(store)
    # Its link is young by then: what it is asked for is what a manifest does.
    body = manifest(data)
    store.driver.write(keys.blob(digest_of(body)), body)
    key = keys.revision_link("a/c", digest_of(body))
    store.driver.write(key, digest_of(body).encode())
    clock.ahead = 22 * HOUR
    report = store.collect()
    assert report.blobs_deleted == 0
    assert digest_of(data) in stored(store)
    assert read_blob(store, "a/c", digest_of(data)) == data


def test_a_push_of_a_doomed_blob(store: Store, clock: Clock) -> None:
    data = os.urandom(1000)
    push_blob(store, "a/b", data)
    clock.ahead = 11 * HOUR
    assert store.collect().blobs_doomed == 1
    clock.ahead = 0
    push_image(store, "a/b", "v1", data)
    clock.ahead = 22 * HOUR
    store.collect()
    assert read_blob(store, "a/b", digest_of(data)) == data
    assert list(store.driver.walk("estiba/doomed")) == []


def test_a_push_between_mark_and_sweep(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(1000)
    push_blob(store, "a/b", data)
    store.blobs.delete("a/b", digest_of(data))
    clock.ahead = 11 * HOUR

    def push() -> None:
        clock.ahead = 0
        push_image(store, "a/b", "v1", data)

    report = between(store, push, monkeypatch)
    assert report.blobs_doomed == 0
    assert read_blob(store, "a/b", digest_of(data)) == data


def age(root: Path) -> None:
    """All that is there becomes an hour older than the grace period."""
    past = time.time() - 11 * HOUR
    for path in root.glob("docker/**/*"):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (past, past))


def test_pushes_beside_collections_lose_nothing(tmp_path: Path) -> None:
    """Clients that ask before they push, while all that they rely on is garbage and old."""
    store = Store(FileDriver(tmp_path / "root"), grace=10 * HOUR)
    layers = [b"shared", b"other", b"third"]
    pushed = threading.Barrier(4)
    failures: list[BaseException] = []
    reports: list[Report] = []

    def push(number: int) -> None:
        repository = f"a/{number}"
        config = b"{}"
        body = manifest(config, *layers)
        try:
            for turn in range(12):
                for data in (config, *layers):
                    try:
                        store.blobs.stat(repository, digest_of(data))
                    except BlobUnknown:
                        push_blob(store, repository, data)
                digest = store.manifests.put(repository, body, OCI_MANIFEST, tag="v1").digest
                pushed.wait(60)
                for data in (config, *layers):
                    assert read_blob(store, repository, digest_of(data)) == data
                assert store.manifests.get(repository, "v1").body == body
                if turn % 2 or number == 0:
                    store.manifests.delete(repository, digest)
                pushed.wait(60)
                if number == 0:
                    age(store.driver.root)
                pushed.wait(60)
        except BaseException as error:
            failures.append(error)
            pushed.abort()

    def collect() -> None:
        try:
            for _ in range(12):
                for _ in range(2):
                    reports.append(store.collect())
                for _ in range(3):
                    pushed.wait(60)
        except BaseException as error:
            failures.append(error)
            pushed.abort()

    threads = [threading.Thread(target=push, args=(number,)) for number in range(3)]
    threads.append(threading.Thread(target=collect))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert failures == []
    assert sum(report.links_deleted for report in reports) > 0
