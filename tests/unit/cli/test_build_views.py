"""How a build is shown: frames of the live view, and lines on a pipe."""

from __future__ import annotations

import io
import re
import time

import pytest
from tests.support.buildserver import (
    DEADLINE_S,
    finished,
    log,
    started,
    status,
)

from estiba.cli import buildview
from estiba.cli.buildboard import Board, readable
from estiba.cli.buildlive import fitted, frame
from estiba.cli.buildview import PlainView


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a       b"),
        ("10%\r50%\r100%", "100%"),
        ("done\r", "done"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Hup\x1b[10A", "up"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1b(0\x1bMx", "x"),
        ("\x1b", ""),
        ("bell\a", "bell\ufffd"),
        ("\x9b31mc1", "\ufffd31mc1"),
        ("a\u202eb", "a\ufffdb"),
        ("nul\0", "nul\ufffd"),
    ],
)
def test_nothing_in_a_line_moves_the_cursor(text: str, shown: str) -> None:
    assert readable(text) == shown


@pytest.mark.parametrize(
    ("text", "columns", "shown", "width"),
    [
        ("abc", 2, "ab", 2),
        ("漢字", 3, "漢", 2),
        ("e\u0301te", 2, "e\u0301t", 2),
        ("a\u200bb", 2, "a\u200bb", 2),
        ("😀x", 3, "😀x", 3),
    ],
)
def test_widths(text: str, columns: int, shown: str, width: int) -> None:
    assert fitted(text, columns) == (shown, width)


# -- frames --------------------------------------------------------------------------------


def board(*events: dict, at: float = 100.0) -> Board:
    made = Board(at)
    for event in events:
        made.feed(event, at)
    return made


def texts(made: Board, columns: int, height: int, now: float = 103.0, final: str = "") -> list[str]:
    lines = [line.text for line in frame(made, columns, height, now, final=final)]
    assert all(fitted(line, 10_000)[1] <= columns for line in lines)
    assert final or len(lines) < max(height, 2)
    return lines


_BUSY = [
    started(1, "[build 1/3] FROM golang"), finished(1, 0.5),
    started(2, "[build 2/3] RUN make"),
    *[log(2, f"line {i}\n") for i in range(20)], log(2, "no end yet"),
    started(3, "[other 1/2] FROM debian"),
    status(3, "sha256:aaaa", "downloading", 25_000_000, 50_000_000),
    status(3, "sha256:bbbb", "extracting", 5, 5),
]  # fmt: skip


def test_a_frame() -> None:
    assert texts(board(*_BUSY), 60, 24) == [
        "[+] Building 3.0s (1/5)",
        " => [build 1/3] FROM golang                             0.5s",
        " => [build 2/3] RUN make                                3.0s",
        " => => # line 15",
        " => => # line 16",
        " => => # line 17",
        " => => # line 18",
        " => => # line 19",
        " => => # no end yet",
        " => [other 1/2] FROM debian                             3.0s",
        " => => sha256:aaaa downloading 25MB / 50MB  █████       3.0s",
        " => => sha256:bbbb extracting 5B / 5B                   3.0s",
    ]


@pytest.mark.parametrize("height", range(1, 16))
@pytest.mark.parametrize("columns", [1, 5, 20, 33, 60, 200])
def test_frames_fit_every_window(height: int, columns: int) -> None:
    many = [started(n, f"[{n}/99] RUN 漢字 {'x' * n}") for n in range(10, 30)]
    for events in (_BUSY, [*_BUSY, *many], many):
        lines = texts(board(*events), columns, height)
        assert lines[0].startswith("[+] Building"[:columns])


def test_running_steps_come_before_those_that_have_ended() -> None:
    ended = [event for n in range(10, 30) for event in (started(n, f"done {n}"), finished(n))]
    lines = texts(board(*ended, started(40, "running"), log(40, "text\n")), 40, 7)
    assert [line.split("  ")[0] for line in lines] == [
        "[+] Building 3.0s (20/21)", " => done 27", " => done 28", " => done 29", " => running",
        " => => # text",
    ]  # fmt: skip


def test_more_steps_than_lines() -> None:
    lines = texts(board(*[started(n, f"step {n}") for n in range(9)]), 40, 6)
    assert lines[1:3] == [
        " => step 0                          3.0s", " => step 1                          3.0s",
    ]  # fmt: skip
    assert lines[-1] == " => 6 more steps under way"


def test_the_last_frame_has_all_steps() -> None:
    ended = [event for n in range(50) for event in (started(n, f"s{n}"), finished(n, cached=True))]
    lines = texts(board(*ended), 40, 6, final="FINISHED")
    assert lines[0] == "[+] Building 3.0s (50/50) FINISHED"
    assert [line.split("  ")[0] for line in lines[1:]] == [f" => CACHED s{n}" for n in range(50)]


def test_states_are_told() -> None:
    made = board(
        started(1, "a"), finished(1, error="x"), started(2, "b"), started(3, "c"),
        finished(3, error="cancelled"),
    )  # fmt: skip
    assert made.stop(103.0)[0][0].name == "b"
    assert [line[:18].rstrip() for line in texts(made, 40, 9)[1:]] == [
        " => ERROR a", " => CANCELED b", " => CANCELED c",
    ]  # fmt: skip


