"""The classic stream: in the Dockerfile's order, however the steps are done."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from estiba.build import classic
from estiba.build.classic import ClassicStream, tagged
from estiba.build.progress import (
    CANCELLED,
    STDERR,
    STDOUT,
    Event,
    Finished,
    Log,
    Noticed,
    Started,
    Status,
    Vertex,
)
from estiba.images.record import ImageRecord

STEPS = 3


def vertex(step: int, text: str = "", *, silent: bool = False) -> Vertex:
    text = text or f"RUN {step}"
    return Vertex(step, text, text=text, step=step, steps=STEPS, is_silent=silent)


def whole(step: int, *outputs: bytes, cached: bool = False) -> list[Event]:
    one = vertex(step)
    logs = [Log(one, STDOUT, data) for data in outputs]
    return [Started(one, 0), *logs, Finished(one, 1, cached=cached, result=str(step) * 64)]


def said(stream: ClassicStream, events: Iterable[Event]) -> str:
    return "".join(line["stream"] for event in events for line in stream.feed(event))


def rest(stream: ClassicStream) -> str:
    return "".join(line["stream"] for line in stream.failed(""))


ALL = """\
Step 1/3 : RUN 1
one
 ---> 111111111111
Step 2/3 : RUN 2
two
 ---> 222222222222
Step 3/3 : RUN 3
three
 ---> 333333333333
"""


def test_steps_one_after_the_other_speak_as_they_go() -> None:
    stream = ClassicStream()
    one = vertex(1)
    assert list(stream.feed(Started(one, 0))) == [{"stream": "Step 1/3 : RUN 1\n"}]
    assert list(stream.feed(Log(one, STDOUT, b"a"))) == [{"stream": "a"}]
    assert list(stream.feed(Log(one, STDERR, b"b\n"))) == [{"stream": "\x1b[91mb\n\x1b[0m"}]
    assert list(stream.feed(Finished(one, 1, result="f" * 64))) == [
        {"stream": f" ---> {'f' * 12}\n"}
    ]
    assert list(stream.feed(Started(vertex(2), 0))) == [{"stream": "Step 2/3 : RUN 2\n"}]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_steps_that_end_in_any_order(order: tuple[int, ...]) -> None:
    steps = [whole(1, b"one\n"), whole(2, b"two\n"), whole(3, b"three\n")]
    stream = ClassicStream()
    assert said(stream, [event for number in order for event in steps[number]]) == ALL
    assert rest(stream) == ""


def interleavings() -> list[tuple[int, ...]]:
    """All orders in which two steps of three events each can happen, beside a third."""
    return sorted(set(itertools.permutations([0, 0, 0, 1, 1, 1])))


@pytest.mark.parametrize("order", interleavings())
def test_steps_at_once(order: tuple[int, ...]) -> None:
    steps = [iter(whole(2, b"two\n")), iter(whole(1, b"one\n"))]
    stream = ClassicStream()
    text = said(stream, [next(steps[number]) for number in order])
    assert text + said(stream, whole(3, b"three\n")) == ALL


def test_the_first_one_does_not_wait() -> None:
    stream = ClassicStream()
    assert said(stream, whole(2, b"two\n")) == ""
    assert said(stream, [Started(vertex(1), 0)]) == "Step 1/3 : RUN 1\n"
    assert said(stream, [Log(vertex(1), STDOUT, b"one\n")]) == "one\n"
    assert said(stream, [Finished(vertex(1), 1, result="1" * 64)]).endswith(
        "Step 2/3 : RUN 2\ntwo\n ---> 222222222222\n"
    )


def ended(text: str, result: str, *, cached: bool, silent: bool = False) -> str:
    one = vertex(1, text, silent=silent)
    return said(ClassicStream(), [Started(one, 0), Finished(one, 1, cached=cached, result=result)])


def test_what_is_told_of_the_cache() -> None:
    made = "a1" * 32
    using = " ---> Using cache\n"
    assert using in ended("RUN x", made, cached=True)
    assert using not in ended("RUN x", made, cached=False)
    assert using not in ended("FROM x AS y", made, cached=True)
    assert using not in ended("from x", made, cached=True)
    assert using in ended("ENV A=1", made, cached=True, silent=True)


@pytest.mark.parametrize(
    ("result", "short"),
    [
        ("a1" * 32, "a1a1a1a1a1a1"),
        ("base:" + "b2" * 32, "b2b2b2b2b2b2"),
        ("base:scratch", "scratch"),
        ("linked:" + "c3" * 32, "c3c3c3c3c3c3"),
    ],
)
def test_ids_are_short(result: str, short: str) -> None:
    assert ended("RUN x", result, cached=False).endswith(f" ---> {short}\n")


def test_a_character_in_two_pieces() -> None:
    """On each of the program's outputs for itself."""
    stream, one = ClassicStream(), vertex(1)
    events: list[Event] = [
        Started(one, 0),
        Log(one, STDOUT, b"a\xe2\x82"),
        Log(one, STDERR, b"\xc3"),
        Log(one, STDOUT, b"\xac"),
        Log(one, STDERR, b"\xa9\n"),
    ]
    assert said(stream, events) == "Step 1/3 : RUN 1\na€\x1b[91mé\n\x1b[0m"


