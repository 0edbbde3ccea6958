"""Image stores of several hosts on one, and images for them."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estiba.images.images import Images, Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.model.image import Platform
from estiba.model.reference import parse_reference
from estiba.storage.content import ContentStore
from estiba.storage.layers import LayerStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store


class Shop:
    """Makes image stores, each as if on a host of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stores: list[Store] = []
        self._loop = asyncio.get_running_loop()

    def images(self, name: str = "first") -> Images:
        root = self.root / name
        root.mkdir(exist_ok=True)
        store = Store.open(root / "estiba.db", EventBus(self._loop))
        self.stores.append(store)
        layers, content = LayerStore(root / "images", Limits()), ContentStore(root / "images")
        layers.open()
        content.open()
        images = Images(layers, content, store, set, Platform(architecture="amd64"))
        images.open()
        return images


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def add(
    images: Images, tag: str, *layers: Mapping[str, bytes], architecture: str = "amd64", **more: Any
) -> ImageRecord:
    """An image of these layers; `more` goes into its config."""
    infos = [images.ingest(io.BytesIO(layer_tar(files))) for files in layers]
    config = {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [info.diff_id for info in infos]},
        **more,
    }
    tags = (parse_reference(tag),) if tag else ()
    record = images.add(NewImage(json.dumps(config).encode(), infos), Naming(tags), "build")
    images.leases.release([info.diff_id for info in infos])
    return record
