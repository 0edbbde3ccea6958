"""OCI layouts whose members are not what their manifest says they are."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from estiba.images import removal
from estiba.images.images import Images
from estiba.images.loading import load
from estiba.images.saving import save
from estiba.model.errors import EstibaError, InvalidArgument
from estiba.model.image import Platform
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

KIND = "application/vnd.oci.image"
LAYER = bytes(1024)


@pytest.fixture
async def images(tmp_path: Path) -> Any:
    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    layers = LayerStore(tmp_path / "images", Limits(total_bytes=64 << 20))
    layers.open()
    content = ContentStore(tmp_path / "images")
    content.open()
    yield Images(layers, content, store, set, Platform(architecture="amd64"))
    store.close()


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Layout:
    """A layout of one image; whatever is changed before `archive` is a lie."""

    def __init__(self, layer: bytes, algorithm: str = "sha256") -> None:
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers"}}
        config["rootfs"] |= {"diff_ids": [digest(LAYER)]}  # type: ignore[operator]
        self.members: dict[str, bytes] = {"oci-layout": b"{}"}
        self.config = self.add(json.dumps(config).encode(), ".config.v1+json")
        self.layer = self.add(layer, ".layer.v1.tar", algorithm)

    def add(self, data: bytes, kind: str, algorithm: str = "sha256") -> dict[str, Any]:
        name = digest(data, algorithm)
        self.members[f"blobs/{name.replace(':', '/')}"] = data
        return {"mediaType": KIND + kind, "digest": name, "size": len(data)}

    def replace(self, descriptor: dict[str, Any], data: bytes) -> None:
        self.members[f"blobs/{descriptor['digest'].replace(':', '/')}"] = data

    def archive(self) -> io.BytesIO:
        body = {"schemaVersion": 2, "config": self.config, "layers": [self.layer]}
        entry = self.add(json.dumps(body).encode(), ".manifest.v1+json")
        index = {"schemaVersion": 2, "manifests": [entry]}
        self.members["index.json"] = json.dumps(index).encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in self.members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        buffer.seek(0)
        return buffer


def other_config(layout: Layout) -> None:
    name = f"blobs/{layout.config['digest'].replace(':', '/')}"
    layout.members[name] = layout.members[name].replace(b"amd64", b"arm64")


def other_layer_blob(layout: Layout) -> None:
    """The same layer, compressed in another way than the manifest's digest says."""
    layout.replace(layout.layer, gzip.compress(LAYER, 9, mtime=0))


def size_of_layer(layout: Layout) -> None:
    layout.layer["size"] += 1


def size_of_config(layout: Layout) -> None:
    layout.config["size"] -= 1


def layer_as_config(layout: Layout) -> None:
    layout.config["digest"], layout.config["size"] = layout.layer["digest"], layout.layer["size"]


def config_as_layer(layout: Layout) -> None:
    layout.layer["digest"], layout.layer["size"] = layout.config["digest"], layout.config["size"]


def artifact_of_another_size(layout: Layout) -> None:
    layout.config["mediaType"] = "application/x"
    layout.layer["size"] += 1


LIES = [
    other_config,
    other_layer_blob,
    size_of_layer,
    size_of_config,
    layer_as_config,
    config_as_layer,
    artifact_of_another_size,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie.__name__))
async def test_members_that_lie(images: Images, tmp_path: Path, lie: Any) -> None:
    layout = Layout(gzip.compress(LAYER, 1, mtime=0))
    lie(layout)
    with pytest.raises(EstibaError):
        list(load(images, layout.archive(), tmp_path / "work"))
    assert images.list_all() == []
    assert [*images.layers.diff_ids(), *images.content.digests()] == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("is_compressed", [True, False])
async def test_digests_of_layers(
    images: Images, tmp_path: Path, algorithm: str, is_compressed: bool
) -> None:
    layer = gzip.compress(LAYER, 6, mtime=0) if is_compressed else LAYER
    done = list(load(images, Layout(layer, algorithm).archive(), tmp_path / "work"))
    assert b"index.json" in b"".join(save(images, [done[0].record.id]))
    removal.delete_unused(images, done[0].record, lambda _: [])
    assert [*images.layers.diff_ids(), *images.content.digests()] == []


async def test_a_name_of_another_layer_gives_that_layer(images: Images, tmp_path: Path) -> None:
    """What a member holds is not looked at when its name says that the layer is here."""
    images.ingest(io.BytesIO(LAYER))
    layout = Layout(LAYER)
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("evil"), io.BytesIO())
    layout.replace(layout.layer, evil.getvalue())
    (done,) = load(images, layout.archive(), tmp_path / "work")
    assert done.record.layers == [digest(LAYER)]
    assert b"".join(images.layers.tar(digest(LAYER))) == LAYER


@pytest.mark.parametrize("name", ["", "x" * 300, "\0", ":", "blobs/sha256/" + "g" * 64])
async def test_odd_names_of_layers(images: Images, tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"), io.BytesIO())
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(layer.getvalue())
        tar.addfile(info, io.BytesIO(layer.getvalue()))
    buffer.seek(0)
    with pytest.raises(InvalidArgument):
        list(load(images, buffer, tmp_path / "work"))


async def test_a_tag_with_a_digest(images: Images, tmp_path: Path) -> None:
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    item = {"Config": "c", "Layers": [], "RepoTags": [f"x:1@{digest(b'')}"]}
    members = {"c": config, "manifest.json": [item]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in members.items():
            data = json.dumps(value).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    with pytest.raises(InvalidArgument, match="digest reference"):
        list(load(images, buffer, tmp_path / "work"))