def test_bytes_that_are_no_character() -> None:
    stream, one = ClassicStream(), vertex(1)
    assert said(stream, [Log(one, STDOUT, b"\xff\n"), Log(one, STDOUT, b"\xe2")]) == "\ufffd\n"
    assert said(stream, [Finished(one, 1, result="1")]) == "\ufffd ---> 1\n"


# -- failures ------------------------------------------------------------------------------


def test_a_failure_is_heard_last() -> None:
    """Whatever ends because of it ends before the build does."""
    stream = ClassicStream()
    said(stream, [Started(vertex(1), 0), *whole(3, b"three\n")])
    said(stream, [Started(vertex(2), 0), Log(vertex(2), STDOUT, b"no such file\n")])
    ends = [
        Finished(vertex(2), 1, error="returned a non-zero code: 1"),
        Finished(vertex(1), 1, error=CANCELLED),
    ]
    assert said(stream, ends) == ""
    assert rest(stream) == (
        "Step 3/3 : RUN 3\nthree\n ---> 333333333333\nStep 2/3 : RUN 2\nno such file\n"
    )
    assert rest(stream) == ""


def test_what_nobody_heard_is_told_at_the_end() -> None:
    stream = ClassicStream()
    assert said(stream, [Started(vertex(1), 0)]) == "Step 1/3 : RUN 1\n"
    said(stream, [Started(vertex(2), 0), Log(vertex(2), STDOUT, b"no such file\n")])
    said(stream, [Started(vertex(3), 0), Log(vertex(3), STDOUT, b"working\n")])
    said(stream, [Finished(vertex(2), 1, error="returned a non-zero code: 1")])
    said(stream, [Finished(vertex(3), 1, error=CANCELLED)])
    assert rest(stream) == ("Step 3/3 : RUN 3\nworking\nStep 2/3 : RUN 2\nno such file\n")
    assert rest(stream) == ""


# -- quiet ---------------------------------------------------------------------------------


def test_a_quiet_stream_says_nothing() -> None:
    stream = ClassicStream(is_quiet=True)
    pull = Status(Vertex(9, "pull"), "layer", "Downloading", 1, 2)
    assert said(stream, [*whole(1, b"one\n"), pull, *whole(2), *whole(3)]) == ""


def test_a_quiet_stream_tells_all_of_a_failure() -> None:
    """As Docker does."""
    stream = ClassicStream(is_quiet=True)
    one = vertex(2)
    events = [*whole(1, b"one\n"), Started(one, 0), Log(one, STDOUT, b"no\n")]
    assert said(stream, [*events, Finished(one, 1, error="code 1")]) == ""
    assert rest(stream) == "Step 1/3 : RUN 1\none\n ---> 111111111111\nStep 2/3 : RUN 2\nno\n"


