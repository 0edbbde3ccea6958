"""kill -9 of the daemon at every step of pull, push, load, tag, rmi and prune.

Whatever the instant: an image is wholly there or not at all, what broke off can be done again,
and when the image goes nothing stays, without a prune.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection, wait_until
from tests.support.registry import OwnRegistry
from tests.support.scripted import ScriptedServer, scripted
from tests.support.served import Served, digest, tar_of

pytestmark = pytest.mark.e2e

LAYERS = [
    tar_of({"small": b"1" * 4000}),
    tar_of({"big": random.Random(3).randbytes(3 << 20)}),
]
PULL = [
    "content.written",
    "lease.written",
    "layer.unpacked",
    "layer.renamed",
    "layer.renamed#2",
    "pull.layer",
    "pull.layer#2",
    "image.writing",
    "image.written",
]
LOAD = [
    "layer.unpacked",
    "layer.renamed",
    "layer.renamed#2",
    "content.written",
    "image.writing",
    "image.written",
]
# A start collects too, and a prune what pulls have left before it comes to the images.
REMOVE = ["image.writing", "image.written", "collect.layers#2"]
PRUNE = ["leases.forgotten", "image.writing", "image.written", "collect.layers#3"]
PUSH = ["push.manifest", "image.writing", "image.written"]


@pytest.fixture
def served() -> Served:
    served = Served()
    served.image(LAYERS, tag="1")
    return served


@pytest.fixture
def registry(served: Served) -> Iterator[ScriptedServer]:
    with scripted(served) as server:
        yield server


@pytest.fixture
def daemon(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon("--max-download-attempts", "1")
    made.start()
    return made


def die_in(daemon: PrivateDaemon, point: str, action: Callable[[], Any]) -> None:
    """Does `action` on a daemon that dies at `point`, and starts it again."""
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        action()
    try:
        daemon.wait_death()
    except TimeoutError:
        pytest.fail(f"{point} was not reached")
    daemon.start()


def leftovers(daemon: PrivateDaemon) -> list[str]:
    root = daemon.data_root / "images"
    folders = ("layers", "partial", "blobs/sha256", "ingest", "../tmp")
    return [str(path.relative_to(root)) for name in folders for path in (root / name).iterdir()]


def rows(daemon: PrivateDaemon) -> list[str]:
    """What the database still knows of images."""
    with contextlib.closing(sqlite3.connect(daemon.data_root / "estiba.db")) as database:
        found = database.execute(
            "SELECT kind FROM records WHERE kind IN ('image', 'pull-lease', 'image-usage')"
        )
        return [str(kind) for (kind,) in found]


def pull(daemon: PrivateDaemon, name: str) -> None:
    status, answer = daemon.request("POST", f"/images/create?fromImage={name}")
    lines = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert status == 200 and b'"error"' not in lines, lines


def check_whole(daemon: PrivateDaemon, name: str) -> None:
    """It can be saved, and loaded again under the digest that it had."""
    status, view = daemon.request("GET", f"/images/{name}/json")
    assert status == 200, view
    status, saved = daemon.request("GET", f"/images/{name}/get")
    assert status == 200 and len(saved) > 3 << 20
    assert view["Id"].removeprefix("sha256:").encode() in saved


def check_gone(daemon: PrivateDaemon, *names: str) -> None:
    """When the images go nothing stays."""
    for name in names:
        assert daemon.request("DELETE", f"/images/{name}?force=1")[0] == 200
    assert daemon.request("GET", "/images/json?all=1")[1] == []
    wait_until(lambda: leftovers(daemon) == [], what="the files to go")
    wait_until(lambda: rows(daemon) == [], what="the rows to go")


@pytest.mark.parametrize("point", PULL)
def test_killed_in_pull(daemon: PrivateDaemon, registry: ScriptedServer, point: str) -> None:
    name = f"{registry.host}/x:1"
    die_in(daemon, point, lambda: pull(daemon, name))
    if point == "image.written":
        check_whole(daemon, name)
    else:
        assert daemon.request("GET", "/images/json?all=1")[1] == []
        asked = len(registry.asks)
        pull(daemon, name)
        blobs = [path for path in registry.paths("GET")[asked:] if "blobs" in path]
        if point.endswith("#2") or point == "image.writing":
            assert len(blobs) <= 2, "layers that were whole came again"
        check_whole(daemon, name)
    check_gone(daemon, name)


@pytest.mark.parametrize("point", ["lease.written", "layer.renamed"])
def test_a_pull_that_is_not_done_again(
    daemon: PrivateDaemon, registry: ScriptedServer, point: str
) -> None:
    die_in(daemon, point, lambda: pull(daemon, f"{registry.host}/x:1"))
    daemon.request("POST", "/images/prune")
    check_gone(daemon)


def test_a_stop_in_the_middle_of_a_pull(
    daemon: PrivateDaemon, served: Served, registry: ScriptedServer
) -> None:
    """The client's connection ends then too, but nobody gave the pull up."""
    blob = served.layer_of(json_of(served), 1)
    half = 2 << 20
    served.faults[blob] = lambda _, reply: replace(reply, hang=half)
    connection = UnixConnection(daemon.socket)
    connection.request("POST", f"/images/create?fromImage={registry.host}/x:1")
    partial = daemon.data_root / "images" / "partial" / blob.replace(":", "-")
    wait_until(lambda: partial.exists() and partial.stat().st_size == half, what="half a layer")
    daemon.restart()
    connection.close()
    assert partial.stat().st_size == half
    del served.faults[blob]
    asked = len(registry.asks)
    pull(daemon, f"{registry.host}/x:1")
    ranges = [ask.header("Range") for ask in registry.asks[asked:] if blob in ask.path]
    assert ranges == [f"bytes={half}-"]
    check_gone(daemon, f"{registry.host}/x:1")


