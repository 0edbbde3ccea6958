"""The view of a build on a terminal: all steps at once, drawn anew as things happen.

    [+] Building 12.3s (3/5)
     => CACHED [build 1/3] FROM busybox                                   0.0s
     => [build 2/3] RUN make                                              3.4s
     => => # cc -c main.c

No line is wider than the window and the block no higher, so that the cursor can always be led
back to its first line; a frame is one write, and hides the cursor for no longer than that. When
the build has ended all of its steps stay on the terminal.
"""

from __future__ import annotations

import os
import threading
import time
import unicodedata

from estiba.cli.bars import bar
from estiba.cli.buildboard import CACHED, CANCELLED, FAILED, Board, Item, Step, readable
from estiba.cli.buildview import Narrated, item_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_LEAST_PAUSE_S = 0.05
_TICK_S = 0.1
_MOST_LINES = 6
_MOST_BAR = 25
_LEAST_BAR = 8
_NARROW = 20
_LEAST_HEIGHT = 2
_BLUE, _RED, _FAINT, _CYAN, _PLAIN = "\x1b[34m", "\x1b[31m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
_BEGIN, _END = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"
"""Around a frame: no cursor, and what is wider than it was thought to be is cut."""


def width_of(character: str) -> int:
    """Columns on a terminal."""
    if character.isascii():
        return 1
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def fitted(text: str, columns: int) -> tuple[str, int]:
    """As much of a text as there is room for, and how wide that is."""
    if text.isascii() and len(text) <= columns:
        return text, len(text)
    used = 0
    for index, character in enumerate(text):
        wide = width_of(character)
        if used + wide > columns:
            return text[:index], used
        used += wide
    return text, used


def row(left: str, right: str, columns: int) -> str:
    """One text at each edge; the left one gives way."""
    room = columns - len(right) - 1
    if room < _NARROW:
        return fitted(left, columns)[0]
    text, used = fitted(left, room)
    return f"{text}{' ' * (room - used)} {right}"


class Line:
    """A line of a frame, with its colour."""

    __slots__ = ("color", "text")

    def __init__(self, text: str, color: str = "") -> None:
        self.text = text
        self.color = color


# -- a frame -------------------------------------------------------------------------------


def frame(
    board: Board, columns: int, height: int, now: float, *, blocks: bool = True, final: str = ""
) -> list[Line]:
    """What is shown of a build in a window. A `final` frame has all steps and the word."""
    lines = [_head(board, columns, now, final)]
    steps = sorted(board.steps.values(), key=lambda step: step.number)
    if final:
        return lines + [_step_line(step, columns, now) for step in steps]
    room = height - 2
    if room < 1:
        return lines
    running = [step for step in steps if not step.has_ended]
    shown, hidden = running[:room], len(running) - room
    if hidden > 0:
        shown = running[: room - 1]
    left = room - len(shown) - (hidden > 0)
    details = _details(shown, left, columns, now, blocks=blocks)
    left -= sum(len(texts) for texts in details.values())
    ended = [step for step in steps if step.has_ended]
    for step in sorted([*ended[max(len(ended) - left, 0) :], *shown], key=lambda step: step.number):
        lines.append(_step_line(step, columns, now))
        lines += details.get(step.number, [])
    if hidden > 0:
        lines.append(Line(fitted(f" => {hidden + 1} more steps under way", columns)[0], _FAINT))
    return lines


def _head(board: Board, columns: int, now: float, final: str) -> Line:
    text = f"[+] Building {now - board.began:.1f}s ({board.finished}/{board.total}) {final}"
    return Line(fitted(text.rstrip(), columns)[0])


def _step_line(step: Step, columns: int, now: float) -> Line:
    marks = {CACHED: "CACHED ", FAILED: "ERROR ", CANCELLED: "CANCELED "}
    colors = {FAILED: _RED, CANCELLED: _FAINT}
    color = colors.get(step.state, _BLUE if step.has_ended else "")
    left = f" => {marks.get(step.state, '')}{readable(step.name)}"
    return Line(row(left, f"{step.elapsed(now):.1f}s", columns), color)


