"""Several builds at once: what they share is done once, and none takes from another."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.support.buildremains import wait_nothing_remains
from tests.support.classicbuild import GATE, Json, at_once, begin_bundle, build, bundle
from tests.support.daemon import PrivateDaemon

pytestmark = pytest.mark.e2e


def test_two_builds_of_the_same_do_it_once(daemon: PrivateDaemon) -> None:
    uuid = "cat /proc/sys/kernel/random/uuid"
    text = (
        f"FROM busybox\nRUN {uuid} > /a\nRUN sleep 0.2; {uuid} > /b\nRUN {uuid} > /c\nCOPY f /f\n"
    )
    files = {"Dockerfile": text, "f": "same"}
    answers = at_once(*[lambda: build(daemon, files) for _ in range(4)])
    assert len({answer.image for answer in answers}) == 1
    done = sorted(text for answer in answers for text in answer.done)
    assert len(done) == 4, done
    wait_nothing_remains(daemon)


def test_one_without_the_cache_beside_one_with_it(daemon: PrivateDaemon) -> None:
    # Each waits until both have come so far.
    meet = (
        "touch /gate/met-$(cat /u); until [ $(ls /gate | grep -c met-) -ge 2 ]; do sleep 0.1; done"
    )
    run = f"RUN {GATE} cat /proc/sys/kernel/random/uuid > /u; {meet}"
    files = {"Dockerfile": f"FROM busybox\n{run}\n"}
    answers = at_once(lambda: build(daemon, files), lambda: build(daemon, files, nocache="1"))
    assert len({answer.image for answer in answers}) == 2


def test_what_two_builds_share_while_the_cache_is_pruned(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN echo shared > /s\nRUN echo {n} > /n; sleep 0.3\nRUN echo {n} > /m\n"

    def go(number: int) -> Any:
        return build(daemon, {"Dockerfile": text.format(n=number)}, t=f"pruned:{number}")

    def prune() -> Any:
        for _ in range(10):
            status, answer = daemon.request("POST", "/build/prune?all=1")
            assert status == 200, answer
        return build(daemon, {"Dockerfile": "FROM busybox\n"})

    at_once(lambda: go(1), lambda: go(2), prune)
    for number in (1, 2):
        assert (
            daemon.run(f"pruned:{number}", "cat", "/s", "/n", "/m")
            == f"shared\n{number}\n{number}\n"
        )


def test_the_same_step_in_two_stages_is_done_once(daemon: PrivateDaemon) -> None:
    run = "RUN sleep 0.3; echo x > /why"
    text = (
        f"FROM busybox AS a\n{run}\nFROM busybox AS b\n{run}\n"
        "FROM busybox\nCOPY --from=a /why /a\nCOPY --from=b /why /b\n"
    )
    answer = bundle(daemon, {"Dockerfile": text})
    ends = [line["finished"] for line in answer.lines if "finished" in line]
    assert [one["cached"] for one in ends].count(False) == 3, answer.lines
    whys = sorted(one["reason"] for one in ends if one["reason"])
    assert whys.count("hit: another stage or build was doing the same") == 1, whys


def test_who_waits_for_a_cache_mount_holds_nobody_else_up(daemon: PrivateDaemon) -> None:
    """As many as may run at once, and more, wait for a lock until another build has come by."""
    go = "--mount=type=cache,id=slots-go,target=/go"
    lock = "--mount=type=cache,id=slots-lock,sharing=locked,target=/lock"
    patient = "n=0; until [ -e /go/x ]; do n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.1; done"
    count = max(4, 2 * (os.cpu_count() or 1)) + 1
    stages = [f"FROM busybox AS s{n}\nRUN {go} {lock} : {n}; {patient}\n" for n in range(count)]
    copies = [f"COPY --from=s{n} /etc/group /{n}\n" for n in range(count)]
    going = begin_bundle(daemon, {"Dockerfile": "".join([*stages, "FROM scratch\n", *copies])})
    begun: set[int] = set()

    def all_places_are_taken(line: Json) -> bool:
        vertex = line.get("started", {}).get("vertex", {})
        if "slots-lock" in vertex.get("text", ""):
            begun.add(vertex["id"])
        return len(begun) == count - 1

    going.until(all_places_are_taken)
    other = bundle(daemon, {"Dockerfile": f"FROM busybox\nRUN {go} touch /go/x\n"})
    assert not other.error
    answer = going.rest()
    assert not answer.error, answer.lines
