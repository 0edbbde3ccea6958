"""What is measured of images and registries: each returns seconds, bytes or a rate."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from bench import material, memory
from bench.disk import settle
from bench.peers import Engine
from bench.registries import Registry
from bench.works import timed

_WRK_SECONDS = 2
_REQUESTS = re.compile(r"Requests/sec:\s+([\d.]+)")
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.+)")
_LOCATION = re.compile(r"^location:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_MANIFESTS = (
    "Accept: application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.manifest.v1+json"
)

# -- engines ---------------------------------------------------------------------------------


def pull(engine: Engine, name: str) -> float:
    return timed(lambda: engine.docker("pull", name))


def pull_debian(engine: Engine, registry: Registry, number: int) -> float:
    """A pull of one of the Debian images, which the engine does not have."""
    settle(material.layers())
    return pull(engine, f"{registry.address}/debian:{number}")


def pull_anew(engine: Engine, name: str) -> float:
    """A pull of what the engine does not have; what it makes is removed again."""
    seconds = pull(engine, name)
    engine.docker("rmi", name)
    # Ours deletes the files in the background.
    while any((engine.root / "data/images/ingest").glob("*")):
        time.sleep(0.02)
    return seconds


def push(engine: Engine, registry: Registry, number: int) -> float:
    """A local image to a repository of this engine alone, where nothing of it is."""
    target = f"{registry.address}/{engine.name}/debian-{number}"
    engine.docker("tag", f"debian:{number}", target)
    return timed(lambda: engine.docker("push", target))


def save(engine: Engine, name: str) -> float:
    def whole() -> None:
        subprocess.run(
            ["docker", "save", name], stdout=subprocess.DEVNULL, env=engine.environment(),
            check=True,
        )  # fmt: skip

    return timed(whole)


def load(engine: Engine, archive: Path) -> float:
    settle([archive])
    with archive.open("rb") as file:
        return timed(lambda: engine.docker("load", stdin=file))


def pull_growth(engine: Engine, name: str) -> float:
    """Bytes that the daemon and its helpers grow by, at most, during a pull."""
    with memory.watched(engine.processes) as peak:
        engine.docker("pull", name)
        growth = peak.stop() - peak.before
    os.sync()
    return growth


# -- registries ------------------------------------------------------------------------------


def upload(registry: Registry, blob: Path, digest: str) -> float:
    """Bytes a second, sent as Docker Engine does it: POST, PATCH of unknown length, PUT."""
    os.sync()
    seconds = timed(lambda: _upload(registry, "blobs", blob, digest))
    return blob.stat().st_size / seconds


def download(registry: Registry, size: int, digest: str) -> float:
    url = f"http://{registry.address}/v2/blobs/blobs/{digest}"
    seconds = timed(lambda: _curl("-o", "/dev/null", url))
    return size / seconds


def upload_memory(registry: Registry, blob: Path, digest: str) -> float:
    """Bytes that the registry's processes have, at most, while the blob comes in."""
    with memory.watched(registry.processes) as peak:
        _upload(registry, "large", blob, digest)
        return peak.stop()


def manifests(registry: Registry, reference: str) -> float:
    """GET requests a second over four connections that stay open, one after another on each."""
    command = ["wrk", "-t", "1", "-c", "4", "-d", str(_WRK_SECONDS), "-H", _MANIFESTS]
    url = f"http://{registry.address}/v2/{reference}"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found, failed = _REQUESTS.search(done), _FAILED.search(done)
    if found is None or failed is not None:
        raise RuntimeError(f"wrk {url}: {done[-300:]}")
    return float(found[1])


def _upload(registry: Registry, repository: str, blob: Path, digest: str) -> None:
    location = material.begin_upload(registry, repository)
    with blob.open("rb") as file:
        headers = _curl(
            "-X", "PATCH", "-H", "Expect:", "-H", "Content-Type: application/octet-stream",
            "-T", "-", "-D", "-", location, stdin=file,
        )  # fmt: skip
    found = _LOCATION.search(headers)
    if found is None:
        raise RuntimeError(f"{registry.name} told no Location: {headers[:300]}")
    target = registry.absolute(found[1])
    _curl("-X", "PUT", f"{target}{'&' if '?' in target else '?'}digest={digest}")


def _curl(*arguments: str, stdin: object = subprocess.DEVNULL) -> str:
    command = ["curl", "-sS", "--fail", *arguments]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return str(done.stdout)
