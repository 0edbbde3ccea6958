"""Progress of pulls and pushes: plain lines on a pipe, bars on a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from estiba.cli import bars as bars_module
from estiba.cli.bars import Bars, Row, bar, clock, row_text
from estiba.cli.progress import show_progress
from estiba.client.errors import ClientError

_PULL = [
    {"status": "Pulling from team/app", "id": "1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaaaaaaaaaaa"},
    {"status": "Downloading", "progressDetail": {"current": 5, "total": 10}, "id": "aaaaaaaaaaaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaaaaaaaaaaa"},
    {"aux": {"Digest": "sha256:0"}},
    {"status": "Digest: sha256:0"},
]


class Screen:
    """What a terminal would show: text, newlines, and the sequences that bars use."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines: list[str] = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[\d*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            if piece == "\r":
                self._column = 0
            elif piece == "\n":
                self._row, self._column = self._row + 1, 0
                if self._row == len(self.lines):
                    self.lines.append("")
            elif piece.startswith("\x1b"):
                self._control(piece[2:-1], piece[-1])
            else:
                line = self.lines[self._row].ljust(self._column)
                assert self._column + len(piece) <= self.columns, f"too wide: {piece!r}"
                end = self._column + len(piece)
                self.lines[self._row] = line[: self._column] + piece + line[end:]
                self._column = end

    def _control(self, number: str, letter: str) -> None:
        if letter == "A":
            self._row -= int(number)
            assert self._row >= 0, "above the screen"
        elif letter == "K":
            self.lines[self._row] = self.lines[self._row][: self._column]
        elif letter == "J":
            del self.lines[self._row + 1 :]
            self.lines[self._row] = self.lines[self._row][: self._column]
        else:
            assert letter == "m"

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


class Window:
    """A pseudo-terminal of a size, and what was written to it."""

    def __init__(self, rows: int, columns: int) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        mode = termios.tcgetattr(slave)
        mode[1] = int(mode[1]) & ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        self.out: TextIO = io.TextIOWrapper(os.fdopen(slave, "wb", 0), encoding="utf-8")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        """All that was written so far."""
        os.set_blocking(self._master, False)
        data = b""
        while True:
            try:
                data += os.read(self._master, 65536)
            except BlockingIOError:
                return data.decode()

    def close(self) -> None:
        self.out.close()
        os.close(self._master)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    monkeypatch.setenv("NO_COLOR", "1")
    # Every message is drawn at once, and none by the clock.
    monkeypatch.setattr(bars_module, "_LEAST_PAUSE_S", 0.0)
    monkeypatch.setattr(bars_module, "_TICK_S", 3600.0)
    made = Window(24, 80)
    yield made
    made.close()


def test_plain_lines_are_dockers(capsys: pytest.CaptureFixture[str]) -> None:
    show_progress(_PULL)
    assert capsys.readouterr().out == (
        "1: Pulling from team/app\n"
        "aaaaaaaaaaaa: Pulling fs layer\n"
        "aaaaaaaaaaaa: Pull complete\n"
        "Digest: sha256:0\n"
    )
    show_progress([{"stream": "Loaded image: x\n"}, {"status": "s", "progress": "[=>]"}], err=True)
    assert capsys.readouterr().err == "Loaded image: x\ns [=>]"
    show_progress(_PULL, quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"errorDetail": {"message": "no space left"}, "error": "x"}, "no space left"),
        ({"error": "manifest unknown"}, "manifest unknown"),
        ({"errorDetail": {"code": 401, "message": "x"}}, "authentication is required"),
        ({"errorDetail": {}, "error": "odd"}, "odd"),
    ],
)
@pytest.mark.parametrize("quiet", [False, True])
def test_failures_in_the_stream(
    line: dict[str, object], message: str, quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClientError) as caught:
        show_progress([*_PULL[:2], line], quiet=quiet)
    assert str(caught.value) == message


