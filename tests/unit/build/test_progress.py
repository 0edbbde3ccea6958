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
    assert as_json(event) == line
    assert json.loads(json.dumps(as_json(event))) == line
