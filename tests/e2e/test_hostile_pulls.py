"""Registries whose images attack the store: names that are paths, tags that are not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.busybox import busybox_tar
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.scripted import ScriptedServer, scripted
from tests.support.served import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Served, tar_of

pytestmark = [pytest.mark.e2e]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    daemon = PrivateDaemon(tmp_path_factory.mktemp("hostile"), "--max-download-attempts", "1")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def registry(served: Served) -> Iterator[ScriptedServer]:
    with scripted(served) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left(daemon: PrivateDaemon) -> Iterator[None]:
    """After each test, and without a prune, no image, no layer, no blob."""
    yield
    for image in daemon.request("GET", "/images/json?all=1")[1]:
        daemon.request("DELETE", f"/images/{image['Id']}?force=1")
    wait_until(lambda: leftovers(daemon) == [], what="the store to be empty")


def leftovers(daemon: PrivateDaemon) -> list[str]:
    root = daemon.data_root / "images"
    return [
        str(path.relative_to(root))
        for folder in ("layers", "partial", "blobs/sha256", "blobs/sha512", "ingest")
        for path in (root / folder).iterdir()
    ]


def pull(daemon: PrivateDaemon, name: str) -> str:
    """The error, empty without one."""
    status, answer = daemon.request("POST", f"/images/create?fromImage={name}")
    if status != 200:
        return str(answer["message"])
    lines = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return str(json.loads(lines.splitlines()[-1]).get("error", ""))


def image_of(served: Served, diff_ids: list[str], layers: list[bytes], tag: str) -> Any:
    """An image whose config says of its layers what it likes."""
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": served.blob(json.dumps(config).encode(), OCI_CONFIG),
        "layers": [served.blob(gzip.compress(tar), f"{OCI_LAYER}+gzip") for tar in layers],
    }
    return served.manifest(body, OCI_MANIFEST, tag)


def test_a_layer_that_is_named_by_a_path(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    """A container leaves in its volume what looks like a layer, a symlink to the host."""
    view = daemon.request("POST", "/volumes/create", {"Name": "planted"})[1]
    volume = Path(view["Mountpoint"])
    name = f"sha256:../../{volume.relative_to(daemon.data_root)}"
    facts = {"diff_id": name, "size_bytes": 0, "tar_bytes": 0}
    (volume / "layer.json").write_text(json.dumps(facts))
    (volume / "diff").symlink_to("/etc")
    try:
        image_of(served, [name], [busybox_tar()], "evil")
        assert "digest" in pull(daemon, f"{registry.host}/x:evil")
        assert daemon.request("GET", f"/images/{registry.host}/x:evil/json")[0] == 404
    finally:
        daemon.request("DELETE", "/volumes/planted")


@pytest.mark.parametrize("diff_id", ["", "x", "sha256:", "sha256:../x", "sha512:" + "0" * 128])
def test_layers_without_a_digest(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, diff_id: str
) -> None:
    image_of(served, [diff_id], [tar_of({"a": b""})], "1")
    assert "digest" in pull(daemon, f"{registry.host}/x:1")
