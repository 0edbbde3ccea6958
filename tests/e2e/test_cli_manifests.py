"""Manifest lists: `estiba` and `docker` side by side on genuine registries."""

# ruff: noqa: E501 - a command line a line

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.parity import ESTIBA, Result, neutral, run
from tests.support.peers import Peers, genuine_peers, random_layer
from tests.support.registries import GenuineRegistry

from estiba.cli import manifestregistry, manifests
from estiba.cli.refs import reference
from estiba.distribution.repository import Repository

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    pytest.mark.skipif(
        not GenuineRegistry.is_installed(), reason="docker-registry is not installed"
    ),
    needs_docker(28),
]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    with genuine_peers(tmp_path_factory.mktemp("peers")) as made:
        yield made


MANIFESTS = """\
manifest create --insecure {plain}/multi/x:all {plain}/team/app:1 {plain}/multi/x:amd64
manifest create --insecure {plain}/multi/x:all {plain}/multi/x:amd64
manifest create --insecure --amend {plain}/multi/x:all {plain}/multi/x:other
manifest inspect {plain}/multi/x:all
manifest inspect -v {plain}/multi/x:all
manifest inspect {plain}/multi/x:all {plain}/multi/x:amd64
manifest inspect -v {plain}/multi/x:all {plain}/multi/x:amd64
manifest inspect {plain}/multi/x:all {plain}/multi/x:nosuch
manifest inspect --insecure {plain}/multi/x:amd64
manifest inspect --insecure -v {plain}/multi/x:amd64
manifest annotate --arch arm64 --variant v8 --os-version 10 --os-features a --os-features b,c {plain}/multi/x:all {plain}/multi/x:other
manifest annotate --arch bogus {plain}/multi/x:all {plain}/multi/x:other
manifest annotate --arch arm64 {plain}/multi/x:all {plain}/multi/x:nosuch
manifest annotate --arch arm64 {plain}/multi/x:nosuch {plain}/multi/x:other
manifest annotate --os linux UPPER {plain}/multi/x:other
manifest inspect {plain}/multi/x:all
manifest push --insecure {plain}/multi/x:all
manifest push --insecure --purge {plain}/multi/x:all
manifest inspect --insecure {plain}/multi/x:all
manifest inspect -v --insecure {plain}/multi/x:all
manifest push --insecure {plain}/multi/x:all
manifest create --insecure {plain}/multi/z:1 {plain}/nosuch:1
manifest create --insecure {plain}/multi/z:2 {plain}/team/app:1
manifest push --insecure {plain}/multi/z:2
manifest create --insecure other.example/z:1 {plain}/team/app:1
manifest push other.example/z:1
manifest inspect other.example/z:1
manifest create --insecure {plain}/multi/z:3 {plain}/multi/x:all
manifest rm {plain}/multi/z:2 nosuch other.example/z:1
manifest create --insecure {plain}/oci/z:1 {plain}/oci/x:1
manifest inspect {plain}/oci/z:1
manifest push --insecure {plain}/oci/z:1
manifest inspect --insecure {plain}/oci/z:1
manifest inspect --insecure -v {plain}/oci/index:1
manifest inspect --insecure {plain}/oci/index:1
manifest create UPPER a
manifest create x:1 UPPER
manifest create x:1
manifest rm
manifest inspect UPPER
manifest create --insecure {plain}/multi/left:1 {plain}/multi/x:amd64 {plain}/oci/x:1
"""


def test_manifest_lists(peers: Peers, tmp_path: Path) -> None:
    """The same answers, the same files left behind, and in the registry the same digests."""
    for name, text in (("amd64", "1"), ("other", "2")):
        image = f"{peers.plain}/multi/x:{name}"
        peers.engine.docker("import", "-c", f"LABEL n={text}", "-", image, stdin=random_layer())
        peers.engine.docker("push", "-q", image)
    _put_oci(peers.plain)
    shown: list[list[Result]] = []
    left = []
    for program in (["docker"], ESTIBA):
        folder = tmp_path / program[-1]
        folder.mkdir()
        env = {"DOCKER_CONFIG": str(folder)}
        shown.append([
            neutral(run(peers.engine, program, peers.line(line), env=env))
            for line in MANIFESTS.splitlines()
        ])  # fmt: skip
        left.append({
            str(path.relative_to(folder)): json.loads(path.read_text())
            for path in folder.glob("manifests/*/*")
        })  # fmt: skip
    for line, theirs, ours in zip(MANIFESTS.splitlines(), *shown, strict=True):
        assert ours == theirs, line
    assert left[0] == left[1] and len(left[0]) == 3


