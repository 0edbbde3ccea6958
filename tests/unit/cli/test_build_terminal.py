"""`estiba build` on a terminal, as a screen shows it, with a server that plays events."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buildserver import (
    DEADLINE_S,
    IMAGE,
    Sent,
    build_server,
    finished,
    log,
    result,
    started,
)
from tests.support.screen import Screen
from tests.support.terminal import Terminal

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]


class Stage:
    """A play that goes on when the test says so."""

    def __init__(self, *acts: list[dict]) -> None:
        self._acts = acts
        self._cue = threading.Semaphore(0)

    def go_on(self) -> None:
        self._cue.release()

    def __call__(self, _sent: Sent) -> Iterator[dict]:
        for act in self._acts:
            assert self._cue.acquire(timeout=DEADLINE_S)
            yield from act


@pytest.fixture
def context(tmp_path: Path) -> str:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return str(tmp_path)


def environment(tmp: str, **more: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": "1",
            "ESTIBA_CONFIG": f"{tmp}/none", **more}  # fmt: skip


def shown(terminal: Terminal, rows: int, columns: int) -> Screen:
    screen = Screen(rows, columns)
    screen.feed(terminal.seen)
    return screen


def seconds_gone(text: str) -> str:
    """Without the times, which differ from run to run."""
    return re.sub(r" +\d+\.\ds$", "", re.sub(r"Building \d+\.\ds", "Building", text), flags=re.M)


_HOSTILE = "\x1b[2J\x1b[100A\x1b]0;owned\x07\x1b[?1049h\x9b5Aevil \x0e\x1bc"


def test_a_build_on_a_terminal(context: str) -> None:
    stage = Stage(
        [started(1, "[a 1/2] FROM busybox"), finished(1, 0.5),
         started(2, f"[a 2/2] RUN make {_HOSTILE}"), log(2, f"{_HOSTILE}\n{'wide ' * 100}\n"),
         started(3, "[b 1/1] COPY . ."), log(3, "copying now\n")],
        [finished(3, cached=True), log(2, "nearly done\n")],
        [finished(2, 2.0), result(tags=["a:1"])],
    )  # fmt: skip
    with build_server(stage) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        with Terminal(command, environment(context), rows=24, columns=60) as terminal:
            stage.go_on()
            terminal.wait_for(b"copying now")
            window = shown(terminal, 24, 60).window
            assert [line[:40] for line in map(seconds_gone, window)] == [
                "[+] Building (2/4)",
                " => [internal] load build context",
                " => [a 1/2] FROM busybox",
                " => [a 2/2] RUN make \ufffd5Aevil \ufffd",
                " => => # \ufffd5Aevil \ufffd",
                " => => # wide wide wide wide wide wide w",
                " => [b 1/1] COPY . .",
                " => => # copying now",
                "",
            ]
            stage.go_on()
            terminal.wait_for(b"nearly done")
            stage.go_on()
            assert terminal.wait() == 0
        screen = shown(terminal, 24, 60)
        assert screen.has_cursor
        assert seconds_gone(screen.text) == (
            "[+] Building (4/4) FINISHED\n"
            " => [internal] load build context\n"
            " => [a 1/2] FROM busybox\n"
            " => [a 2/2] RUN make \ufffd5Aevil \ufffd\n"
            " => CACHED [b 1/1] COPY . .\n"
            "\n"
            f"Built {IMAGE[:54]}\n{IMAGE[54:]}\n"
            "Tagged a:1"
        )


def test_more_steps_than_the_window_has_lines(context: str) -> None:
    steps = [event for n in range(1, 31) for event in (started(n, f"step {n}"), finished(n, 1.0))]
    stage = Stage([*steps, started(40, "the last one")], [finished(40, 2.0), result(image="")])
    with build_server(stage) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        with Terminal(command, environment(context), rows=8, columns=40) as terminal:
            stage.go_on()
            terminal.wait_for(b"the last one")
            stage.go_on()
            assert terminal.wait() == 0
        lines = seconds_gone(shown(terminal, 8, 40).text).split("\n")
        assert lines[-32:] == [
            " => [internal] load build context", *[f" => step {n}" for n in range(1, 31)],
            " => the last one",
        ]  # fmt: skip
        assert lines[-33] == "[+] Building (32/32) FINISHED"


def test_a_window_that_changes(context: str) -> None:
    def act(text: str) -> list[dict]:
        return [log(1, f"{text} {'x' * 150}\n")]

    stage = Stage([started(1, "[1/1] RUN a"), *act("one")], act("two"), act("three"),
                  [finished(1, 1.0), result(image="")])  # fmt: skip
    with build_server(stage) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        with Terminal(command, environment(context), rows=24, columns=100) as terminal:
            stage.go_on()
            terminal.wait_for(b"one")
            terminal.resize(6, 30)
            stage.go_on()
            terminal.wait_for(b"two")
            terminal.resize(24, 120)
            stage.go_on()
            terminal.wait_for(b"three")
            stage.go_on()
            assert terminal.wait() == 0
        last = terminal.seen.decode().rpartition("[+]")[2]
        assert seconds_gone(last.replace("\x1b[K", "").replace("\r", "")).startswith(
            " Building (2/2) FINISHED\n => [internal] load build context\n => [1/1] RUN a\n"
        )


def test_ctrl_c_on_a_terminal(context: str) -> None:
    stage = Stage([started(1, "[1/1] RUN sleep"), log(1, "asleep\n")], [])
    with build_server(stage) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        with Terminal(command, environment(context), rows=10, columns=60) as terminal:
            stage.go_on()
            terminal.wait_for(b"asleep")
            terminal.type("\x03")
            assert terminal.wait() == 130
        screen = shown_without_echo(terminal, 10, 60)
        assert screen.has_cursor
        assert seconds_gone(screen.text).endswith(
            "[+] Building (1/2) CANCELED\n => [internal] load build context\n"
            " => CANCELED [1/1] RUN sleep"
        )


def shown_without_echo(terminal: Terminal, rows: int, columns: int) -> Screen:
    """The terminal shows ^C where the cursor stands; the next frame covers it."""
    screen = Screen(rows, columns)
    screen.feed(terminal.seen.replace(b"^C", b""))
    return screen


def test_a_failure_on_a_terminal(context: str) -> None:
    def play(_sent: Sent) -> Iterator[dict]:
        yield started(1, "[1/1] RUN a")
        yield finished(1, 1.0, error="exit code 3")
        failed = {"vertex": 1, "exit_code": 3, "output": f"{_HOSTILE}\nsad\n", "state": "",
                  "excerpt": "1 | x", "line": 1}  # fmt: skip
        yield {"error": "it failed", "failed": failed}

    with build_server(play) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        with Terminal(command, environment(context), rows=24, columns=60) as terminal:
            assert terminal.wait() == 1
        assert seconds_gone(shown(terminal, 24, 60).text) == (
            "[+] Building (1/2) ERROR\n"
            " => [internal] load build context\n"
            " => ERROR [1/1] RUN a\n"
            "------\n"
            " > [1/1] RUN a:\n"
            "\ufffd5Aevil \ufffd\n"
            "sad\n"
            "------\n"
            "Dockerfile:1\n--------------------\n1 | x\n--------------------\n"
            "ERROR: failed to build: it failed (exit code 3)"
        )


def test_colours(context: str) -> None:
    def play(_sent: Sent) -> Iterator[dict]:
        yield from (started(1, "good"), finished(1), started(2, "bad"), finished(2, error="x"))
        yield {"error": "x"}

    with build_server(play) as server:
        command = [*ESTIBA, "-H", server.url, "build", context]
        for plain in ("", "1"):
            variables = environment(context, NO_COLOR=plain)
            with Terminal(command, variables, rows=24, columns=60) as terminal:
                assert terminal.wait() == 1
            assert (b"\x1b[34m => good" in terminal.seen) is not bool(plain)
            assert (b"\x1b[31m => ERROR bad" in terminal.seen) is not bool(plain)


@pytest.mark.parametrize(("words", "term"), [(["--progress=plain"], "xterm"), ([], "dumb")])
def test_plain_lines_on_a_terminal(context: str, words: list[str], term: str) -> None:
    def play(_sent: Sent) -> Iterator[dict]:
        yield from (started(1, "a"), log(1, f"{_HOSTILE}\n"), finished(1, 1.0), result(image=""))

    with build_server(play) as server:
        command = [*ESTIBA, "-H", server.url, "build", *words, context]
        with Terminal(command, environment(context, TERM=term)) as terminal:
            assert terminal.wait() == 0
        assert b"\x1b" not in terminal.seen
        assert "#2 DONE 1.0s" in shown(terminal, 30, 100).text
