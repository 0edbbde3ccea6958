"""What the user is told of a hit or miss: the line itself."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from estiba.build.explain import decide_hit, decide_miss
from estiba.build.keys import facts, step_key
from estiba.build.ops import ContextInput, CopyOp, MountSpec, Op, RunOp
from estiba.build.record import CacheRecord, Facts

BASE = "base:1111"
RUN = RunOp(argv=("/bin/sh", "-c", "make all"), env=("PATH=/bin", "A=1"), args=(("V", "1"),))
COPY = CopyOp(groups=((ContextInput(), (".",)),), destination="/src")


def step(op: Op, text: str = "", *, stage: str = "build", files: dict[str, str] | None = None,
         inputs: tuple[str, ...] = (), around: dict[str, str] | None = None) -> Facts:  # fmt: skip
    if not text:
        text = "RUN make all" if isinstance(op, RunOp) else "COPY . /src"
    return facts(op, text, stage, files or {}, inputs, around)


def record(known: Facts | None, parent: str = BASE, created_ns: int = 1) -> CacheRecord:
    return CacheRecord(id=f"r{created_ns}", parent=parent, facts=known, created_ns=created_ns)


def missed(now: Facts, *known: CacheRecord, parent: str = BASE, built: bool = False) -> str:
    return decide_miss(now, parent, known, parent_was_built=built)


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (replace(RUN, env=("PATH=/bin", "A=2")), "variable changed: A"),
        (replace(RUN, env=("PATH=/bin",)), "variable changed: A"),
        (
            replace(RUN, env=("PATH=/sbin", "A=2", "B=3", "C=4")),
            "variable changed: A, B, C and 1 more",
        ),
        (replace(RUN, args=(("V", "2"),)), "argument changed: V"),
        (replace(RUN, args=()), "argument changed: V"),
        (replace(RUN, args=(), env=()), "argument changed: V; variable changed: A, PATH"),
        (replace(RUN, cwd="/w"), "changed: working directory"),
        (replace(RUN, user="app"), "changed: user"),
        (replace(RUN, argv=("/bin/bash", "-c", "make all")), "changed: command"),
        (replace(RUN, network="none"), "changed: network"),
        (replace(RUN, insecure=True), "changed: security"),
        (replace(RUN, hostname="h"), "changed: host name"),
        (replace(RUN, mounts=(MountSpec("tmpfs", "/t"),)), "changed: mounts"),
        (replace(RUN, user="app", args=()), "argument changed: V; changed: user"),
    ],
)
def test_a_run_that_changed(op: RunOp, words: str) -> None:
    assert missed(step(op), record(step(RUN))) == f"miss: {words}"


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (replace(COPY, destination="/app"), "changed: destination"),
        (replace(COPY, owner="1:1"), "changed: owner"),
        (replace(COPY, mode="0755"), "changed: mode"),
        (replace(COPY, link=True), "changed: flags"),
        (replace(COPY, parents=True), "changed: flags"),
        (replace(COPY, excludes=("*.md",)), "changed: excludes"),
        (replace(COPY, groups=((ContextInput(), ("a",)),)), "changed: sources"),
    ],
)
def test_a_copy_whose_variables_changed(op: CopyOp, words: str) -> None:
    """The text is the same: what it expands to is not."""
    assert missed(step(op), record(step(COPY))) == f"miss: {words}"


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"/a": "1", "/b": "1"}, {"/a": "2", "/b": "1"}, "files changed: /a"),
        ({"/a": "1"}, {"/a": "1", "/b": "1"}, "files changed: /b"),
        ({"/a": "1", "/b": "1"}, {"/a": "1"}, "files changed: /b"),
        (
            {str(n): "1" for n in range(9)},
            {str(n): "2" for n in range(9)},
            "files changed: 0, 1, 2 and 6 more",
        ),
        ({}, {"/a": "1"}, "files changed"),
        ({"/a": "1"}, {}, "files changed"),
    ],
)
def test_files_that_changed(before: dict[str, str], now: dict[str, str], words: str) -> None:
    """The inputs as a whole are named only when their files are not."""
    old = record(step(COPY, files=before, inputs=("i",)))
    assert missed(step(COPY, files=now, inputs=("j",)), old) == f"miss: {words}"


def test_inputs_whose_files_nobody_lists() -> None:
    old = record(step(COPY, inputs=("i",)))
    assert missed(step(COPY, inputs=("j",)), old) == "miss: changed: inputs"


def test_the_clients_wishes() -> None:
    old = record(step(RUN, around={"network": "bridge", "platform": "linux/amd64"}))
    now = step(RUN, around={"network": "host", "platform": "linux/amd64"})
    assert missed(now, old) == "miss: changed: network"


def test_the_newest_of_several_is_compared() -> None:
    olds = [
        record(step(replace(RUN, args=(("V", "3"),))), created_ns=2),
        record(step(replace(RUN, user="app")), created_ns=3),
        record(step(replace(RUN, cwd="/w")), created_ns=1),
    ]
    assert missed(step(RUN), *olds) == "miss: changed: user"


def test_the_most_similar_of_several_is_compared() -> None:
    olds = [
        record(step(replace(RUN, user="app", cwd="/w")), created_ns=3),
        record(step(replace(RUN, args=(("V", "3"),))), created_ns=2),
        record(step(replace(RUN, user="app", args=())), created_ns=1),
    ]
    assert missed(step(RUN), *olds) == "miss: argument changed: V"


def test_nothing_differs() -> None:
    old = record(step(RUN))
    assert missed(step(RUN), old) == (
        "miss: its earlier result is gone, or the cache was not to be used then"
    )


def test_nothing_is_known() -> None:
    never = "miss: no such step was built before, or its record was pruned"
    assert missed(step(RUN)) == never
    assert missed(step(RUN), record(None)) == never
    assert missed(step(RUN), record(None), built=True) == never


def test_a_copy_says_nothing_of_a_run() -> None:
    assert missed(step(RUN, "SAME"), record(step(COPY, "SAME"))).startswith("miss: no such step")


def test_what_follows_a_step_that_was_done_again() -> None:
    old = record(step(RUN), parent="before")
    assert missed(step(RUN), old, parent="anew", built=True) == (
        "miss: the step before it was built anew"
    )


def test_an_instruction_that_was_edited() -> None:
    now = step(RUN, "RUN make all install")
    assert missed(now, record(step(RUN))) == ("miss: the instruction changed: it was RUN make all")


def test_of_several_the_most_similar_was_edited() -> None:
    olds = [
        record(step(RUN, "RUN apt-get install -y nginx php"), created_ns=1),
        record(step(RUN, "RUN apt-get update"), created_ns=2),
    ]
    assert missed(step(RUN, "RUN apt-get install -y nginx"), *olds).endswith(
        "it was RUN apt-get install -y nginx php"
    )


def test_a_long_instruction_is_cut() -> None:
    text = "RUN echo " + "x" * 100
    line = missed(step(RUN, text + "y"), record(step(RUN, text)))
    assert line == f"miss: the instruction changed: it was RUN echo {'x' * 48}..."


def test_another_dockerfile_on_the_same_base_explains_nothing() -> None:
    other = record(step(RUN, "RUN gem install rails -v 7.1.2 --no-document"))
    assert missed(step(RUN, "RUN make all"), other).startswith("miss: no such step")


def test_another_stage_explains_nothing() -> None:
    other = record(step(RUN, "RUN make alla", stage="test"))
    assert missed(step(RUN), other).startswith("miss: no such step")


def test_the_same_on_another_base() -> None:
    assert missed(step(RUN), record(step(RUN), parent="base:2222")) == (
        "miss: it was done before on another base image only"
    )
    assert missed(step(RUN), record(step(RUN), parent="r7"), parent="r8") == (
        "miss: it was done before on other steps only"
    )


def test_many_records_are_no_burden() -> None:
    """Every miss looks through all of them, on the event loop."""
    files = {f"/f{n}": "sha256:1" for n in range(50)}
    known = [record(step(COPY, files=files), created_ns=n) for n in range(3000)]
    began = time.process_time()
    assert missed(step(COPY, files={**files, "/f1": "2"}), *known) == "miss: files changed: /f1"
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (40 * 86400, "40 days"),
    ],
)
def test_hits(seconds: int, words: str) -> None:
    text = decide_hit(record(None, created_ns=10**18), 10**18 + seconds * 10**9)
    assert text == f"hit: nothing that counts has changed since {words} ago"


def test_an_explanation_exists_for_each_key() -> None:
    """The same facts and the same place: the same key."""
    assert step_key(BASE, RUN, []) == step_key(BASE, replace(RUN), [])
    assert step(RUN) == step(replace(RUN))