def test_a_block_of_bars(window: Window) -> None:
    screen = Screen(80)
    with Bars(window.out) as bars:
        bars.write("1: Pulling from team/app\n")
        for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
            bars.update(name, "Waiting", {})
        bars.update("bbbbbbbbbbbb", "Downloading", {"current": 5_000_000, "total": 10_000_000})
        bars.update("aaaaaaaaaaaa", "Pull complete", {})
        screen.feed(window.read())
        lines = screen.text.splitlines()
        assert lines[:2] == ["1: Pulling from team/app", "aaaaaaaaaaaa Pull complete"]
        assert lines[2].startswith("bbbbbbbbbbbb Downloading") and "5MB/10MB" in lines[2]
        assert "██" in lines[2]
        bars.update("bbbbbbbbbbbb", "Pull complete", {})
        bars.write("Digest: sha256:0\n")
    screen.feed(window.read())
    assert screen.text.splitlines() == [
        "1: Pulling from team/app", "aaaaaaaaaaaa Pull complete", "bbbbbbbbbbbb Pull complete",
        "Digest: sha256:0",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [10, 20, 40, 61, 80, 200])
def test_no_line_is_wider_than_the_window(window: Window, columns: int) -> None:
    window.resize(24, columns)
    screen = Screen(columns - 1)
    with Bars(window.out) as bars:
        for current in range(0, 10**9, 10**8):
            bars.update("a" * 12, "Verifying Checksum", {"current": current, "total": 10**9})
    screen.feed(window.read())
    assert len(screen.text.splitlines()) == 1


def test_a_window_that_changes(window: Window) -> None:
    screen = Screen(200)
    window.resize(24, 200)
    with Bars(window.out) as bars:
        for number in range(5):
            bars.update(f"{number:012}", "Downloading", {"current": 10, "total": 100})
        screen.feed(window.read())
        window.resize(24, 120)
        bars.update(f"{0:012}", "Downloading", {"current": 20, "total": 100})
        screen.feed(window.read())
    screen.feed(window.read())
    assert len(screen.text.splitlines()) == 5
    assert all(len(line) < 120 for line in screen.text.splitlines())


def test_more_layers_than_lines(window: Window) -> None:
    window.resize(8, 80)
    screen = Screen(80)
    with Bars(window.out) as bars:
        for number in range(30):
            status = "Pull complete" if number < 10 else "Waiting"
            bars.update(f"{number:012}", status, {})
        screen.feed(window.read())
        lines = screen.text.splitlines()
        assert len(lines) == 6
        assert lines[0].startswith("000000000010 Waiting")
        assert lines[-1] == "10 layers finished, 15 more under way"


def test_a_transfer_that_hangs_is_seen(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars_module, "_TICK_S", 0.01)
    with Bars(window.out) as bars:
        bars.update("a" * 12, "Downloading", {"current": 1, "total": 100})
        window.read()
        end = time.monotonic() + 30
        while not window.read():
            assert time.monotonic() < end, "nothing is drawn by the clock"


def test_no_word_of_a_registry_commands_the_terminal(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", window.out)
    monkeypatch.setenv("TERM", "xterm")
    wicked = "x\x1b]0;title\x07\x9b2J\r"
    show_progress([
        {"status": wicked, "id": wicked, "progressDetail": {}},
        {"status": wicked},
    ])  # fmt: skip
    text = window.read()
    assert "\x1b]" not in text and "\x07" not in text and "\x9b" not in text
    assert "\ufffd]0;title" in text


def test_numbers() -> None:
    row = Row("a" * 12)
    for second in range(4):
        row.update("Downloading", {"current": second * 10**6, "total": 10**7}, float(second))
    assert row.numbers(3.0) == ("3MB/10MB", "1MB/s 7s")
    # Silence counts: the speed falls.
    assert row.speed(9.0) < 400_000
    text = row_text(row, 100, 3.0, blocks=True, color=True)
    assert "\x1b[36m" in text and text.endswith("1MB/s 7s")
    row.update("Extracting", {"current": 10, "total": 10**7}, 4.0)
    assert row.numbers(4.0) == ("10B/10MB", "")
    row.update("Pull complete", {}, 5.0)
    assert row.is_finished and row.numbers(5.0) == ("", "")
    assert [clock(value) for value in (0.2, 59, 61, 3725)] == ["0s", "59s", "1m01s", "1h02m"]


def test_shapes() -> None:
    assert bar(0.5, 8, blocks=True) == "████    "
    assert bar(0.56, 8, blocks=True) == "████▍   "
    assert bar(2.0, 8, blocks=True) == "████████"
    assert bar(0.5, 8, blocks=False) == "====>   "
    assert bar(1.0, 8, blocks=False) == "========"
    assert bar(0.0, 8, blocks=False) == ">       "
