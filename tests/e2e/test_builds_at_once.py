"""Several builds at once: what they share is done once, and none takes from another."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.buildremains import wait_nothing_remains
from tests.support.classicbuild import at_once, build, bundle
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
    files = {"Dockerfile": "FROM busybox\nRUN sleep 0.5; cat /proc/sys/kernel/random/uuid > /u\n"}
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
