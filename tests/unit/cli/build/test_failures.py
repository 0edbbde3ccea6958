"""What `estiba build` says of failures, of the cache and of warnings."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.buildserver import (
    IMAGE,
    BuildServer,
    Sent,
    finished,
    log,
    result,
    started,
)
from tests.unit.cli.build.lab import Run

_EXCERPT = """\
1 |     FROM scratch
2 | >>> RUN make
  |     ^"""
_FAILED = {
    "error": "The command 'make' returned a non-zero code: 2",
    "errorDetail": {"message": "The command 'make' returned a non-zero code: 2"},
    "failed": {
        "excerpt": _EXCERPT, "line": 2, "end_line": 2, "column": 1, "vertex": 2, "exit_code": 2,
        "output": "cc: no input\n", "state": IMAGE,
    },
}  # fmt: skip


def fail(_sent: Sent) -> Iterator[dict]:
    yield started(2, "[2/2] RUN make")
    yield log(2, "cc: no input\n", 2)
    yield finished(2, error="exit code 2")
    yield _FAILED


def test_a_program_that_reads_events_gets_nothing_else(run: Run) -> None:
    done = run("--progress=json", "ctx", play=fail)
    assert (done.code, done.out) == (1, "")
    assert [json.loads(line) for line in done.err.splitlines()] == list(fail(done.sent))


@pytest.mark.parametrize("words", [[], ["-q"], ["--debug"]])
def test_a_step_that_fails(run: Run, words: list[str]) -> None:
    done = run(*words, "ctx", play=fail)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(
        "------\n > [2/2] RUN make:\ncc: no input\n------\n"
        f"Dockerfile:2\n{'-' * 20}\n{_EXCERPT}\n{'-' * 20}\n"
        "ERROR: failed to build: The command 'make' returned a non-zero code: 2\n"
        f"The state at which it failed is {IMAGE}\n"
        "Look around in it: estiba run -it --rm abababababab\n"
        + ("" if "--debug" in words else "or build with --debug, which opens a shell there\n")
    )


def test_a_failure_that_is_no_steps(run: Run) -> None:
    done = run("ctx", play=lambda _: [{"error": "unknown instruction: RUM"}])
    assert done.code == 1
    assert done.err.endswith("ERROR: failed to build: unknown instruction: RUM\n")


def test_a_request_that_is_refused(run: Run) -> None:
    def refuse(server: BuildServer) -> None:
        server.refusal = (400, "unknown member of request.json: x")

    done = run("ctx", set_up=refuse)
    assert done.code == 1
    assert "Error response from daemon: unknown member of request.json: x" in done.err


@pytest.mark.parametrize("lines", [[], [started(1, "a")]])
def test_an_answer_without_an_end(run: Run, lines: list[dict]) -> None:
    done = run("ctx", play=lambda _: lines)
    assert done.code == 1
    assert "the daemon ended the build without a result" in done.err


def explained(_sent: Sent) -> Iterator[dict]:
    yield started(1, "[1/2] RUN a")
    yield finished(1, cached=True, reason="hit: same text, same base")
    yield started(2, "[2/2] COPY . .")
    yield finished(2, 1.25, reason="miss: sub/file changed")
    yield result()


def test_explain_cache(run: Run) -> None:
    done = run("--explain-cache", "ctx", play=explained)
    assert "#2 CACHED\n#2 cache hit: same text, same base\n" in done.err
    assert "#3 DONE 1.2s\n#3 cache miss: sub/file changed\n" in done.err
    assert (
        "STEP            CACHE  TIME  REASON\n"
        "[1/2] RUN a     hit    0.0s  same text, same base\n"
        "[2/2] COPY . .  miss   1.2s  sub/file changed\n"
    ) in done.err
    assert "STEP" not in run("ctx", play=explained).err


_WARNING = {
    "warning": {
        "rule": "JSONArgsRecommended", "message": "use the JSON form for CMD",
        "detail": "signals reach the program then", "line": 2, "column": 1, "end_line": 2,
    }
}  # fmt: skip


def test_check(run: Run) -> None:
    done = run("--check", "ctx", play=lambda _: [_WARNING, result(image="", warnings=1)])
    assert done.code == 1
    assert done.sent.request["check"] is True
    # Nothing but the Dockerfile is of interest.
    assert done.sent.order == ["request.json", "dockerfile", "dockerignore", "contexts/context"]
    assert done.out == (
        "Check complete, 1 warning has been found!\n"
        "\n"
        "WARNING: JSONArgsRecommended - "
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "use the JSON form for CMD\n"
        "signals reach the program then\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 | >>> COPY . /\n"
        "--------------------\n"
    )


def test_warnings_that_are_errors(run: Run) -> None:
    def play(_sent: Sent) -> list[dict]:
        return [_WARNING, {"error": "lint violation found for rules: JSONArgsRecommended"}]

    done = run("--check", "ctx", play=play)
    assert done.code == 1
    assert done.out.startswith("Check complete, 1 warning has been found!\n")
    done = run("ctx", play=play)
    assert done.code == 1
    assert " 1 warning found" in done.err
    assert done.err.endswith("lint violation found for rules: JSONArgsRecommended\n")


def test_check_without_warnings(run: Run) -> None:
    done = run("--call=check", "ctx", play=lambda _: [result(image="")])
    assert (done.code, done.out) == (0, "Check complete, no warnings found.\n")


def test_warnings_of_a_build(run: Run) -> None:
    done = run("ctx", play=lambda _: [_WARNING, result(warnings=1)])
    assert done.code == 0
    assert (
        " 1 warning found (use --check to see more):\n"
        " - JSONArgsRecommended: use the JSON form for CMD (line 2)\n"
    ) in done.err
