"""Hostile image archives: what their indexes name never leads out, and is never without end."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import wait_until

from estiba.images.images import Images
from estiba.images.loading import load
from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.model.image import Platform
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store

EMPTY_LAYER = bytes(1024)
DIFF_ID = "sha256:" + hashlib.sha256(EMPTY_LAYER).hexdigest()


@pytest.fixture
async def images(tmp_path: Path) -> Any:
    import asyncio

    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    layers = LayerStore(tmp_path / "images", Limits(total_bytes=64 << 20))
    layers.open()
    content = ContentStore(tmp_path / "images")
    content.open()
    yield Images(layers, content, store, set, Platform(architecture="amd64"))
    store.close()


def archive(members: dict[str, bytes], *links: tuple[str, bytes, str]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def config(*diff_ids: str) -> bytes:
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()


def docker(*, layers: int = 1, images: int = 1, tags: Any = None, **names: str) -> dict[str, bytes]:
    """A `docker save` archive of an image whose layers are all the same."""
    item = {
        "Config": names.get("config", "config.json"),
        "Layers": [names.get("layer", "layer.tar")] * layers,
        "RepoTags": tags,
    }
    return {
        "config.json": config(*[DIFF_ID] * layers),
        "layer.tar": EMPTY_LAYER,
        "manifest.json": json.dumps([item] * images).encode(),
    }


def blob(data: bytes) -> tuple[str, str]:
    digest = hashlib.sha256(data).hexdigest()
    return f"sha256:{digest}", f"blobs/sha256/{digest}"


def entry(digest: str) -> dict[str, Any]:
    return {"mediaType": "application/x", "digest": digest, "size": 1}


def index_of(*digests: str) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [entry(d) for d in digests]}).encode()


def nested(depth: int, width: int) -> dict[str, bytes]:
    """Indexes in indexes, each naming the next one `width` times."""
    members = {}
    body = index_of()
    for _ in range(depth):
        digest, name = blob(body)
        members[name] = body
        body = index_of(*[digest] * width)
    return {**members, "index.json": body}


def wrong_digest() -> dict[str, bytes]:
    digest, name = blob(b"{}")
    return {name: b'{"manifests": []}', "index.json": index_of(digest)}


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "config out of it": (docker(config="../../../../etc/passwd"), "leads out"),
    "layer out of it": (docker(layer="../x/../../etc/shadow"), "leads out"),
    "absolute layer": (docker(layer="/etc/passwd"), "lacks"),
    "bad tag": (docker(tags=["../../x:y"]), "invalid reference"),
    "no list": ({"manifest.json": b"{}"}, "not a list"),
    "no objects": ({"manifest.json": b"[1, null]"}, "damaged"),
    "not JSON": ({"manifest.json": b"\xff{"}, "not JSON"),
    "deep JSON": ({"manifest.json": b"[" * 100_000}, "not JSON"),
    "deep config": ({**docker(), "config.json": b'{"a":' * 100_000}, "damaged"),
    "other layers": ({**docker(), "config.json": config()}, "disagree"),
    "other digest": ({**docker(), "layer.tar": bytes(2048)}, "mismatch"),
    "another blob": (wrong_digest(), "another digest"),
    "bad digest": ({"index.json": index_of("sha256:../../etc/passwd")}, "invalid digest"),
    "nothing": ({}, "not an image archive"),
}
BOMBS: dict[str, tuple[dict[str, bytes], str]] = {
    "layers": (docker(layers=126), "max depth exceeded"),
    "images": (docker(images=1001), "more than 1000 images"),
    "nested indexes": (nested(6, 1), "too deeply"),
    "indexes by indexes": (nested(4, 500), "more than 1000 images"),
    "members": ({str(number): b"" for number in range(20_002)}, "more than 20000 members"),
    "bytes": ({"big": bytes(65 << 20)}, "of more than"),
    "a large manifest": ({"manifest.json": bytes(9 << 20)}, "over 8388608 bytes"),
    "a long name": ({"n" * 5000: b""}, "over 4,096 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_archives_that_make_no_sense(images: Images, tmp_path: Path, name: str) -> None:
    members, words = REFUSED[name]
    with pytest.raises(EstibaError, match=words):
        list(load(images, archive(members), tmp_path / "work"))
    assert_nothing_left(images, tmp_path)


@pytest.mark.parametrize("name", BOMBS)
async def test_archives_without_end(images: Images, tmp_path: Path, name: str) -> None:
    members, words = BOMBS[name]
    with pytest.raises(LimitExceeded, match=words):
        list(load(images, archive(members), tmp_path / "work"))
    assert_nothing_left(images, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/hostname", "../../etc/hostname", "layer.tar"])
async def test_links_lead_nowhere(images: Images, tmp_path: Path, kind: bytes, target: str) -> None:
    members = docker()
    del members["layer.tar"]
    links = [("layer.tar", kind, target)]
    with pytest.raises(InvalidArgument, match=r"leads out|lacks"):
        list(load(images, archive(members, *links), tmp_path / "work"))
    assert_nothing_left(images, tmp_path)


def assert_nothing_left(images: Images, tmp_path: Path) -> None:
    def below(path: Path) -> Iterator[Path]:
        return path.iterdir() if path.is_dir() else iter(())

    assert images.list_all() == []
    assert list(images.layers.diff_ids()) == []
    ingest = tmp_path / "images" / "ingest"
    wait_until(lambda: not list(below(ingest)), what="the files of removed layers to go")
    assert list(below(tmp_path / "work")) == []
