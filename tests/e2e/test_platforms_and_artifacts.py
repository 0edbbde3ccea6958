"""Images of several platforms under one tag, and artifacts, in every command of images."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.registry import OwnRegistry
from tests.support.scripted import ScriptedServer, scripted
from tests.support.served import OCI_MANIFEST, Served, tar_of

pytestmark = pytest.mark.e2e
ARM = '{"architecture":"arm64"}'


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def source(served: Served) -> Iterator[ScriptedServer]:
    with scripted(served) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def daemon(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon()
    made.start()
    return made


def ask(daemon: PrivateDaemon, method: str, path: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/x-tar"} if isinstance(body, bytes) else {}
    status, answer = daemon.request(method, path, body, headers)
    text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert status < 300 and b"errorDetail" not in text, answer
    return answer


def images(daemon: PrivateDaemon) -> dict[str, list[str]]:
    """Digests by the tags of each image."""
    listed = ask(daemon, "GET", "/images/json")
    return {" ".join(image["RepoTags"]): image["RepoDigests"] for image in listed}


def check_empty(daemon: PrivateDaemon) -> None:
    root = daemon.data_root / "images"
    wait_until(
        lambda: not [p for name in ("layers", "blobs/sha256") for p in (root / name).iterdir()],
        what="the store to be empty",
    )


def test_platforms_travel_together(
    daemon: PrivateDaemon, served: Served, source: ScriptedServer, target: OwnRegistry
) -> None:
    shared = tar_of({"shared": b"1"})
    amd = served.image([tar_of({"amd": b""}), shared])
    arm = served.image([tar_of({"arm": b""}), shared], architecture="arm64")
    index = served.index(amd, arm, tag="1")
    name, other = f"{source.host}/x", f"{target.host}/y"
    ask(daemon, "POST", f"/images/create?fromImage={name}:1")
    ask(daemon, "POST", f"/images/create?fromImage={name}:1&platform=linux/arm64")
    ask(daemon, "POST", f"/images/{name}:1/tag?repo={other}&tag=1")
    ask(daemon, "POST", f"/images/{other}/push?tag=1")
    remote = ask(daemon, "GET", f"/distribution/{other}:1/json")
    assert remote["Descriptor"]["digest"] == index["digest"]
    for image in ask(daemon, "GET", "/images/json"):
        assert sorted(image["RepoDigests"]) == sorted(
            f"{one}@{index['digest']}" for one in (name, other)
        )
    assert b"up to date" in ask(daemon, "POST", f"/images/create?fromImage={other}:1")
    ask(daemon, "DELETE", f"/images/{name}:1?platforms={ARM}")
    ask(daemon, "POST", f"/images/{other}/push?tag=1")
    remote = ask(daemon, "GET", f"/distribution/{other}:1/json")
    assert remote["Descriptor"]["digest"] == index["digest"], "both are there under that tag"
    saved = ask(daemon, "GET", f"/images/{other}:1/get")
    ask(daemon, "DELETE", f"/images/{other}:1")
    assert list(images(daemon)) == [f"{name}:1"]
    ask(daemon, "DELETE", f"/images/{name}:1")
    check_empty(daemon)
    ask(daemon, "POST", "/images/load", saved)
    assert len(ask(daemon, "GET", "/images/json")) == 2
    ask(daemon, "DELETE", f"/images/{other}:1")
    check_empty(daemon)


def test_an_artifact_in_every_command(
    daemon: PrivateDaemon, served: Served, source: ScriptedServer, target: OwnRegistry
) -> None:
    blobs = [
        served.blob(b"{}", "application/vnd.cncf.helm.config.v1+json"),
        served.blob(gzip.compress(b"chart"), "application/vnd.cncf.helm.chart.v1.tar+gzip"),
        served.blob(tar_of({"a": b"1"}), "application/x-tar"),
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blobs[0], "layers": blobs[1:]}
    made = served.manifest(body, OCI_MANIFEST, "1")
    name, other = f"{source.host}/chart:1", f"{target.host}/chart"
    ask(daemon, "POST", f"/images/create?fromImage={name}")
    assert b"up to date" in ask(daemon, "POST", f"/images/create?fromImage={name}")
    (listed,) = ask(daemon, "GET", "/images/json?shared-size=1&manifests=1")
    assert listed["Size"] == sum(blob["size"] for blob in blobs)
    assert ask(daemon, "GET", f"/images/{name}/history") == []
    assert len(ask(daemon, "GET", "/system/df")["Images"]) == 1
    assert daemon.request("POST", "/containers/create", {"Image": name, "Cmd": ["x"]})[0] == 400
    ask(daemon, "POST", f"/images/{name}/tag?repo={other}&tag=1")
    ask(daemon, "POST", f"/images/{other}/push?tag=1")
    remote = ask(daemon, "GET", f"/distribution/{other}:1/json")
    assert remote["Descriptor"]["digest"] == made["digest"]
    ask(daemon, "DELETE", f"/images/{name}")
    ask(daemon, "POST", '/images/prune?filters={"dangling":["false"]}')
    assert ask(daemon, "GET", "/images/json") == []
    check_empty(daemon)