def test_a_manifest_list_with_a_password(peers: Peers, tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path)}
    line = f"manifest inspect --insecure {peers.auth}/app"
    refused = run(peers.engine, ESTIBA, line, env=env)
    assert refused.code == 1 and "no basic auth credentials" in refused.err
    login = f"login -u joe --password-stdin {peers.auth}"
    assert run(peers.engine, ESTIBA, login, b"s3cret", env=env).code == 0
    assert run(peers.engine, ESTIBA, f"push -q {peers.auth}/app", env=env).code == 0
    assert json.loads(run(peers.engine, ESTIBA, line, env=env).out)["schemaVersion"] == 2
    # No daemon is needed, neither for this nor for logging in.
    away = {**env, "DOCKER_HOST": f"unix://{tmp_path}/nosuch"}
    assert run(peers.engine, ESTIBA, line, env=away).code == 0
    shutil.rmtree(tmp_path)
    wrong = run(peers.engine, ESTIBA, login, b"wrong", env=away)
    assert (wrong.code, wrong.out) == (1, "") and "unauthorized" in wrong.err
    assert run(peers.engine, ESTIBA, login, b"s3cret", env=away).out == "Login Succeeded\n"
    assert run(peers.engine, ESTIBA, line, env=away).code == 0


def test_layers_that_are_not_mounted_are_copied(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with registries that mount nothing, or not for this user."""
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path))
    monkeypatch.setattr(Repository, "mount_blob", lambda *_: False)
    entry = manifestregistry.fetch(reference(f"{peers.plain}/team/app:1"), insecure=True)
    target = reference(f"{peers.plain}/copied/app:1")
    kind, text = manifests.list_text(target, [entry])
    manifestregistry.push(target, [entry], kind, text.encode(), insecure=True)
    name = f"{peers.plain}/copied/app:1"
    assert run(peers.engine, ["docker"], f"pull -q {name}") == (0, f"{name}\n", "")


def _put_oci(host: str) -> None:
    """An OCI image for arm64 without layers, and an index that names it."""
    config = json.dumps({"architecture": "arm64", "os": "linux", "variant": "v8"}).encode()
    described = _descriptor("application/vnd.oci.image.config.v1+json", config)
    _send(host, "oci/x", "blob", config)
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind, "config": described, "layers": [],
        "annotations": {"a": "<b>&\u00e9"},
    }, ensure_ascii=False).encode()  # fmt: skip
    _send(host, "oci/x", "1", manifest, kind)
    _send(host, "oci/index", "blob", config)
    _send(host, "oci/index", _descriptor(kind, manifest)["digest"], manifest, kind)
    index = "application/vnd.oci.image.index.v1+json"
    platform = {"architecture": "arm", "os": "linux", "variant": "v7"}
    content = {
        "schemaVersion": 2, "mediaType": index, "annotations": {"x": "y"},
        "manifests": [_descriptor(kind, manifest) | {"platform": platform}],
    }  # fmt: skip
    _send(host, "oci/index", "1", json.dumps(content).encode(), index)


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _send(host: str, repository: str, target: str, data: bytes, kind: str = "") -> None:
    """A blob, or a manifest under a tag or its digest."""
    connection = http.client.HTTPConnection(host, timeout=30)
    base = f"/v2/{repository}"
    if target == "blob":
        connection.request("POST", f"{base}/blobs/uploads/")
        response = connection.getresponse()
        response.read()
        place = response.headers["Location"]
        join = "&" if "?" in place else "?"
        path = f"{place}{join}digest={_descriptor('', data)['digest']}"
    else:
        path = f"{base}/manifests/{target}"
    connection.request("PUT", path, data, {"Content-Type": kind or "application/octet-stream"})
    response = connection.getresponse()
    assert response.status == 201, response.read()
    connection.close()