def _details(
    steps: list[Step], room: int, columns: int, now: float, *, blocks: bool
) -> dict[int, list[Line]]:
    """Transfers and last output of the steps under way, as much as there is room for."""
    found: dict[int, list[Line]] = {}
    for index, step in enumerate(steps):
        share = min(room // (len(steps) - index), _MOST_LINES)
        lines = _items(step, share, columns, now, blocks=blocks)
        lines += _output(step, share - len(lines), columns)
        found[step.number] = lines
        room -= len(lines)
    return found


def _items(step: Step, most: int, columns: int, now: float, *, blocks: bool) -> list[Line]:
    """Those that are under way rather than those that are complete."""
    items = list(step.items.values())
    if len(items) > most:
        items = [item for item in items if not item.is_complete]
    return [_item_line(item, columns, now, blocks=blocks) for item in items[: max(most, 0)]]


def _item_line(item: Item, columns: int, now: float, *, blocks: bool) -> Line:
    seconds = f"{now - item.began:.1f}s"
    left = f" => => {item_text(item)}"
    room = columns - len(left) - len(seconds) - 4
    if item.total and not item.is_complete and room >= _LEAST_BAR:
        drawn = bar(item.current / item.total, min(room, _MOST_BAR), blocks=blocks)
        left = f"{left}  {drawn}"
    return Line(row(left, seconds, columns))


def _output(step: Step, most: int, columns: int) -> list[Line]:
    if most <= 0:
        return []
    texts = [*list(step.lines)[-most:], *([step.rest] if step.rest else [])][-most:]
    return [Line(fitted(f" => => # {readable(text)}", columns)[0], _FAINT) for text in texts]


# -- the terminal --------------------------------------------------------------------------


class LiveView(Narrated):
    """Draws when there is news, and ten times a second for the clocks."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._drawn: list[int] = []
        """How many columns each line on the terminal has."""
        self._drawn_at = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._has_color = not os.environ.get("NO_COLOR")
        self._blocks = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._thread = threading.Thread(target=self._tick, name="live", daemon=True)

    def __enter__(self) -> LiveView:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        with self._lock:
            now = time.monotonic()
            cut = self.board.stop(now)
            failed = any(step.state == FAILED for step in self.board.steps.values())
            if failed or (kind is not None and kind is not KeyboardInterrupt):
                word = "ERROR"
            else:
                word = "CANCELED" if cut or kind is not None else "FINISHED"
            self._draw(now, word)

    def event(self, event: dict[str, Any]) -> None:
        with self._lock:
            now = time.monotonic()
            self.board.feed(event, now)
            if now - self._drawn_at >= _LEAST_PAUSE_S:
                self._draw(now)

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            with self._lock:
                self._draw(time.monotonic())

    def _draw(self, now: float, final: str = "") -> None:
        self._drawn_at = now
        if not self.board.steps and not self._drawn:
            return
        columns, height = self._size()
        if height < _LEAST_HEIGHT and not final:
            return
        lines = frame(self.board, columns - 1, height, now, blocks=self._blocks, final=final)
        # A narrower window has broken the lines that were drawn before.
        above = sum(max(1, -(-length // columns)) for length in self._drawn)
        up = min(above, height - 1)
        text = f"\x1b[{up}A\r" if up else "\r"
        text += "".join(f"{self._colored(line)}\x1b[K\n" for line in lines) + "\x1b[J"
        self._drawn = [fitted(line.text, columns)[1] for line in lines]
        self.out.write(f"{_BEGIN}{text}{_END}")
        self.out.flush()

    def _colored(self, line: Line) -> str:
        if not self._has_color or not line.color:
            return line.text
        return f"{line.color}{line.text}{_PLAIN}"

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self.out.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24
