"""What clients push, in the shortest form that counts."""

from __future__ import annotations

import json
from typing import Any

from estiba.model.digest import Digest, digest_of
from estiba.registry.storage.documents import OCI_INDEX, OCI_MANIFEST
from estiba.registry.storage.store import Store

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def push_blob(store: Store, repository: str, data: bytes) -> Digest:
    upload = store.uploads.begin(repository)
    with store.uploads.append(repository, upload, offset=0) as writer:
        writer.write(data)
    return store.uploads.finish(repository, upload, digest_of(data)).digest


def read_blob(store: Store, repository: str, digest: Digest) -> bytes:
    opened = store.blobs.open(repository, digest)
    try:
        data = b""
        while piece := opened.read(1 << 20):
            data += piece
        return data
    finally:
        opened.close()


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def manifest(config: bytes, *layers: bytes, **more: Any) -> bytes:
    said = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG_TYPE),
        "layers": [descriptor(layer, LAYER_TYPE) for layer in layers],
        **more,
    }
    return json.dumps({key: value for key, value in said.items() if value is not None}).encode()


def index(*children: bytes, **more: Any) -> bytes:
    said = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(child, OCI_MANIFEST) for child in children],
        **more,
    }
    return json.dumps(said).encode()


def push_image(
    store: Store, repository: str, tag: str | None, *layers: bytes, **more: Any
) -> Digest:
    """The manifest's digest; its config differs with its layers."""
    config = json.dumps({"layers": [digest_of(layer) for layer in layers]}).encode()
    for data in (config, *layers):
        push_blob(store, repository, data)
    body = manifest(config, *layers, **more)
    return store.manifests.put(repository, body, OCI_MANIFEST, tag=tag).digest
