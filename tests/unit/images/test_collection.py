"""Collection against everything that goes on beside it: what is needed is never taken."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import wait_until

from estiba.images import removal
from estiba.images.images import Images, Naming, NewImage
from estiba.images.loading import load
from estiba.images.saving import save
from estiba.model.digest import Digest
from estiba.model.errors import Conflict, EstibaError, NotFound
from estiba.model.image import Platform
from estiba.model.reference import parse_reference
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

STRESS_S = 4.0


class Snapshots:
    """The layers that containers stand on; `meanwhile` runs while they are looked up."""

    def __init__(self) -> None:
        self.layers: list[Digest] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> set[Digest]:
        found = set(self.layers)
        self.meanwhile()
        return found


@pytest.fixture
async def snapshots() -> Snapshots:
    return Snapshots()


@pytest.fixture
async def images(tmp_path: Path, snapshots: Snapshots) -> Any:
    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    layers, content = LayerStore(tmp_path / "images", Limits()), ContentStore(tmp_path / "images")
    layers.open()
    content.open()
    images = Images(layers, content, store, snapshots, Platform(architecture="amd64"))
    images.open()
    yield images
    store.close()


def tar_of(text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(text)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def digest(data: bytes) -> Digest:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layout(name: str, layers: list[bytes]) -> io.BytesIO:
    """An OCI layout of one image."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "author": name,
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
        }
    ).encode()
    kind = "application/vnd.oci.image"

    def entry(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": kind + media_type, "digest": digest(data), "size": len(data), **more}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": entry(config, ".config.v1+json"),
            "layers": [entry(tar, ".layer.v1.tar") for tar in layers],
        }
    ).encode()
    notes = {"io.containerd.image.name": f"docker.io/library/{name}:1"}
    index = {
        "schemaVersion": 2,
        "manifests": [entry(manifest, ".manifest.v1+json", annotations=notes)],
    }
    members = {f"blobs/sha256/{digest(data)[7:]}": data for data in (*layers, config, manifest)}
    members |= {"index.json": json.dumps(index).encode(), "oci-layout": b"{}"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def test_a_lease_that_ends_as_its_snapshot_appears(images: Images, snapshots: Snapshots) -> None:
    layer = images.ingest(io.BytesIO(tar_of("a"))).diff_id
    done = threading.Event()

    def prepared() -> None:
        snapshots.layers.append(layer)
        images.leases.release([layer])
        done.set()

    def meanwhile() -> None:
        snapshots.meanwhile = lambda: None
        threading.Thread(target=prepared).start()
        done.wait(0.2)

    snapshots.meanwhile = meanwhile
    assert removal.collect(images) == set()
    assert done.wait(5)
    assert removal.collect(images) == set()


def test_a_layer_that_appears_while_it_is_collected(images: Images, snapshots: Snapshots) -> None:
    done = threading.Event()

    def ingest() -> None:
        images.ingest(io.BytesIO(tar_of("a")))
        done.set()

    def meanwhile() -> None:
        threading.Thread(target=ingest).start()
        done.wait(0.2)

    snapshots.meanwhile = meanwhile
    assert removal.collect(images) == set()
    assert done.wait(5)
    assert images.layers.info(digest(tar_of("a"))) is not None


def test_readers_do_not_wait_for_a_collection(images: Images, snapshots: Snapshots) -> None:
    """The event loop is among them."""
    naming = Naming((parse_reference("x:1"),))
    config = b'{"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'
    images.add(NewImage(config, []), naming, "load")
    found: list[str] = []

    def read() -> None:
        found.extend([images.resolve("x:1").id, images.list_all()[0].id, *images.tags_of("x")])

    def meanwhile() -> None:
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(5)

    snapshots.meanwhile = meanwhile
    removal.collect(images)
    assert len(found) == 3


def test_what_is_removed_while_it_is_saved_goes_after_it(images: Images, tmp_path: Path) -> None:
    list(load(images, layout("x", [tar_of("a"), tar_of("b")]), tmp_path / "work"))
    pieces = save(images, ["x:1"])
    next(pieces)
    removal.remove(images, "x:1", force=True, in_use=lambda _: [])
    assert len(b"".join(pieces)) > 4096
    assert_empty(images)


def test_what_runs_keeps_its_image_from_being_forced_away_by_id(
    images: Images, tmp_path: Path
) -> None:
    list(load(images, layout("x", [tar_of("a")]), tmp_path / "work"))
    (record,) = images.list_all()
    users = {"in_use": lambda _: ["stopped", "runs"], "running": lambda _: ["runs"]}
    with pytest.raises(Conflict, match=r"cannot be forced.*running container runs"):
        removal.remove(images, record.id, force=True, **users)
    assert images.list_all() == [record]
    assert removal.remove(images, "x:1", force=True, **users) == [{"Untagged": "x:1"}]
    users["running"] = lambda _: []
    assert removal.remove(images, record.id, force=True, **users) == []


def assert_empty(images: Images) -> None:
    """Nothing is left, once the files of what was removed are gone."""
    assert images.list_all() == []
    assert list(images.layers.diff_ids()) == []
    assert [*images.content.digests(), *images.content.partials()] == []
    wait_until(lambda: not list((images.layers.root / "ingest").iterdir()), what="removed layers")


class Worker:
    """One of the threads that do as they like, and what went wrong in it."""

    def __init__(self, images: Images, work: Path, seed: int) -> None:
        self.images, self.work = images, work
        self.random = random.Random(seed)
        self.failures: list[str] = []
        self.done = 0

    def run(self, until: float) -> None:
        actions = [self.load, self.load, self.remove, self.save, self.collect, self.tag]
        while time.monotonic() < until:
            try:
                self.random.choice(actions)()
                self.done += 1
            except NotFound as error:
                if not error.message.startswith("No such image"):
                    self.failures.append(f"{error}")
            except EstibaError as error:
                self.failures.append(f"{type(error)} {error}")

    @property
    def name(self) -> str:
        return f"image{self.random.randrange(3)}"

    def load(self) -> None:
        name = self.name
        layers = [tar_of("base"), tar_of(name)]
        for _ in load(self.images, layout(name, layers), self.work):
            pass

    def remove(self) -> None:
        removal.remove(self.images, f"{self.name}:1", force=True, in_use=lambda _: [])

    def save(self) -> None:
        b"".join(save(self.images, [f"{self.name}:1"]))

    def collect(self) -> None:
        removal.forget_pulls(self.images)

    def tag(self) -> None:
        target = parse_reference(f"{self.name}:{self.random.choice('23')}")
        self.images.tag(f"{self.name}:1", target)


def test_everything_at_once(images: Images, tmp_path: Path) -> None:
    """Whatever is named stays whole, and nothing stays that is not."""
    workers = [Worker(images, tmp_path / "work", seed) for seed in range(6)]
    until = time.monotonic() + STRESS_S
    threads = [threading.Thread(target=worker.run, args=(until,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [failure for worker in workers for failure in worker.failures] == []
    assert min(worker.done for worker in workers) > 5
    for record in images.list_all():
        assert len(b"".join(save(images, [record.id]))) > 4096
        for origin in record.origins:
            assert images.content.read(origin.manifest)
    for record in images.list_all():
        removal.delete_unused(images, record, lambda _: [])
    assert_empty(images)
