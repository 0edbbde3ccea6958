"""Cache keys: whatever counts changes them, nothing else does, and no two steps share one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from estiba.build.keys import base_id, digest_of_parts, facts, step_key
from estiba.build.ops import (
    ContextInput,
    CopyOp,
    DirectoryOp,
    GitInput,
    ImageInput,
    InlineInput,
    MountSpec,
    Op,
    RunOp,
    StageInput,
    UrlInput,
)
from estiba.model.image import Platform

AMD64 = Platform(architecture="amd64")
RUN = RunOp(argv=("/bin/sh", "-c", "make"), env=("A=1", "B=2"))
COPY = CopyOp(groups=((ContextInput(), ("a", "b")),), destination="/d/")
DIRECTORY = DirectoryOp(path="/w")
MOUNT = MountSpec("bind", "/m", ContextInput())


def key(op: Op, parent: str = "p", inputs: tuple[str, ...] = ("i",)) -> str:
    return step_key(parent, op, inputs)


def with_mount(**changes: Any) -> RunOp:
    return replace(RUN, mounts=(replace(MOUNT, **changes),))


def copying(*groups: Any, **changes: Any) -> CopyOp:
    return replace(COPY, groups=groups, **changes)


DIFFERENT: list[Op] = [
    RUN,
    replace(RUN, argv=("/bin/sh", "-c", "make ")),
    replace(RUN, argv=("/bin/sh", "-c make")),
    replace(RUN, argv=("/bin/sh", "-c", "make", "")),
    replace(RUN, env=("A=1",)),
    replace(RUN, env=("A=1 B=2",)),
    replace(RUN, env=("A=1", "B=3")),
    replace(RUN, args=(("X", "1"),)),
    replace(RUN, args=(("X", "1"), ("Y", ""))),
    replace(RUN, args=(("X1", ""),)),
    replace(RUN, cwd="/w"),
    replace(RUN, user="/"),
    replace(RUN, network="none"),
    replace(RUN, insecure=True),
    replace(RUN, hostname="h"),
    with_mount(),
    with_mount(target="/n"),
    with_mount(source="/s"),
    with_mount(readonly=False),
    with_mount(type="cache"),
    with_mount(type="cache", id="c"),
    with_mount(type="cache", sharing="locked"),
    with_mount(type="secret", input=None),
    with_mount(type="secret", input=None, env="TOKEN"),
    with_mount(mode=0o755),
    with_mount(uid=1),
    with_mount(gid=1),
    with_mount(type="tmpfs", input=None, size_bytes=1),
    replace(RUN, mounts=(MOUNT, MOUNT)),
    COPY,
    copying((ContextInput(), ("a b",))),
    copying((ContextInput(), ("b", "a"))),
    copying((ContextInput(), ("a",)), (ContextInput(), ("b",))),
    copying((UrlInput("https://h/a"), ("a", "b"))),
    copying((GitInput("https://h/a.git"), ("a", "b"))),
    copying((GitInput("https://h/a.git", keep_git_dir=True), ("a", "b"))),
    copying((InlineInput((("a", "x"),)), ("a", "b"))),
    copying((InlineInput((("a", "y"),)), ("a", "b"))),
    copying((InlineInput((("a", "x"),), 0o755), ("a", "b"))),
    replace(COPY, destination="/d"),
    replace(COPY, owner="1"),
    replace(COPY, mode="1"),
    replace(COPY, link=True),
    replace(COPY, parents=True),
    replace(COPY, excludes=("x", "y")),
    replace(COPY, excludes=("x y",)),
    replace(COPY, unpack=True),
    replace(COPY, unpack=None),
    DIRECTORY,
    DirectoryOp(path="/v"),
    DirectoryOp(path="/w", user="u"),
]


def test_no_two_different_steps_share_a_key() -> None:
    found: dict[str, Op] = {}
    for op in DIFFERENT:
        assert key(op) not in found, (op, found.get(key(op)))
        found[key(op)] = op


@pytest.mark.parametrize("op", [RUN, COPY, DIRECTORY])
def test_what_is_below_and_what_is_taken_counts(op: Op) -> None:
    keys = [key(op), key(op, "q"), key(op, inputs=("j",)), key(op, inputs=("i", "")),
            key(op, inputs=()), key(op, "pi", ()), step_key("p", op, ["i"], ["none"]),
            step_key("p", op, ["i", "none"])]  # fmt: skip
    assert len(set(keys)) == len(keys)


def test_the_same_step_has_the_same_key() -> None:
    """Also in the next version, or all caches are lost: change `_VERSION` on purpose only."""
    assert key(RUN) == key(replace(RUN))
    assert key(RUN) == "78826bd211571ad65ddf78d2c6227424ee45efd8fff3c47f6953985382e8b280"
    assert key(COPY) == "57072e677d2cb023b7c7f9b8e37f2b39322357790ac4fb19e0c60b91d124ed62"
    assert key(DIRECTORY) == "056aec096a4b409b9ac8f0975c4bd1445e46ac9c6d92d69efa900d758c358c91"


@pytest.mark.parametrize(
    "same",
    [
        (RUN, replace(RUN, hidden_env=("HTTP_PROXY=http://me:secret@p",))),
        (with_mount(required=False), with_mount(required=True)),
        (
            copying((UrlInput("https://a/f"), ("f",))),
            copying((UrlInput("https://mirror/f", "sha256:1"), ("f",))),
        ),
        (
            copying((StageInput(0), ("f",))),
            copying((ImageInput("busybox", AMD64), ("f",))),
        ),
        (copying((StageInput(0), ("f",))), copying((StageInput(5), ("f",)))),
        (copying((ContextInput(), ("f",))), copying((ContextInput("other"), ("f",)))),
    ],
)
def test_what_does_not_count(same: tuple[Op, Op]) -> None:
    """Where files come from does not: their content does, which is among the inputs."""
    assert key(same[0]) == key(same[1])


def test_a_linked_copy_does_not_depend_on_what_is_below() -> None:
    op = replace(COPY, link=True)
    assert key(op, "p") == key(op, "q")
    assert key(op, "p", ("i",)) != key(op, "p", ("j",))


def test_bases() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    found = [base_id([]), base_id([one]), base_id([one, two]), base_id([two, one])]
    assert len(set(found)) == 4
    assert all(one.startswith("base:") for one in found)
    assert base_id([one, two]) == base_id((one, two))


def test_parts_do_not_run_together() -> None:
    words = ["", "a", "b", "ab", "a,b", '"', "a\0b", "[]"]
    digests = {
        digest_of_parts(*parts)
        for count in range(3)
        for parts in itertools.product(words, repeat=count)
    }
    assert len(digests) == 1 + len(words) + len(words) ** 2


# -- facts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op", [one for one in DIFFERENT if isinstance(one, RunOp | CopyOp | DirectoryOp)]
)
def test_whatever_changes_the_key_changes_the_facts(op: Op) -> None:
    """Or a miss could not be explained."""
    like = {RunOp: RUN, CopyOp: COPY, DirectoryOp: DIRECTORY}[type(op)]
    if op != like:
        assert facts(op, "text", "stage", {}, ["i"]) != facts(like, "text", "stage", {}, ["i"])


@pytest.mark.parametrize("op", [RUN, COPY, DIRECTORY])
def test_what_is_around_the_step_is_among_its_facts(op: Op) -> None:
    plain = facts(op, "t", "s", {}, ["i"])
    assert facts(op, "t", "s", {"/f": "sha256:1"}, ["i"]) != plain
    assert facts(op, "t", "s", {}, ["j"]) != plain
    assert facts(op, "t", "s", {}, ["i"], {"platform": "linux/arm64"}) != plain
    assert (plain.text, plain.stage) == ("t", "s")


def test_no_value_of_a_variable_is_in_the_facts() -> None:
    op = replace(
        RUN,
        env=("PASSWORD=hunter2", "EMPTY=", "TWO=a=hunter2"),
        args=(("TOKEN", "hunter2"), ("OTHER", "hunter2 ")),
        hidden_env=("HTTP_PROXY=hunter2",),
    )
    found = facts(op, "RUN make", "s", {}, [])
    assert set(found.env) == {"PASSWORD", "EMPTY", "TWO"}
    assert set(found.args) == {"TOKEN", "OTHER"}
    assert "hunter2" not in repr(found)
