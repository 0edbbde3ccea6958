"""What the tests of this package share: quick settings, contents, repositories."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.scripted import Ask, Reply, Script, scripted

from estiba.distribution.blobs import BlobStream
from estiba.distribution.content import OCI_MANIFEST
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.repository import Repository
from estiba.distribution.settings import RegistrySettings
from estiba.model.digest import digest_of
from estiba.model.reference import Reference

QUICK = RegistrySettings(
    certs_dirs=(), connect_timeout_s=30, read_timeout_s=30, attempts=3, backoff_s=0.01
)
HASTY = replace(QUICK, read_timeout_s=0.3)
"""For registries that hang: of others a busy machine would think so too."""

GENUINE = RegistrySettings(certs_dirs=(), backoff_s=0.01)
ANN = Credentials("ann", "secret")
DATA = random.Random(7).randbytes(100_000)
DIGEST = digest_of(DATA)
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def repository(
    host: str,
    path: str = "library/thing",
    settings: RegistrySettings = QUICK,
    credentials: Credentials = ANONYMOUS,
    **options: Any,
) -> Repository:
    return Repository(Reference(host, path), settings, credentials, **options)


def read_all(stream: BlobStream, size: int = 1 << 18) -> bytes:
    with stream:
        return b"".join(iter(lambda: stream.read(size), b""))


def manifest_of(layers: Sequence[bytes], media_type: str = OCI_MANIFEST) -> bytes:
    def descriptor(kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    layer = "application/vnd.oci.image.layer.v1.tar"
    config = descriptor("application/vnd.oci.image.config.v1+json", CONFIG)
    document = {"schemaVersion": 2, "mediaType": media_type, "config": config}
    document["layers"] = [descriptor(layer, data) for data in layers]
    return json.dumps(document).encode()


def push_image(target: Repository, tag: str, *layers: bytes) -> bytes:
    """Returns the manifest."""
    for data in (CONFIG, *layers):
        target.upload_blob(io.BytesIO(data), size=len(data), digest=digest_of(data))
    body = manifest_of(layers)
    target.put_manifest(tag, body, OCI_MANIFEST)
    return body


BODY = manifest_of([b"layer"])
GOOD = Reply(body=BODY, headers={"Content-Type": OCI_MANIFEST})


def serving(replies: dict[str, Reply]) -> Script:
    """By the end of the path, without its query; `/v2/` is there, all else is not."""

    def script(ask: Ask) -> Reply:
        path = ask.path.partition("?")[0]
        if path == "/v2/":
            return Reply()
        return next((r for end, r in replies.items() if path.endswith(end)), Reply(status=404))

    return script


def guarded(script: Script) -> Script:
    """Wants some authorization first."""

    def checked(ask: Ask) -> Reply:
        if ask.header("Authorization"):
            return script(ask)
        return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    return checked


def moved(location: str, status: int = 307) -> Reply:
    return Reply(status=status, headers={"Location": location})


def trusting(root: Path, host: str, *files: Path) -> Path:
    folder = root / "certs.d" / host
    folder.mkdir(parents=True)
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())
    return root / "certs.d"


def ask_manifest(reply: Reply, target: str = "one") -> bytes:
    with scripted(serving({target: reply})) as server, repository(server.host) as source:
        return source.manifest(target).body