# -- lines on a pipe -----------------------------------------------------------------------


def plain(play: list[dict], *, explained: bool = False) -> str:
    out = io.StringIO()
    with PlainView(out, explained=explained) as view:
        for event in play:
            view.event(event)
    return re.sub(r"(#\d+) \d+\.\d{3}", r"\1 T", out.getvalue())


def test_one_step_after_the_other() -> None:
    assert plain(
        [started(1, "[1/2] FROM a"), finished(1, 0.04), started(2, "[2/2] RUN  b\n c"),
         log(2, "one\ntw"), log(2, "o\r\n\nend"), finished(2, 1.26)]
    ) == (
        "\n#1 [1/2] FROM a\n#1 DONE 0.0s\n"
        "\n#2 [2/2] RUN b c\n#2 T one\n#2 T two\n#2 T\n#2 T end\n#2 DONE 1.3s\n"
    )  # fmt: skip


def test_steps_at_once_take_turns() -> None:
    assert plain(
        [started(1, "a"), started(2, "b"), log(1, "a1\n"), log(2, "b1\n"), log(1, "a2\n"),
         finished(2, cached=True), started(3, "c"), finished(1, 1.0)]
    ) == (
        "\n#1 a\n#1 T a1\n#1 T a2\n#1 DONE 1.0s\n"
        "\n#2 b\n#2 T b1\n#2 CACHED\n"
        "\n#3 c\n#3 CANCELED\n"
    )  # fmt: skip


def test_a_silent_step_lets_others_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildview, "_PATIENCE_S", 0.0)
    assert plain(
        [started(1, "a"), log(1, "a1\n"), started(2, "b"), log(2, "b1\n"), log(1, "a2\n"),
         finished(1, 1.0), finished(2, 1.0, error="x")]
    ) == (
        "\n#1 a\n#1 T a1\n#1 ...\n\n#2 b\n#2 T b1\n#2 ...\n\n#1 a\n#1 T a2\n#1 DONE 1.0s\n"
        "\n#2 b\n#2 ERROR: x\n"
    )  # fmt: skip


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that never stops speaking is interrupted, without another event."""
    monkeypatch.setattr(buildview, "_LONGEST_S", 0.0)
    monkeypatch.setattr(buildview, "_TICK_S", 0.01)
    out = io.StringIO()
    with PlainView(out, explained=False) as view:
        view.event(started(1, "a"))
        view.event(log(1, "a1\n"))
        view.event(started(2, "b"))
        end = time.monotonic() + DEADLINE_S
        while "#2 b" not in out.getvalue():
            assert time.monotonic() < end


def test_transfers_are_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    play = [started(1, "a"), *[status(1, "x", "downloading", n, 100) for n in range(0, 101, 10)],
            finished(1, 1.0)]  # fmt: skip
    assert plain(play) == "\n#1 a\n#1 x downloading 100B / 100B done\n#1 DONE 1.0s\n"
    monkeypatch.setattr(buildview, "_STATUS_PAUSE_S", 0.0)
    assert plain(play).count("downloading") == 11


def test_layers_that_end_in_words() -> None:
    play = [
        started(1, "pull"), status(1, "a", "Already exists", 0, 0),
        status(1, "b", "Pulling fs layer", 0, 0), status(1, "b", "Downloading", 5, 5),
        status(1, "b", "Download complete", 0, 0), status(1, "b", "Extracting", 5, 5),
        status(1, "b", "Pull complete", 0, 0), finished(1, 1.0),
    ]  # fmt: skip
    assert plain(play) == (
        "\n#1 pull\n#1 a Already exists\n#1 b Downloading 5B / 5B done\n"
        "#1 b Extracting 5B / 5B done\n#1 DONE 1.0s\n"
    )


def test_layers_under_way_come_before_those_that_are_there() -> None:
    items = [status(1, f"l{n}", "Pull complete", 0, 0) for n in range(8)]
    busy = [status(1, "x", "Downloading", 1, 5), status(1, "y", "Waiting", 0, 0)]
    lines = texts(board(started(1, "pull"), *items, *busy), 60, 24)
    assert [line.split()[2] for line in lines[2:]] == ["x", "y"]


def test_reasons_of_the_cache() -> None:
    play = [started(1, "a"), finished(1, cached=True, reason="same"), started(2, "b"),
            finished(2, 1.0, reason="changed"), started(3, "c"), finished(3)]  # fmt: skip
    assert plain(play, explained=True) == (
        "\n#1 a\n#1 CACHED\n#1 cache hit: same\n\n#2 b\n#2 DONE 1.0s\n#2 cache miss: changed\n"
        "\n#3 c\n#3 DONE 0.0s\n"
    )


def test_a_line_without_an_end_is_cut() -> None:
    lines = plain([started(1, "a"), log(1, "x" * 20_000), finished(1)]).split("\n")
    assert sum(line.count("x") for line in lines) == 20_000