# -- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [b"x", b"y" * 5000])
def test_a_step_that_waits_takes_little_memory(piece: bytes) -> None:
    stream, one = ClassicStream(), vertex(2)
    said(stream, [Started(one, 0)])
    count = 3 * classic._MAX_WAITING_CHARS // len(piece) // 10 + 2000
    said(stream, [Log(one, STDOUT, piece) for _ in range(count)])
    said(stream, [Log(one, STDOUT, b"the end\n")])
    (waiting,) = stream._waiting.values()
    kept = sum(len(text) for text in waiting.texts)
    assert kept <= classic._MAX_WAITING_CHARS
    assert len(waiting.texts) <= classic._MAX_WAITING_CHARS // classic._LINE_CHARS
    text = said(stream, whole(1))
    assert "Step 2/3 : RUN 2\n[" in text and text.endswith("the end\n")
    left = int(text.partition("RUN 2\n[")[2].partition(" ")[0])
    assert text.endswith(f"[{left} characters left out]\n" + text.partition("left out]\n")[2])
    assert left + text.count(piece[:1].decode()) == count * len(piece)


def test_a_step_that_speaks_is_not_cut() -> None:
    stream, one = ClassicStream(), vertex(1)
    text = said(stream, [Log(one, STDOUT, b"z" * 1000) for _ in range(1000)])
    assert text == "z" * 1_000_000


# -- everything else -----------------------------------------------------------------------


def test_pulls_are_told_at_once() -> None:
    stream, pull = ClassicStream(), Vertex(9, "[internal] pull busybox")
    lines = [
        line
        for event in [
            Started(pull, 0),
            Status(pull, "", "Pulling from library/busybox"),
            Status(pull, "abc", "Downloading", 5, 10),
            Finished(pull, 1),
        ]
        for line in stream.feed(event)
    ]
    assert lines == [
        {"status": "Pulling from library/busybox"},
        {
            "status": "Downloading",
            "id": "abc",
            "progressDetail": {"current": 5, "total": 10},
        },
    ]


NOTICED = [
    Noticed("Rule", "m", "d", 4, 1, 4),
    Noticed("Rule", "m", "d", 4, 1, 4),
    Noticed("", "not consumed", "", 0, 0, 0),
]
WARNED = [{"stream": "[Warning] Rule: m (line 4)\n"}, {"stream": "[Warning] not consumed\n"}]


def test_warnings_come_last_where_they_are_seen() -> None:
    """Once each, before the words that clients look for."""
    stream = ClassicStream()
    assert said(stream, NOTICED) == ""
    assert list(stream.closing(image()))[1:-1] == WARNED
    stream = ClassicStream()
    assert said(stream, NOTICED) == ""
    assert list(stream.failed("")) == WARNED
    quiet = ClassicStream(is_quiet=True)
    assert said(quiet, NOTICED) == ""
    assert list(quiet.closing(image())) == [{"stream": f"sha256:{'ab' * 32}\n"}]


def test_the_state_of_a_failure_is_named() -> None:
    (line,) = ClassicStream().failed("sha256:" + "ab" * 32)
    assert line["stream"].endswith("docker run -it --rm abababababab\n")


def image() -> Any:
    return ImageRecord(id="sha256:" + "ab" * 32, config_json="{}", layers=[])


def test_the_last_words() -> None:
    """docker-py looks for `Successfully built`, Compose 1 too, the others for aux."""
    assert list(ClassicStream().closing(image())) == [
        {"aux": {"ID": "sha256:" + "ab" * 32}},
        {"stream": "Successfully built abababababab\n"},
    ]
    assert list(ClassicStream(is_quiet=True).closing(image())) == [
        {"stream": f"sha256:{'ab' * 32}\n"}
    ]
    assert tagged("me/app:1") == {"stream": "Successfully tagged me/app:1\n"}
