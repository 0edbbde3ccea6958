"""Registries whose images attack the store: names that are paths, tags that are not."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.busybox import busybox_tar
from tests.support.daemon import PrivateDaemon, UnixConnection, wait_until
from tests.support.scripted import Ask, Reply, ScriptedServer, scripted
from tests.support.served import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Served, leftovers, tar_of

pytestmark = [pytest.mark.e2e]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    daemon = PrivateDaemon(tmp_path_factory.mktemp("hostile"), "--max-download-attempts", "1")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(autouse=True)
def nothing_left(daemon: PrivateDaemon) -> Iterator[None]:
    """After each test, and without a prune, no image, no layer, no blob."""
    yield
    for image in daemon.request("GET", "/images/json?all=1")[1]:
        daemon.request("DELETE", f"/images/{image['Id']}?force=1")
    wait_until(lambda: leftovers(daemon) == [], what="the store to be empty")


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


# -- requests ------------------------------------------------------------------------------

ZERO = f"sha256:{'0' * 64}"
WRONG: list[tuple[str, str, int, str]] = [
    ("POST", "/images/create?fromImage=x&tag=5000/evil", 400, "invalid tag format"),
    ("POST", "/images/create?fromImage=x&tag=1@" + ZERO, 400, "invalid tag format"),
    ("POST", "/images/create?fromSrc=-&repo=x&tag=5000/evil", 400, "invalid tag format"),
    ("POST", f"/images/create?fromSrc=-&repo=x@{ZERO}", 400, "digest reference"),
    ("POST", "/images/x/tag?repo=y&tag=5000/evil", 400, "invalid tag format"),
    ("POST", "/images/x/push?tag=5000/evil", 400, "invalid tag format"),
    ("POST", f"/images/x/push?tag={ZERO}", 400, "invalid tag format"),
    ("GET", f"/distribution/{ZERO}/json", 400, "no manifest found for full image ID"),
    ("GET", "/images/search?term=x&limit=101", 400, "outside the range of [1, 100]"),
    ("GET", '/images/search?term=x&filters={"foo":["1"]}', 400, "invalid filter 'foo'"),
    ("GET", '/images/search?term=x&filters={"stars":["x"]}', 400, "invalid filter 'stars=x'"),
    ("POST", '/images/prune?filters={"dangling":[]}', 200, ""),
    ("POST", '/images/prune?filters={"keep":[],"lru":[]}', 200, ""),
]


@pytest.mark.parametrize(("method", "path", "status", "words"), WRONG)
def test_wrong_requests(
    daemon: PrivateDaemon, method: str, path: str, status: int, words: str
) -> None:
    answered, body = daemon.request(method, path)
    assert (answered, words in str(body)) == (status, True), body


def test_a_push_of_nothing_says_so_in_its_stream(daemon: PrivateDaemon) -> None:
    status, body = daemon.request("POST", "/images/127.0.0.1:1/nope/push?tag=1")
    assert status == 200
    assert b"The push refers to repository [127.0.0.1:1/nope]" in body
    assert b"An image does not exist locally with the tag: 127.0.0.1:1/nope" in body


@pytest.mark.parametrize("auth", ["garbage!!", "W10=", "bnVsbA==", "x" * 1000])
def test_credentials_that_are_none(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, auth: str
) -> None:
    served.image([tar_of({"a": b""})], tag="1")
    path = f"/images/create?fromImage={registry.host}/x:1"
    status, body = daemon.request("POST", path, headers={"X-Registry-Auth": auth})
    assert status == 200 and b"Downloaded newer image" in body


def test_a_tag_with_a_digest_is_pulled_by_the_digest(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    made = served.image([tar_of({"a": b""})], tag="1")
    assert not pull(daemon, f"{registry.host}/x:1@{made['digest']}")
    (image,) = daemon.request("GET", "/images/json")[1]
    assert image["RepoTags"] == []
    assert image["RepoDigests"] == [f"{registry.host}/x@{made['digest']}"]


def test_a_remote_image_whose_config_is_none(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    config = served.blob(b"[1, 2", OCI_CONFIG)
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
    served.manifest(body, OCI_MANIFEST, "1")
    status, answer = daemon.request("GET", f"/distribution/{registry.host}/x:1/json")
    assert status == 400 and "damaged" in answer["message"]


def test_nothing_stays_of_what_breaks_off_early(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    """Before there is anything worth going on from: manifests, an artifact's first blob."""
    made = served.image([tar_of({"a": b""})], tag="1")
    config = json.loads(served.manifests[made["digest"]][1])["config"]["digest"]
    served.faults[config] = lambda _, reply: replace(reply, cut=5)
    assert pull(daemon, f"{registry.host}/x:1")
    blobs = [served.blob(text, "application/x") for text in (b"{}", b"second" * 100)]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blobs[0], "layers": blobs[1:]}
    served.manifest(body, OCI_MANIFEST, "2")
    served.faults[blobs[1]["digest"]] = lambda _, reply: replace(reply, cut=5)
    assert pull(daemon, f"{registry.host}/x:2")
    assert leftovers(daemon) == []


def test_a_layer_that_another_registry_gives_wrongly(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    """Whoever waits for somebody else's fetch of a layer does not fail with it."""
    layer = tar_of({"file": b"1" * 5000})
    served.image([layer], tag="1")
    wicked = Served()
    blob = wicked.layer_of(wicked.image([layer], tag="1"))
    is_asked, is_waited_for = threading.Event(), threading.Event()

    def wrong(_: Ask, reply: Reply) -> Reply:
        is_asked.set()
        assert is_waited_for.wait(20)
        return replace(reply, body=bytes(len(reply.body)))

    wicked.faults[blob] = wrong
    results: list[str] = []
    with scripted(wicked) as other:
        first = threading.Thread(target=lambda: results.append(pull(daemon, f"{other.host}/x:1")))
        first.start()
        assert is_asked.wait(20)
        connection = UnixConnection(daemon.socket)
        connection.request("POST", f"/images/create?fromImage={registry.host}/x:1")
        answer = connection.getresponse()
        lines = [answer.readline(), answer.readline()]
        assert b"Pulling fs layer" in lines[1]
        is_waited_for.set()
        rest = answer.read()
        first.join(30)
        connection.close()
    assert "digest" in results[0] or "tar" in results[0] or "mismatch" in results[0], results
    assert b"Downloaded newer image" in rest, rest
