"""Images served by a scripted registry: made in the test, and handed out as badly as it says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.daemon import PrivateDaemon
from tests.support.scripted import Ask, Reply

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_PATH = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/?]+)")

Json = dict[str, Any]
Fault = Callable[[Ask, Reply], Reply]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Served:
    """A script for `scripted`. `faults` change what a manifest or blob is answered with."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """By tag and by digest: media type and body."""

        self.faults: dict[str, Fault] = {}

    def blob(self, data: bytes, media_type: str, **more: Any) -> Json:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def manifest(self, body: Json | bytes, media_type: str, tag: str = "") -> Json:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.manifests[digest(data)] = (media_type, data)
        if tag:
            self.manifests[tag] = (media_type, data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(
        self,
        layers: list[bytes],
        *,
        tag: str = "",
        architecture: str = "amd64",
        compress: Callable[[bytes], bytes] = lambda tar: gzip.compress(tar, 2, mtime=0),
        suffix: str = "+gzip",
    ) -> Json:
        """An image of layers, given as tar; its manifest's descriptor."""
        config = {
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
        }
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(json.dumps(config).encode(), OCI_CONFIG),
            "layers": [self.blob(compress(tar), OCI_LAYER + suffix) for tar in layers],
        }
        made = self.manifest(body, OCI_MANIFEST, tag)
        return {**made, "platform": {"os": "linux", "architecture": architecture}}

    def index(self, *entries: Json, tag: str = "") -> Json:
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        return self.manifest(body, OCI_INDEX, tag)

    def layer_of(self, manifest: Json, number: int = 0) -> str:
        """A layer's blob."""
        body = json.loads(self.manifests[manifest["digest"]][1])
        return str(body["layers"][number]["digest"])

    def __call__(self, ask: Ask) -> Reply:
        match = _PATH.match(ask.path)
        if match is None:
            return Reply(body=b"{}", headers={"Content-Type": "application/json"})
        reply = self._manifest(match[3]) if match[2] == "manifests" else self._blob(ask, match[3])
        fault = self.faults.get(match[3])
        return fault(ask, reply) if fault else reply

    def _manifest(self, name: str) -> Reply:
        if name not in self.manifests:
            body = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
            return Reply(status=404, body=body)
        media_type, data = self.manifests[name]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest(data)}
        return Reply(body=data, headers=headers)

    def _blob(self, ask: Ask, name: str) -> Reply:
        if name not in self.blobs:
            return Reply(status=404, body=b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        data = self.blobs[name]
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", ask.header("Range"))
        if match is None:
            return Reply(body=data, headers={"Accept-Ranges": "bytes"})
        first = int(match[1])
        span = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return Reply(status=206, body=data[first:], headers={"Content-Range": span})


def leftovers(daemon: PrivateDaemon) -> list[str]:
    """What the daemon's image store holds: layers, blobs, and beginnings of either."""
    root = daemon.data_root / "images"
    return [
        str(path.relative_to(root))
        for folder in ("layers", "partial", "blobs/sha256", "blobs/sha512", "ingest")
        for path in (root / folder).iterdir()
    ]
