"""Events as lines for `estiba build`: each kind, as the client reads it."""

from __future__ import annotations

import json

import pytest

from estiba.build.progress import (
    STDERR,
    STDOUT,
    Event,
    Finished,
    Log,
    Noticed,
    Started,
    Status,
    Texts,
    Vertex,
    as_json,
)

VERTEX = Vertex(3, "[build 2/4] RUN make", "build", "RUN make", 7, 8, 2, 9)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Started(VERTEX, 5),
            {
                "started": {
                    "vertex": {
                        "id": 3, "name": "[build 2/4] RUN make", "stage": "build", "line": 7,
                        "step": 2, "steps": 9, "text": "RUN make",
                    },
                    "time": 5,
                }
            },
        ),
        (Log(VERTEX, STDOUT, b"a\nb"), {"log": {"id": 3, "stream": 1, "text": "a\nb"}}),
        (Log(VERTEX, STDERR, b"\xff"), {"log": {"id": 3, "stream": 2, "text": "\ufffd"}}),
        (
            Status(VERTEX, "layer", "pulling", 1, 2),
            {"status": {"id": 3, "item": "layer", "action": "pulling", "current": 1, "total": 2}},
        ),
        (
            Finished(VERTEX, 6, cached=True, reason="hit", result="abc"),
            {
                "finished": {
                    "id": 3, "time": 6, "cached": True, "error": "", "reason": "hit",
                    "result": "abc",
                }
            },
        ),
        (
            Finished(VERTEX, 6, error="no"),
            {
                "finished": {
                    "id": 3, "time": 6, "cached": False, "error": "no", "reason": "",
                    "result": "",
                }
            },
        ),
        (
            Noticed("Rule", "message", "detail", 1, 2, 3),
            {
                "warning": {
                    "rule": "Rule", "message": "message", "detail": "detail", "line": 1,
                    "column": 2, "end_line": 3,
                }
            },
        ),
    ],
)  # fmt: skip
def test_lines(event: Event, line: object) -> None:
    assert as_json(event, Texts()) == line
    assert json.loads(json.dumps(as_json(event, Texts()))) == line


def test_a_character_in_two_pieces() -> None:
    """Of each program's each output for itself."""
    texts, other = Texts(), Vertex(4, "other")
    pieces = [
        Log(VERTEX, STDOUT, b"a\xe2\x82"),
        Log(VERTEX, STDERR, b"\xc3"),
        Log(other, STDOUT, b"\xac"),
        Log(VERTEX, STDOUT, b"\xac"),
        Log(VERTEX, STDERR, b"\xa9b"),
    ]
    assert [as_json(one, texts)["log"]["text"] for one in pieces] == ["a", "", "\ufffd", "€", "éb"]
    assert texts.end(VERTEX) == ""


def test_half_a_character_at_the_end() -> None:
    texts = Texts()
    assert texts.of(Log(VERTEX, STDERR, b"\xe2\x82")) == ""
    assert texts.end(VERTEX) == "\ufffd"
    assert texts.of(Log(VERTEX, STDERR, b"\xac")) == "\ufffd"
