"""A process that dies by SIGKILL at any step leaves no half of anything."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.s3server import S3Server
from tests.unit.registry_storage.pushing import push_image, read_blob

from estiba.model.digest import digest_of
from estiba.registry.storage import keys
from estiba.registry.storage.errors import BlobUnknown, ManifestUnknown
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.s3_driver import S3Driver, S3Settings, client_of
from estiba.registry.storage.store import Store

LAYER = b"layer" * 1000
START = """
from pathlib import Path
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.s3_driver import S3Driver, S3Settings
from estiba.registry.storage.store import Store
from tests.unit.registry_storage.pushing import push_image
"""
PUSH = START + f"push_image(Store({{driver}}), 'a/b', 'v1', {LAYER!r})"
LARGE = START + f"push_image(Store({{driver}}), 'a/b', 'v1', {LAYER!r}, b'x' * (20 << 20))"
COLLECT = START + "Store({driver}, grace=0).collect()"
POINTS = [
    *(f"registry.append#{number}" for number in (1, 2)),
    *(f"registry.write#{number}" for number in range(1, 9)),
    *(f"registry.checked#{number}" for number in (1, 2)),
    *(f"registry.stored#{number}" for number in (1, 2, 3)),
    *(f"registry.linked#{number}" for number in (1, 2, 3)),
    "registry.revision",
    "registry.tagged",
]


def die_at(point: str, script: str, driver: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", script.format(driver=driver)],
        env=os.environ | {"ESTIBA_FAILPOINTS": f"{point}=kill", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


def files(root: Path) -> str:
    return f"FileDriver(Path({str(root)!r}))"


@contextmanager
def opened(root: Path, grace: float = 3600) -> Iterator[Store]:
    store = Store(FileDriver(root), grace=grace)
    try:
        yield store
    finally:
        store.close()


def check(store: Store) -> None:
    """All that can be seen is whole."""
    for key, _ in store.driver.walk(keys.BLOBS):
        digest = f"sha256:{key.split('/')[-2]}"
        assert digest_of(store.driver.read(key, limit=64 << 20)) == digest
    for key, _ in store.driver.walk(keys.layers("a/b")):
        digest = ":".join(key.split("/")[-3:-1])
        assert digest_of(read_blob(store, "a/b", digest)) == digest
    for tag in store.manifests.tags("a/b").names if store.manifests.tag_names("a/b") else ():
        found = store.manifests.get("a/b", tag)
        assert digest_of(found.body) == found.digest
        read_blob(store, "a/b", digest_of(LAYER))


@pytest.mark.parametrize("point", POINTS)
def test_a_push_that_dies(tmp_path: Path, point: str) -> None:
    die_at(point, PUSH, files(tmp_path))
    with opened(tmp_path) as store:
        check(store)
        assert list(store.driver.walk(keys.TEMPORARY)) == []
        digest = push_image(store, "a/b", "v1", LAYER)
        check(store)
        assert store.manifests.get("a/b", "v1").digest == digest
    with opened(tmp_path, grace=0) as store:
        store.collect(alone=True)
        assert store.manifests.get("a/b", "v1").digest == digest
        assert not [key for key, _ in store.driver.walk(keys.ROOT) if "_uploads" in key]
        assert len(list(store.driver.walk(keys.BLOBS))) == 3
        check(store)


def test_a_push_that_dies_leaves_garbage_only(tmp_path: Path) -> None:
    die_at("registry.revision", PUSH.replace("'v1'", "None"), files(tmp_path))
    with opened(tmp_path, grace=0) as store:
        store.collect(alone=True, delete_untagged=True)
        store.collect(alone=True)
        assert list(store.driver.walk("docker")) == []


@pytest.mark.parametrize("point", ["registry.marked", "registry.write#1", "registry.doomed"])
def test_a_collection_that_dies(tmp_path: Path, point: str) -> None:
    with opened(tmp_path) as store:
        kept = push_image(store, "a/b", "v1", LAYER)
        gone = push_image(store, "a/b", "v2", b"gone")
        store.manifests.delete("a/b", gone)
    die_at(point, COLLECT, files(tmp_path))
    with opened(tmp_path, grace=0) as store:
        check(store)
        store.collect(alone=True)
        check(store)
        assert store.manifests.get("a/b", "v1").digest == kept
        with pytest.raises(ManifestUnknown):
            store.manifests.get("a/b", gone)
        with pytest.raises(BlobUnknown):
            store.blobs.stat("a/b", digest_of(b"gone"))
        assert len(list(store.driver.walk(keys.BLOBS))) == 3
        assert list(store.driver.walk(keys.DOOMED)) == []


@pytest.mark.parametrize(
    ("point", "script"),
    [
        ("registry.checked", PUSH),
        ("registry.copied", PUSH),
        ("registry.stored#2", PUSH),
        ("registry.linked#2", PUSH),
        ("registry.tagged", PUSH),
        ("registry.part#2", LARGE),
        ("registry.copied#3", LARGE),
    ],
)
def test_a_push_to_a_bucket_that_dies(s3: S3Server, point: str, script: str) -> None:
    settings = s3.settings(prefix="x")
    die_at(point, script, f"S3Driver(S3Settings({_arguments(settings)}))")
    store = Store(S3Driver(settings), grace=0)
    check(store)
    digest = push_image(store, "a/b", "v1", LAYER)
    check(store)
    store.collect(alone=True)
    assert store.manifests.get("a/b", "v1").digest == digest
    assert not [key for key, _ in store.driver.walk(keys.ROOT) if "_uploads" in key]
    assert len(list(store.driver.walk(keys.BLOBS))) == 3
    unfinished = client_of(settings).list_multipart_uploads(Bucket=settings.bucket)
    assert not unfinished.get("Uploads")


def _arguments(settings: S3Settings) -> str:
    return ", ".join(
        f"{each.name}={getattr(settings, each.name)!r}" for each in dataclasses.fields(settings)
    )
