"""What the engines and registries are given: made once by genuine tools, and kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from bench.peers import Engine, docker_engine
from bench.registries import Registry, docker_registry

FOLDER = Path("/var/tmp/estiba-bench")
RUN = FOLDER / "run"
"""Roots of what is compared. They go when all is measured and not before: see `disk.settle`."""

ROUNDS = 3
"""Each takes another Debian root, because what is there already would not be made."""

LAYERS = 20
SMALL = "small:latest"
BIG = "big:latest"
BIG_BYTES = 2 << 30
_VERSION = "2"
_CHUNK = 1 << 20
Blob = io.BytesIO | io.BufferedReader
_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def busybox_root() -> bytes:
    from estiba.client.bootstrap import busybox

    return b"".join(busybox())


def debian_roots() -> list[Path]:
    """What debootstrap makes, some 200 MB and 6,700 files, as tars of one file's difference."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = [FOLDER / f"debian-{number}.tar" for number in range(2 * ROUNDS)]
    if not all(path.exists() for path in paths):
        root = FOLDER / "debian"
        shutil.rmtree(root, ignore_errors=True)
        _quietly("debootstrap", "--variant=minbase", "bookworm", str(root))
        for path in paths:
            (root / "etc/number").write_text(path.stem)
            _quietly("tar", "-C", str(root), "-cf", str(path), ".")
        shutil.rmtree(root)
        os.sync()
    return paths


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def saved(number: int) -> Path:
    """What a genuine `docker save debian:NUMBER` wrote, of the first half of the roots."""
    return FOLDER / f"saved-{number}.tar"


def content(run: Path) -> Registry:
    """A registry, to be started, with debian:3… (the other half), small and big.

    A genuine engine of its own fills it the first time, so layers are compressed as dockerd
    does it.
    """
    root = FOLDER / "content"
    stamp = root / "whole"
    if stamp.exists() and stamp.read_text() == _VERSION:
        return docker_registry(root)
    print("making images for the registry, which takes minutes the first time", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    registry, docker = docker_registry(root), docker_engine(run / "making")
    try:
        registry.start()
        docker.start()
        _fill(docker, registry)
    finally:
        docker.close()
        registry.close()
    stamp.write_text(_VERSION)
    return registry


def layers() -> list[Path]:
    """The files of the registry, but for the layer of 2 GB."""
    found = (FOLDER / "content/data").rglob("data")
    return [path for path in found if path.is_file() and path.stat().st_size < BIG_BYTES // 4]


def _fill(docker: Engine, registry: Registry) -> None:
    for number, path in enumerate(debian_roots()):
        name = f"debian:{number}"
        with path.open("rb") as file:
            docker.docker("import", "-c", 'CMD ["bash"]', "-", name, stdin=file)
        if number < ROUNDS:
            docker.docker("save", "-o", str(saved(number)), name)
        else:
            _push(docker, registry, name)
    _build_small(docker)
    _push(docker, registry, SMALL)
    _push_big(registry)


def _push(docker: Engine, registry: Registry, name: str) -> None:
    target = f"{registry.address}/{name}"
    docker.docker("tag", name, target)
    docker.docker("push", target)


def _build_small(docker: Engine) -> None:
    """Twenty layers of ten files and 100 kB each."""
    words = random.Random(20)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        lines = ["FROM scratch", *(f"COPY {number} /{number}/" for number in range(LAYERS))]
        _add(tar, "Dockerfile", "\n".join(lines).encode())
        for number in range(LAYERS * 10):
            _add(tar, f"{number // 10}/{number % 10}", words.randbytes(5000).hex().encode())
    engine = {**docker.environment(), "DOCKER_BUILDKIT": "0"}
    subprocess.run(
        ["docker", "build", "-q", "-t", SMALL, "-"], input=context.getvalue(), env=engine,
        capture_output=True, check=True,
    )  # fmt: skip


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _push_big(registry: Registry) -> None:
    """One layer of one file of 2 GB, half random and half zeros, by plain HTTP."""
    from isal import isal_zlib

    compressor = isal_zlib.compressobj(level=1, wbits=31)
    diff_id = hashlib.sha256()
    path = FOLDER / "big.tar.gz"
    with path.open("wb") as file:
        for piece in _big_tar():
            diff_id.update(piece)
            file.write(compressor.compress(piece))
        file.write(compressor.flush())
    with path.open("rb") as file:
        _put_image(registry, "big", "latest", f"sha256:{diff_id.hexdigest()}", file)
    path.unlink()


def put_small(registry: Registry, repository: str, tag: str) -> str:
    """An image of one layer of some bytes; its manifest's digest."""
    layer = io.BytesIO(b"a layer")
    return _put_image(registry, repository, tag, f"sha256:{'0' * 64}", layer)


def _put_image(registry: Registry, repository: str, tag: str, diff_id: str, layer: Blob) -> str:
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _put_blob(
            registry, repository, io.BytesIO(json.dumps(config).encode()), _CONFIG_TYPE
        ),
        "layers": [_put_blob(registry, repository, layer, _GZIP)],
    }
    body = json.dumps(manifest).encode()
    target = f"/v2/{repository}/manifests/{tag}"
    _put(registry, target, body, _MANIFEST)
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _big_tar() -> Iterator[bytes]:
    words = random.Random(2)
    info = tarfile.TarInfo("big")
    info.size = BIG_BYTES
    yield info.tobuf()
    for _ in range(BIG_BYTES // _CHUNK):
        yield words.randbytes(_CHUNK // 2) + bytes(_CHUNK // 2)
    yield bytes(1024)


def begin_upload(registry: Registry, repository: str) -> str:
    """The absolute URL of a new upload (distribution-spec, POST)."""
    connection = registry.connection()
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    answer = connection.getresponse()
    if answer.status != 202:
        raise RuntimeError(f"{registry.name} begins no upload: {answer.status}")
    return registry.absolute(answer.headers["Location"])


def _put_blob(
    registry: Registry, repository: str, file: Blob, media_type: str
) -> dict[str, object]:
    """Uploads a blob in one piece; its descriptor."""
    digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    location = begin_upload(registry, repository)
    target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    _put(registry, target, file, "application/octet-stream", size)
    return {"mediaType": media_type, "size": size, "digest": digest}


def _put(
    registry: Registry, target: str, body: bytes | Blob, media_type: str, size: int = 0
) -> None:
    headers = {"Content-Type": media_type}
    if size:
        headers["Content-Length"] = str(size)
    connection = registry.connection()
    connection.request("PUT", target.removeprefix(f"http://{registry.address}"), body, headers)
    answer = connection.getresponse()
    if answer.status != 201:
        raise RuntimeError(f"PUT {target}: {answer.status} {answer.read(200)!r}")


def import_busybox(engine: Engine) -> None:
    """Gives an engine the image busybox, by the docker client."""
    subprocess.run(
        ["docker", "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"],
        input=busybox_root(), env=engine.environment(), capture_output=True, check=True,
    )  # fmt: skip
