"""Progress bars: a block of lines at the end of the terminal's text, a line a layer.

    63a7fe1fb344 Downloading   12.4MB/50.1MB ████████▌             10.2MB/s 4s

The block is drawn anew ten times a second at most, and by a thread of its own once in a while, so
that a transfer that hangs and a window that has changed are seen. No line is wider than the
window and the block no higher, so that the cursor can always be led back to its first line.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from estiba.cli.output import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_LEAST_PAUSE_S = 0.1
_TICK_S = 0.5
_SPEED_WINDOW_S = 5.0
_MOST_BAR = 40
_LEAST_BAR = 8
_STATUS_WIDTH = 18
_EIGHTHS = "▏▎▍▌▋▊▉"
_FINISHED = ("complete", "exists", "pushed", "mounted", "skipped", "available")
"""Words that end the last status of a layer."""


class Row:
    """One layer."""

    __slots__ = ("_samples", "current", "name", "status", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = ""
        self.current = 0
        self.total = 0
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, status: str, detail: dict[str, Any], now: float) -> None:
        current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        if status != self.status or current < self.current:
            self._samples.clear()
        self.status, self.current, self.total = status, current, total
        if current:
            self._samples.append((now, current))
        while len(self._samples) > 2 and now - self._samples[0][0] > _SPEED_WINDOW_S:
            self._samples.popleft()

    @property
    def is_finished(self) -> bool:
        return self.status.lower().endswith(_FINISHED)

    def speed(self, now: float) -> float:
        """Bytes a second over the last seconds, the silent ones included."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(now - began, 1e-3)

    def numbers(self, now: float) -> tuple[str, str]:
        """How much of how much, and how fast and how long still."""
        if not self.current or self.is_finished:
            return "", ""
        count = human_size(self.current, 3)
        if self.total:
            count += f"/{human_size(self.total, 3)}"
        speed = self.speed(now)
        if speed < 1:
            return count, ""
        rate = f"{human_size(speed, 3)}/s"
        left = (self.total - self.current) / speed
        return count, f"{rate} {clock(left)}" if self.total > self.current else rate


def clock(seconds: float) -> str:
    """`4s`, `2m05s`, `1h02m`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def bar(share: float, width: int, *, blocks: bool) -> str:
    """So many columns of which a share is filled."""
    share = min(max(share, 0.0), 1.0)
    if not blocks:
        filled = int(share * width)
        return "=" * filled + (">" if filled < width else "") + " " * (width - filled - 1)
    eighths = int(share * width * 8)
    text = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")
    return text.ljust(width)


def row_text(row: Row, width: int, now: float, *, blocks: bool, color: bool) -> str:
    """At most `width` columns."""
    head = f"{row.name[:12]:<12} {row.status:<{_STATUS_WIDTH}}"
    count, rate = row.numbers(now)
    if not count:
        return head.rstrip()[:width]
    shown = f"{head} {count:>15}"
    room = width - len(shown) - 2 - 16
    if not row.total or room < _LEAST_BAR:
        return f"{shown} {rate}".rstrip()[:width]
    drawn = bar(row.current / row.total, min(room, _MOST_BAR), blocks=blocks)
    if color:
        drawn = f"\x1b[36m{drawn}\x1b[0m"
    return f"{shown} {drawn} {rate}".rstrip()


class Bars:
    """The block. What is written besides stands above it, and the block before stays as it is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows: dict[str, Row] = {}
        self._drawn: list[int] = []
        """How many columns each line on the terminal has."""
        self._drawn_at = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._color = not os.environ.get("NO_COLOR")
        self._blocks = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._thread = threading.Thread(target=self._tick, name="bars", daemon=True)

    def __enter__(self) -> Bars:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        with self._lock:
            self._draw()

    def update(self, name: str, status: str, detail: dict[str, Any]) -> None:
        with self._lock:
            now = time.monotonic()
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = Row(name)
            row.update(status, detail, now)
            if now - self._drawn_at >= _LEAST_PAUSE_S:
                self._draw()

    def write(self, text: str) -> None:
        """Text that stays. What comes after it begins a block of its own."""
        with self._lock:
            self._draw()
            self._rows.clear()
            self._drawn.clear()
            self._out.write(text)
            self._out.flush()

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            with self._lock:
                if self._rows:
                    self._draw()

    def _draw(self) -> None:
        now = self._drawn_at = time.monotonic()
        if not self._rows and not self._drawn:
            return
        columns, height = self._size()
        lines = self._lines(columns, height, now)
        # A narrower window has broken the lines that were drawn before.
        above = sum(max(1, -(-length // columns)) for length in self._drawn)
        up = min(above, height - 1)
        text = f"\x1b[{up}A\r" if up else "\r"
        text += "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        self._drawn = [_columns(line) for line in lines]
        self._out.write(text)
        self._out.flush()

    def _lines(self, columns: int, height: int, now: float) -> list[str]:
        """The rows that fit: those that are finished go first."""
        rows = list(self._rows.values())
        room = max(height - 2, 1)
        note = []
        if len(rows) > room:
            busy = [row for row in rows if not row.is_finished]
            shown = busy[: room - 1] if room > 1 else busy[:1]
            done = len(rows) - len(busy)
            hidden = len(busy) - len(shown)
            waiting = f", {hidden} more under way" if hidden else ""
            note = [f"{done} layers finished{waiting}"[: columns - 1]]
            rows = shown
        return [
            row_text(row, columns - 1, now, blocks=self._blocks, color=self._color) for row in rows
        ] + note

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24


def _columns(line: str) -> int:
    """Without the colour's two sequences, if it has them."""
    return len(line) - (len("\x1b[36m\x1b[0m") if "\x1b[36m" in line else 0)
