"""What has been heard of a build: its steps, their output and how far they are. Pure.

Numbers of steps count them in the order in which they began. Texts are as the daemon sent them;
`readable` is for a terminal.
"""

from __future__ import annotations

import re
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUNNING, DONE, CACHED, FAILED, CANCELLED = "running", "done", "cached", "failed", "cancelled"
SENDING = -1
"""The id of the step that is this client's own: what it sends."""
_ENDINGS = ("complete", "exists", "pushed", "mounted", "skipped", "available")
_KEPT_LINES = 100
_MOST_LINE = 8192
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
)
_PLACE = re.compile(r"\[(.*?) ?\d{1,6}/(\d{1,6})\]")
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\ufffd")
_DIRECTIONS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")
_UNWELCOME = {**_CONTROLS, **_DIRECTIONS}


def readable(line: str) -> str:
    """One line of a program's output: what is left of it after carriage returns and backspaces,
    without colours and whatever else would move the cursor."""
    text = _SEQUENCE.sub("", line.rstrip("\r"))
    text = text.rpartition("\r")[2].replace("\b", "")
    return text.expandtabs(8).translate(_UNWELCOME)


class Item:
    """A part of a step's work, in bytes."""

    __slots__ = ("action", "began", "current", "name", "total")

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.action = ""
        self.current = 0
        self.total = 0
        self.began = began

    @property
    def is_complete(self) -> bool:
        """By its bytes, or in words: a layer that is there already has none."""
        if self.total:
            return self.current >= self.total
        return self.action.lower().endswith(_ENDINGS)


class Step:
    """`name` is on one line: `[build 2/5] RUN make`. `began` is by the client's clock, `seconds`
    by the daemon's once the step has ended."""

    def __init__(self, number: int, vertex: dict[str, Any], began: float, time_ns: int) -> None:
        self.number = number
        self.id = int(vertex.get("id", 0))
        self.name = " ".join(str(vertex.get("name") or "").split())
        self.began = began
        self.state = RUNNING
        self.seconds = 0.0
        self.error = ""
        self.reason = ""
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.items: dict[str, Item] = {}
        self.rest = ""
        self._time_ns = time_ns

    @property
    def has_ended(self) -> bool:
        return self.state != RUNNING

    def elapsed(self, now: float) -> float:
        return max(now - self.began, 0.0) if self.state == RUNNING else self.seconds

    def add_text(self, text: str) -> list[str]:
        """Lines that are whole now. One without an end is cut."""
        *whole, self.rest = (self.rest + text).split("\n")
        if len(self.rest) > _MOST_LINE:
            whole, self.rest = [*whole, self.rest], ""
        self.lines.extend(whole)
        return whole

    def end_text(self) -> list[str]:
        """The last line, when nothing ended it."""
        whole, self.rest = [self.rest] if self.rest else [], ""
        self.lines.extend(whole)
        return whole

    def finish(self, event: dict[str, Any], now: float) -> None:
        time_ns = int(event.get("time") or 0)
        measured = (time_ns - self._time_ns) / 1e9 if time_ns and self._time_ns else -1.0
        self.seconds = measured if measured >= 0 else now - self.began
        self.error = str(event.get("error") or "")
        # That it hit or missed is shown beside it.
        reason = str(event.get("reason") or "")
        self.reason = reason.removeprefix("hit: ").removeprefix("miss: ")
        if self.error == CANCELLED:
            self.state = CANCELLED
        else:
            self.state = FAILED if self.error else CACHED if event.get("cached") else DONE


class Board:
    """Fed with events, in order."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.steps: dict[int, Step] = {}
        self.warnings: list[dict[str, Any]] = []

    def feed(self, event: dict[str, Any], now: float) -> tuple[Step | None, list[str]]:
        """The step that it is about, and the lines of output that it completes."""
        if "started" in event:
            return self._start(event["started"], now), []
        if "warning" in event:
            # Every platform's build sees the same Dockerfile.
            if event["warning"] not in self.warnings:
                self.warnings.append(event["warning"])
            return None, []
        kind = next((key for key in ("log", "status", "finished") if key in event), "")
        told = event.get(kind) or {}
        step = self.steps.get(int(told.get("id", 0)))
        if step is None:
            return None, []
        if kind == "log":
            return step, step.add_text(str(told.get("text") or ""))
        if kind == "status":
            self._status(step, told, now)
            return step, []
        lines = step.end_text()
        step.finish(told, now)
        return step, lines

    def _start(self, told: dict[str, Any], now: float) -> Step:
        vertex = told.get("vertex") or {}
        step = Step(len(self.steps) + 1, vertex, now, int(told.get("time") or 0))
        # A step that begins again, as after a cache that could not be used, is another one.
        known = self.steps.get(step.id)
        if known is not None:
            step.number = known.number
        self.steps[step.id] = step
        return step

    def _status(self, step: Step, told: dict[str, Any], now: float) -> None:
        name = str(told.get("item") or "")
        item = step.items.get(name)
        if item is None:
            item = step.items[name] = Item(name, now)
        item.action = str(told.get("action") or "")
        item.current = int(told.get("current") or 0)
        item.total = int(told.get("total") or 0)

    def stop(self, now: float) -> list[tuple[Step, list[str]]]:
        """Nothing more comes: what has not ended was cancelled. With their unfinished lines."""
        cut = []
        for step in self.steps.values():
            if not step.has_ended:
                cut.append((step, step.end_text()))
                step.seconds = step.elapsed(now)
                step.state = CANCELLED
        return cut

    @property
    def finished(self) -> int:
        return sum(step.state in (DONE, CACHED) for step in self.steps.values())

    @property
    def total(self) -> int:
        """Those that began, and what is left of the stages that did: `[build 2/5]`."""
        begun: dict[str, int] = {}
        planned: dict[str, int] = {}
        for step in self.steps.values():
            place = _PLACE.match(step.name)
            stage = place[1] if place else ""
            begun[stage] = begun.get(stage, 0) + 1
            planned[stage] = int(place[2]) if place else 0
        return sum(max(count, planned[stage]) for stage, count in begun.items())
