"""A daemon of ours, a genuine engine and genuine registries, between which images travel."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tests.support.containers import Containers, private_containers
from tests.support.daemon import PrivateDaemon
from tests.support.dockerd import GenuineDockerd
from tests.support.registries import genuine_registry
from tests.support.registry import OwnRegistry
from tests.support.served import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest, tar_of

NEW = "it goes as a new manifest"


@dataclass(frozen=True, slots=True)
class Travel:
    """The two registries stand all the time."""

    daemon: PrivateDaemon
    engine: GenuineDockerd
    first: str
    second: str
    containers: Containers
    root: Path

    def digest(self, name: str) -> str:
        """Of what the registry itself says."""
        raw = self.containers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
        return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"

    def media_type(self, name: str) -> str:
        raw = self.containers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
        return str(json.loads(raw)["mediaType"])

    def genuine(self, name: str, marker: str) -> str:
        """Pushes an image that nobody has yet, as Go's gzip makes it; its digest."""
        tar = tar_of({"marker": marker.encode(), "data": random.Random(marker).randbytes(1 << 20)})
        self.engine.docker("import", "-c", 'CMD ["sh"]', "-", name, stdin=tar)
        self.engine.docker("push", "-q", name)
        self.engine.docker("rmi", name)
        return self.digest(name)

    def pull(self, name: str, *flags: str) -> str:
        """The digest that the pull tells."""
        shown = self.daemon.docker("pull", *flags, name).stdout.decode()
        return shown.rpartition("Digest: ")[2].split()[0]

    def push(self, source: str, target: str) -> str:
        """What is shown."""
        self.daemon.docker("tag", source, target)
        return self.daemon.docker("push", target).stdout.decode()

    def image_id(self, name: str) -> str:
        return self.daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.decode().strip()


@contextlib.contextmanager
def travel(root: Path) -> Iterator[Travel]:
    (root / "ours").mkdir()
    daemon, engine = PrivateDaemon(root / "ours"), GenuineDockerd(root)
    with (
        genuine_registry(root / "first") as first,
        genuine_registry(root / "second") as second,
        private_containers(root / "containers") as containers,
    ):
        try:
            daemon.start()
            daemon.import_busybox()
            engine.start()
            yield Travel(daemon, engine, first.host, second.host, containers, root)
        finally:
            engine.close()
            daemon.close()


Compress = Callable[[bytes], bytes]
FORMS: dict[str, tuple[Compress, str, bool]] = {
    "plain": (bytes, "", True),
    "Python": (lambda tar: gzip.compress(tar, 9, mtime=0), "+gzip", True),
    "zlib": (lambda tar: gzip.compress(tar, 6, mtime=7), "+gzip", True),
    "zstd": (zstandard.ZstdCompressor().compress, "+zstd", False),
    "pigz": (lambda tar: _piped(tar, "gzip", "-1"), "+gzip", False),
}


def _piped(data: bytes, *command: str) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def own_image(registry: OwnRegistry, name: str, tars: list[bytes], form: str) -> str:
    """Pushes an image whose layers are compressed in that form; its digest."""
    compress, suffix, _ = FORMS[form]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
    }
    layers = [compress(tar) for tar in tars]
    blobs = [json.dumps(config).encode(), *layers]
    kinds = [OCI_CONFIG, *[OCI_LAYER + suffix] * len(layers)]
    descriptors = [
        {"mediaType": kind, "digest": registry.push_blob(name, blob), "size": len(blob)}
        for kind, blob in zip(kinds, blobs, strict=True)
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptors[0]}
    return registry.push_manifest(name, {**body, "layers": descriptors[1:]}, "1")