def json_of(served: Served) -> Any:
    """The descriptor of the image's manifest."""
    return {"digest": digest(served.manifests["1"][1])}


@pytest.fixture
def saved(daemon: PrivateDaemon, registry: ScriptedServer) -> bytes:
    """An archive of the image, which is gone again."""
    name = f"{registry.host}/x:1"
    pull(daemon, name)
    daemon.request("POST", f"/images/{name}/tag?repo=box&tag=1")
    content = daemon.request("GET", "/images/box:1/get")[1]
    check_gone(daemon, "box:1", name)
    assert isinstance(content, bytes)
    return content


def load(daemon: PrivateDaemon, archive: bytes) -> None:
    status, answer = daemon.request(
        "POST", "/images/load", archive, {"Content-Type": "application/x-tar"}
    )
    assert status == 200 and "Loaded image: box:1" in str(answer), answer


@pytest.mark.parametrize("point", LOAD)
def test_killed_in_load(daemon: PrivateDaemon, saved: bytes, point: str) -> None:
    die_in(daemon, point, lambda: load(daemon, saved))
    wait_until(
        lambda: not [path for path in leftovers(daemon) if path.startswith(("../tmp", "ingest"))],
        what="the files of the archive, and of layers of no image, to go",
    )
    if point == "image.written":
        check_whole(daemon, "box:1")
    else:
        check_gone(daemon)
        load(daemon, saved)
        check_whole(daemon, "box:1")
    check_gone(daemon, "box:1")


@pytest.mark.parametrize("point", REMOVE)
def test_killed_in_rmi(daemon: PrivateDaemon, saved: bytes, point: str) -> None:
    load(daemon, saved)
    die_in(daemon, point, lambda: daemon.request("DELETE", "/images/box:1"))
    if point == "image.writing":
        check_whole(daemon, "box:1")
        check_gone(daemon, "box:1")
    else:
        check_gone(daemon)


@pytest.mark.parametrize("point", PRUNE)
def test_killed_in_prune(daemon: PrivateDaemon, saved: bytes, point: str) -> None:
    load(daemon, saved)
    path = "/images/prune?filters=" + '{"dangling":["false"]}'
    die_in(daemon, point, lambda: daemon.request("POST", path))
    if point in ("image.writing", "leases.forgotten"):
        check_whole(daemon, "box:1")
        check_gone(daemon, "box:1")
    else:
        check_gone(daemon)


@pytest.mark.parametrize("point", ["image.writing", "image.written"])
def test_killed_in_tag(daemon: PrivateDaemon, saved: bytes, point: str) -> None:
    load(daemon, saved)
    die_in(daemon, point, lambda: daemon.request("POST", "/images/box:1/tag?repo=other&tag=1"))
    tags = daemon.request("GET", "/images/box:1/json")[1]["RepoTags"]
    assert tags == (["box:1"] if point == "image.writing" else ["box:1", "other:1"])
    check_gone(daemon, *tags)


@pytest.mark.parametrize("point", PUSH)
def test_killed_in_push(daemon: PrivateDaemon, saved: bytes, tmp_path: Path, point: str) -> None:
    load(daemon, saved)
    with OwnRegistry(tmp_path / "registry") as registry:
        daemon.request("POST", f"/images/box:1/tag?repo={registry.host}/box&tag=1")
        name = f"{registry.host}/box"

        def push() -> str:
            return str(daemon.request("POST", f"/images/{name}/push?tag=1", None, AUTH)[1])

        die_in(daemon, point, push)
        assert "errorDetail" not in push()
        digests = daemon.request("GET", "/images/box:1/json")[1]["RepoDigests"]
        assert len(digests) == 1 and digests[0].startswith(f"{name}@sha256:")
        check_whole(daemon, "box:1")
        check_gone(daemon, "box:1", f"{name}:1")


AUTH = {"X-Registry-Auth": "e30="}


# -- errors, which the daemon outlives -----------------------------------------------------


@pytest.mark.parametrize("point", [point for point in PULL if point != "image.written"])
def test_an_error_in_pull(daemon: PrivateDaemon, registry: ScriptedServer, point: str) -> None:
    name = f"{registry.host}/x:1"
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=error"})
    with pytest.raises(AssertionError, match="internal error"):
        pull(daemon, name)
    check_gone(daemon)
    pull(daemon, name)
    check_whole(daemon, name)
    check_gone(daemon, name)


@pytest.mark.parametrize("point", [point for point in LOAD if point != "image.written"])
def test_an_error_in_load(daemon: PrivateDaemon, saved: bytes, point: str) -> None:
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=error"})
    with pytest.raises(AssertionError, match="internal error"):
        load(daemon, saved)
    check_gone(daemon)
    load(daemon, saved)
    check_whole(daemon, "box:1")
    check_gone(daemon, "box:1")
