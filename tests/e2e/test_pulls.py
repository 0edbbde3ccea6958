"""Pulls from registries that break off, lie or hang, and what stays of them."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPException
from typing import Any

import pytest
import zstandard
from tests.support.busybox import busybox_tar
from tests.support.daemon import DEADLINE_S, PrivateDaemon, UnixConnection, wait_until
from tests.support.hostile import archive, member
from tests.support.scripted import Ask, Reply, ScriptedServer
from tests.support.served import OCI_LAYER, OCI_MANIFEST, Served, digest, leftovers, tar_of

pytestmark = [pytest.mark.e2e]
BIG = tar_of({"big": random.Random(1).randbytes(6 << 20)})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    daemon = PrivateDaemon(tmp_path_factory.mktemp("pulls"), "--max-download-attempts", "1")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(autouse=True)
def nothing_left(daemon: PrivateDaemon) -> Iterator[None]:
    """After each test no image, no layer, no blob."""
    yield
    for image in daemon.request("GET", "/images/json?all=1")[1]:
        daemon.request("DELETE", f"/images/{image['Id']}?force=1")
    daemon.request("POST", "/images/prune")
    wait_until(lambda: leftovers(daemon) == [], what="the store to be empty")


def pull(daemon: PrivateDaemon, name: str, **query: str) -> list[Any]:
    """The progress lines; what failed before the first one is a line too."""
    more = "".join(f"&{key}={value}" for key, value in query.items())
    status, answer = daemon.request("POST", f"/images/create?fromImage={name}{more}")
    if status != 200:
        return [{"error": answer["message"], "status": status}]
    lines = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return [json.loads(line) for line in lines.splitlines()]


def failure(lines: list[Any]) -> str:
    return str(lines[-1].get("error", ""))


def test_an_image_that_stays_itself(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    made = served.image([busybox_tar(), tar_of({"one": b"1"})], tag="1")
    name = f"{registry.host}/x:1"
    lines = pull(daemon, name)
    assert lines[-1]["status"] == f"Status: Downloaded newer image for {name}"
    assert {"status": f"Digest: {made['digest']}"} in lines
    assert daemon.run(name, "cat", "/one") == "1"
    asked = len(registry.asks)
    assert pull(daemon, name)[-1]["status"] == f"Status: Image is up to date for {name}"
    assert [ask.method for ask in registry.asks[asked:]] == ["HEAD"]
    view = daemon.request("GET", f"/images/{name}/json")[1]
    assert view["RepoDigests"] == [f"{registry.host}/x@{made['digest']}"]
    assert pull(daemon, f"{registry.host}/x@{made['digest']}")[-1]["status"].startswith("Status")


@pytest.mark.parametrize("form", ["zstd", "plain"])
def test_other_compressions(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, form: str
) -> None:
    how: tuple[Callable[[bytes], bytes], str] = (
        (zstandard.ZstdCompressor().compress, "+zstd") if form == "zstd" else (bytes, "")
    )
    served.image([busybox_tar()], tag="1", compress=how[0], suffix=how[1])
    name = f"{registry.host}/x:1"
    assert not failure(pull(daemon, name))
    assert daemon.run(name, "echo", "hi") == "hi\n"


def test_layers_that_images_share_come_once(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    first = served.image([BIG, tar_of({"a": b"a"})], tag="a")
    served.image([tar_of({"b": b"b"}), BIG], tag="b")
    for tag in "ab":
        assert not failure(pull(daemon, f"{registry.host}/x:{tag}"))
    shared = served.layer_of(first)
    assert sum(shared in path for path in registry.paths("GET")) == 1
    assert len(list((daemon.data_root / "images" / "layers").iterdir())) == 3


def test_platforms_of_one_tag_side_by_side(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    amd = served.image([tar_of({"amd": b""})])
    arm = served.image([tar_of({"arm": b""})], architecture="arm64")
    top = served.index(served.index(amd), arm, tag="1")
    top["platform"] = None
    name = f"{registry.host}/x:1"
    assert not failure(pull(daemon, name))
    assert not failure(pull(daemon, name, platform="linux/arm64"))
    views = [
        daemon.request("GET", f'/images/{name}/json?platform={{"architecture":"{one}"}}')
        for one in ("amd64", "arm64", "s390x")
    ]
    assert [status for status, _ in views] == [200, 200, 404]
    assert [view["Architecture"] for _, view in views[:2]] == ["amd64", "arm64"]
    assert daemon.request("GET", f"/images/{name}/json")[1]["Architecture"] == "amd64"
    assert "no matching manifest for linux/s390x" in failure(
        pull(daemon, name, platform="linux/s390x")
    )
    saved = daemon.docker("save", name).stdout
    daemon.docker("rmi", name)
    assert daemon.request("GET", "/images/json")[1] == []
    daemon.docker("load", stdin=saved)
    listed = daemon.request("GET", "/images/json")[1]
    assert [image["RepoTags"] for image in listed] == [[name], [name]]


def test_an_artifact_is_kept_as_it_came(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    blobs = [served.blob(b"{}", "application/vnd.cncf.helm.config.v1+json")]
    blobs += [served.blob(gzip.compress(b"chart"), "application/vnd.cncf.helm.chart.v1.tar+gzip")]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blobs[0], "layers": blobs[1:]}
    made = served.manifest(body, OCI_MANIFEST, "1")
    name = f"{registry.host}/chart:1"
    assert not failure(pull(daemon, name))
    view = daemon.request("GET", f"/images/{name}/json")[1]
    assert view["ArtifactType"] == blobs[0]["mediaType"]
    done = daemon.docker("create", name, "sh", check=False)
    assert done.returncode == 1 and b"not an image: nothing in it runs" in done.stderr
    saved = daemon.docker("save", name).stdout
    daemon.docker("rmi", name)
    daemon.docker("load", stdin=saved)
    again = daemon.request("GET", f"/images/{made['digest']}/json")[1]
    assert again["RepoTags"] == [name]


def test_all_tags_of_a_repository(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    for tag in ("1", "2"):
        served.image([tar_of({tag: b""})], tag=tag)

    def script(ask: Ask) -> Reply:
        if ask.path.startswith("/v2/x/tags/list"):
            return Reply(body=b'{"name": "x", "tags": ["1", "2"]}')
        return served(ask)

    registry.script = script
    assert not failure(pull(daemon, f"{registry.host}/x"))
    listed = daemon.request("GET", "/images/json")[1]
    assert sorted(tag for image in listed for tag in image["RepoTags"]) == [
        f"{registry.host}/x:{tag}" for tag in ("1", "2")
    ]


# -- interrupted ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_pull_goes_on_where_it_was(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, is_killed: bool
) -> None:
    """After a broken connection, and after the daemon was killed with the registry hanging."""
    done, big = tar_of({"done": b"1" * 2000}), BIG
    made = served.image([done, big], tag="1")
    blob = served.layer_of(made, 1)
    half = 2 << 20
    fault = {"hang": half} if is_killed else {"cut": half}
    name = f"{registry.host}/x:1"
    partial = daemon.data_root / "images" / "partial" / blob.replace(":", "-")
    layers = daemon.data_root / "images" / "layers"

    def broken(_: Ask, reply: Reply) -> Reply:
        """When the other layer is whole: a pull that fails ends what is under way."""
        wait_until(lambda: any(layers.iterdir()), what="the other layer")
        return replace(reply, **fault)

    served.faults[blob] = broken
    if is_killed:
        threading.Thread(target=lambda: _ignoring(pull, daemon, name), daemon=True).start()
        wait_until(
            lambda: partial.exists() and partial.stat().st_size == half and any(layers.iterdir()),
            what="half of the layer",
        )
        daemon.kill9()
        daemon.start()
    else:
        assert failure(pull(daemon, name))
        assert partial.stat().st_size == half
    del served.faults[blob]
    asked = len(registry.asks)
    lines = pull(daemon, name)
    assert not failure(lines), lines
    ranges = [ask.header("Range") for ask in registry.asks[asked:] if blob in ask.path]
    assert ranges == [f"bytes={half}-"]
    first = served.layer_of(made, 0)
    assert not any(first in path for path in registry.paths()[asked:]), "it was whole already"


def _ignoring(function: Callable[..., Any], *arguments: Any) -> None:
    """The daemon is killed under it."""
    with contextlib.suppress(OSError, ValueError, HTTPException):
        function(*arguments)


def test_a_damaged_beginning_is_fetched_anew(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    made = served.image([BIG], tag="1")
    blob = served.layer_of(made)
    served.faults[blob] = lambda _, reply: replace(reply, cut=2 << 20)
    name = f"{registry.host}/x:1"
    assert failure(pull(daemon, name))
    partial = daemon.data_root / "images" / "partial" / blob.replace(":", "-")
    with partial.open("r+b") as file:
        file.seek(1 << 20)
        file.write(bytes(4096))
    del served.faults[blob]
    assert not failure(pull(daemon, name))


def test_two_pulls_share_the_work(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    made = served.image([BIG], tag="1")
    blob = served.layer_of(made)
    go_on, both = threading.Event(), threading.Semaphore(0)

    def slow(_: Ask, reply: Reply) -> Reply:
        assert go_on.wait(3 * DEADLINE_S)
        return reply

    def counted(_: Ask, reply: Reply) -> Reply:
        both.release()
        return reply

    served.faults[blob] = slow
    config = json.loads(served.manifests[made["digest"]][1])["config"]["digest"]
    served.faults[config] = counted
    results: list[list[Any]] = []
    threads = [
        threading.Thread(target=lambda: results.append(pull(daemon, f"{registry.host}/x:1")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert all(both.acquire(timeout=DEADLINE_S) for _ in range(2)), results
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [failure(lines) for lines in results] == ["", ""]
    assert sum(blob in path for path in registry.paths("GET")) == 1


@pytest.mark.parametrize("where", ["manifest", "layer"])
def test_who_leaves_ends_the_pull_and_nothing_stays(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, where: str
) -> None:
    made = served.image([tar_of({"small": b"1"}), BIG], tag="1")
    name = served.layer_of(made, 1) if where == "layer" else "1"
    served.faults[name] = lambda _, reply: replace(reply, hang=min(2 << 20, len(reply.body) // 2))
    connection = UnixConnection(daemon.socket)
    connection.request("POST", f"/images/create?fromImage={registry.host}/x:1")
    wait_until(lambda: any(name in path for path in registry.paths("GET")), what="the request")
    if where == "layer":
        wait_until(
            lambda: any("partial/" in path for path in leftovers(daemon)), what="half a layer"
        )
    connection.close()
    wait_until(lambda: leftovers(daemon) == [], what="everything to go")


def test_a_disk_that_fills_up(
    served: Served, registry: ScriptedServer, make_daemon: Callable[..., PrivateDaemon]
) -> None:
    daemon = make_daemon()
    daemon.data_root.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", daemon.data_root], check=True
    )
    try:
        daemon.start()
        big = tar_of({"big": random.Random(2).randbytes(64 << 20)})
        served.image([tar_of({"small": b"1"}), big], tag="1")
        assert "No space left on device" in failure(pull(daemon, f"{registry.host}/x:1"))
        wait_until(lambda: leftovers(daemon) == [], what="everything to go")
    finally:
        daemon.stop()
        subprocess.run(["umount", daemon.data_root], check=True)


# -- hostile -------------------------------------------------------------------------------


def _changed(**fields: Any) -> Callable[[Served, Any], None]:
    def change(served: Served, made: Any) -> None:
        blob = served.layer_of(made)
        served.faults[blob] = lambda _, reply: replace(reply, **fields)

    return change


def _other_content(served: Served, made: Any) -> None:
    blob = served.layer_of(made)
    other = gzip.compress(tar_of({"evil": b"1"}))
    served.faults[blob] = lambda _, reply: replace(reply, body=other)


def _wrong_size(served: Served, made: Any) -> None:
    body = json.loads(served.manifests[made["digest"]][1])
    body["layers"][0]["size"] += 7
    served.manifest(body, OCI_MANIFEST, "1")


def _wrong_diff_id(served: Served, made: Any) -> None:
    body = json.loads(served.manifests[made["digest"]][1])
    body["layers"] = [served.blob(gzip.compress(tar_of({"other": b""})), f"{OCI_LAYER}+gzip")]
    served.manifest(body, OCI_MANIFEST, "1")


def _fewer_layers(served: Served, made: Any) -> None:
    body = json.loads(served.manifests[made["digest"]][1])
    body["layers"] = []
    served.manifest(body, OCI_MANIFEST, "1")


def _moved_tag(served: Served, made: Any) -> None:
    """What the tag says is another manifest than its digest names."""
    media_type, body = served.manifests["1"]
    served.manifests["1"] = (media_type, body + b" ")
    served.faults["1"] = lambda _, reply: replace(
        reply, headers={**reply.headers, "Docker-Content-Digest": made["digest"]}
    )


def _oversize(served: Served, made: Any) -> None:
    served.manifest(b'{"a": "' + b"x" * (5 << 20) + b'"}', OCI_MANIFEST, "1")


def _deep(served: Served, made: Any) -> None:
    entry = {key: made[key] for key in ("mediaType", "digest", "size")}
    for _ in range(8):
        entry = served.index(entry)
    served.index(entry, tag="1")


def _both(served: Served, made: Any) -> None:
    body = json.loads(served.manifests[made["digest"]][1]) | {"manifests": []}
    served.manifest(body, OCI_MANIFEST, "1")


def _schema_1(served: Served, made: Any) -> None:
    served.manifest({"schemaVersion": 1, "fsLayers": []}, OCI_MANIFEST, "1")


def _windows(served: Served, made: Any) -> None:
    body = json.loads(served.manifests[made["digest"]][1])
    config = json.loads(served.blobs[body["config"]["digest"]]) | {"os": "windows"}
    body["config"] = served.blob(json.dumps(config).encode(), body["config"]["mediaType"])
    served.manifest(body, OCI_MANIFEST, "1")


HOSTILE: dict[str, tuple[Callable[[Served, Any], None], str]] = {
    "other content": (_other_content, "digest|bytes"),
    "cut off": (_changed(cut=100), "broke|closed|went away|ended|cut|bytes"),
    "wrong size": (_wrong_size, "bytes|size|length"),
    "another layer than the config says": (_wrong_diff_id, "mismatch"),
    "fewer layers than the config says": (_fewer_layers, "names 1 layers"),
    "tag and digest differ": (_moved_tag, "digest"),
    "a large manifest": (_oversize, "4194304|4 MiB|over"),
    "nested indexes": (_deep, "nested too deeply"),
    "manifest and index in one": (_both, "both a manifest and an index"),
    "schema 1": (_schema_1, "schema"),
    "another system": (_windows, "cannot be used on this platform"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_registries_that_lie(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, name: str
) -> None:
    change, words = HOSTILE[name]
    change(served, served.image([tar_of({"file": b"1" * 5000})], tag="1"))
    said = failure(pull(daemon, f"{registry.host}/x:1"))
    assert any(word in said for word in words.split("|")), said
    assert daemon.request("GET", "/images/json")[1] == []


LAYERS: dict[str, tuple[bytes, str]] = {
    "leads out": (archive(member("../evil", data=b"x")), "leads out"),
    "a bomb": (gzip.compress(bytes(1 << 20)), "tar|damaged|cut off|layer"),
    "no tar": (b"nothing of the kind" * 100, "tar|damaged|cut off|mismatch"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_attack(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer, name: str
) -> None:
    data, words = LAYERS[name]
    served.image([data], tag="1")
    said = failure(pull(daemon, f"{registry.host}/x:1"))
    assert any(word in said for word in words.split("|")), said


def test_what_is_not_there(daemon: PrivateDaemon, registry: ScriptedServer) -> None:
    status, answer = daemon.request("POST", f"/images/create?fromImage={registry.host}/x&tag=1")
    assert status == 404
    assert answer["message"].startswith(f"manifest for {registry.host}/x:1 not found")
    for bad in ("UPPER", "x:%20", "http://x/y", "x@sha256:1"):
        assert daemon.request("POST", f"/images/create?fromImage={bad}")[0] == 400
    wanted = digest(b"nothing")
    assert daemon.request("POST", f"/images/create?fromImage={registry.host}/x@{wanted}")[0] == 404
