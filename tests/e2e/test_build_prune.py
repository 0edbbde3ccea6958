"""The build cache over the API: what it holds, what a prune takes, what `system df` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.classicbuild import Answer, begin, build
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e


def made(daemon: PrivateDaemon, dockerfile: str, **options: Any) -> Answer:
    return build(daemon, {"Dockerfile": dockerfile}, **options)


def cache_of(daemon: PrivateDaemon) -> list[dict[str, Any]]:
    status, view = daemon.request("GET", "/system/df?type=build-cache")
    assert status == 200, view
    return list(view["BuildCache"] or [])


def test_a_cache_of_another_owner_is_another(daemon: PrivateDaemon) -> None:
    cache = "--mount=type=cache,id=packages,target=/c"
    text = (
        f"FROM busybox\nRUN {cache} touch /c/of-root\nUSER 1000\n"
        f"RUN {cache},uid=1000 test ! -e /c/of-root && touch /c/mine\n"
        f"RUN {cache},uid=1000,gid=7 test ! -e /c/mine\nRUN {cache},uid=1000 test -e /c/mine\n"
        f"RUN {cache},uid=0,mode=755 test -e /c/of-root\n"
    )
    made(daemon, text)
    names = {one["Description"] for one in cache_of(daemon) if one["Type"] == "exec.cachemount"}
    assert {"packages", "packages (1000:0, 0755)", "packages (1000:7, 0755)"} <= {
        name.removeprefix("cache mount ") for name in names
    }, names


def prune(daemon: PrivateDaemon, query: str = "") -> dict[str, Any]:
    status, view = daemon.request("POST", f"/build/prune{query}")
    assert status == 200, view
    return dict(view)


def test_disk_usage_and_prune(make_daemon: Callable[..., PrivateDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.import_busybox()
    big = "dd if=/dev/zero bs=1000 count=1000 2>/dev/null"
    text = (
        f"FROM busybox\nRUN {big} > /a\nRUN {big} > /b\n"
        f"RUN --mount=type=cache,target=/c {big} > /c/f\n"
    )
    made(daemon, text, t="df:1")
    wait_until(lambda: len(cache_of(daemon)) == 4, what="the records")
    found = {one["Description"].split("]")[-1][:6]: one for one in cache_of(daemon)}
    assert sorted(one["Type"] for one in cache_of(daemon)) == ["exec.cachemount"] + ["regular"] * 3
    assert all(
        one["Shared"] for one in cache_of(daemon) if one["Size"] and one["Type"] == "regular"
    )
    assert not any(one["InUse"] for one in cache_of(daemon)), found
    assert prune(daemon, '?filters={"type":["regular"]}')["SpaceReclaimed"] == 0
    assert daemon.request("DELETE", "/images/df:1")[0] == 200
    before = cache_of(daemon)
    assert not any(one["Shared"] for one in before)
    gone = prune(daemon, "?max-used-space=1500000")
    assert gone["SpaceReclaimed"] >= 1_000_000
    left = sum(one["Size"] for one in cache_of(daemon))
    assert left <= 1_500_000
    everything = prune(daemon, "?all=1")
    assert cache_of(daemon) == []
    assert everything["SpaceReclaimed"] == left
    layers = daemon.data_root / "images" / "layers"
    wait_until(lambda: len(list(layers.iterdir())) == 1, what="the layers to go")
    assert len(made(daemon, text).done) == 3


def test_what_was_used_last_stays(make_daemon: Callable[..., PrivateDaemon]) -> None:
    """However short a time ago it was used before that."""
    daemon = make_daemon()
    daemon.start()
    daemon.import_busybox()
    texts = [
        f"FROM busybox\nRUN dd if=/dev/zero bs=1000 count=1000 2>/dev/null > /{name}\n"
        for name in ("used-again", "not-used-again")
    ]
    for text in (*texts, texts[0]):
        made(daemon, text)
    assert daemon.request("POST", "/images/prune")[0] == 200
    prune(daemon, "?all=1&max-used-space=1500000")
    assert [len(made(daemon, text).done) for text in texts] == [0, 1]


def test_a_prune_beside_builds_takes_nothing_of_theirs(daemon: PrivateDaemon) -> None:
    going = begin(
        daemon,
        {"Dockerfile": "FROM busybox\nRUN echo mine > /mine\nRUN echo going; sleep 2; cat /mine\n"},
        t="beside:1",
    )
    going.until(lambda line: line.get("stream") == "going\n")
    prune(daemon, "?all=1")
    answer = going.rest()
    assert not answer.error, answer.lines
    assert daemon.run("beside:1", "cat", "/mine") == "mine\n"


def test_an_image_outlives_its_cache(daemon: PrivateDaemon) -> None:
    made(daemon, "FROM busybox\nRUN echo kept > /kept\n", t="outlives:1")
    prune(daemon, "?all=1")
    assert daemon.run("outlives:1", "cat", "/kept") == "kept\n"


def test_filters_that_are_none(daemon: PrivateDaemon) -> None:
    for query in ('{"nope":["1"]}', '{"until":["soon"]}', '{"shared":["maybe"]}', "x"):
        status, answer = daemon.request("POST", f"/build/prune?filters={query}")
        assert status == 400
        assert "filter" in answer["message"] or "until" in answer["message"]
