"""How a build is shown while it goes on: views of its events, all on STDERR.

`chosen` picks one by `--progress`. A view is a context manager that gets events and says nothing
of the result; the plain, the JSON and the silent one live here, the one of a terminal in
`buildlive`.
"""

from __future__ import annotations

import os
import threading
import time

from estiba.cli.buildboard import CACHED, CANCELLED, FAILED, SENDING, Board, Item, Step, readable
from estiba.cli.output import human_size
from estiba.cli.parse import FlagError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

MODES = ("auto", "plain", "tty", "quiet", "json", "rawjson")
_STATUS_PAUSE_S = 3.0
_PATIENCE_S = 1.0
_LONGEST_S = 5.0
_TICK_S = 0.5


def chosen(mode: str, out: TextIO, *, quiet: bool, explained: bool) -> View:
    """Raises FlagError for a mode that there is none of, UsageError without a terminal."""
    if mode not in MODES:
        raise FlagError(
            f'invalid argument "{mode}" for "--progress" flag: one of {", ".join(MODES)}'
        )
    if quiet or mode == "quiet":
        return View(out)
    if mode in ("json", "rawjson"):
        return JsonView(out)
    is_terminal = out.isatty() and os.environ.get("TERM") != "dumb"
    if mode == "tty" and not is_terminal:
        raise UsageError("--progress=tty needs a terminal on STDERR: auto or plain does without")
    if mode != "plain" and is_terminal:
        from estiba.cli.buildlive import LiveView

        return LiveView(out)
    return PlainView(out, explained=explained)


class View:
    """Shows nothing, and keeps what is needed to explain a failure."""

    shows = False
    """Whether people are told what happens."""
    shows_lines = False
    """Whether every line of output has been shown when the build has ended."""
    tells_failures = False
    """Whether what there is to say of a failure stands in its own output."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.board = Board(time.monotonic())

    def __enter__(self) -> View:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.board.stop(time.monotonic())

    def event(self, event: dict[str, Any]) -> None:
        self.board.feed(event, time.monotonic())

    def last(self, event: dict[str, Any]) -> None:
        """The line that ends the answer."""

    def moved(self, step: int, name: str, size_bytes: int) -> None:
        """How much this client has sent or fetched; `step` is SENDING or below."""

    def moved_all(self, step: int) -> None:
        """That has ended."""


class JsonView(View):
    """The daemon's lines as they come, and nothing else: a program reads them."""

    tells_failures = True

    def event(self, event: dict[str, Any]) -> None:
        super().event(event)
        self.last(event)

    def last(self, event: dict[str, Any]) -> None:
        from estiba.client.jsonlite import dumps

        self.out.write(dumps(event) + "\n")
        self.out.flush()


class Narrated(View):
    """What the client does itself is a step as well: what it sends and fetches."""

    shows = True

    def moved(self, step: int, name: str, size_bytes: int) -> None:
        if step not in self.board.steps:
            self.event({"started": {"vertex": {"id": step, "name": name}}})
        action = "sent" if step == SENDING else "fetched"
        status = {"id": step, "item": "", "action": action, "current": size_bytes}
        self.event({"status": status})

    def moved_all(self, step: int) -> None:
        if step in self.board.steps:
            self.event({"finished": {"id": step}})


class PlainView(Narrated):
    """A line a piece of news, `#N` before it: one step's at a time, as long as it has some.

    Another step gets its turn when the first has ended, has been silent for a while, or has had
    its turn for long.
    """

    shows_lines = True

    def __init__(self, out: TextIO, *, explained: bool) -> None:
        super().__init__(out)
        self._explained = explained
        self._waiting: dict[int, list[str]] = {}
        self._current: Step | None = None
        self._spoke_at = self._turned_at = 0.0
        self._items: dict[tuple[int, str], tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="plain", daemon=True)

    def __enter__(self) -> PlainView:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        with self._lock:
            for step, lines in self.board.stop(time.monotonic()):
                said = [self._line(step, text) for text in lines]
                self._waiting.setdefault(step.number, []).extend([*said, *self._end(step)])
            while self._waiting:
                self._turn()
            self.out.flush()

    def event(self, event: dict[str, Any]) -> None:
        with self._lock:
            now = time.monotonic()
            step, lines = self.board.feed(event, now)
            if step is None:
                return
            news = [self._line(step, text, now) for text in lines]
            if "status" in event:
                news += self._status(step, str(event["status"].get("item") or ""), now)
            elif "finished" in event:
                news += self._end(step)
            self._waiting.setdefault(step.number, []).extend(news)
            self._speak(now)

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            with self._lock:
                self._speak(time.monotonic())

    def _speak(self, now: float) -> None:
        while self._waiting:
            current = self._current
            if current is not None and current.number in self._waiting:
                self._write(self._waiting.pop(current.number))
                self._spoke_at = now
                if current.has_ended:
                    self._current = None
                continue
            is_patient = now - self._spoke_at < _PATIENCE_S and now - self._turned_at < _LONGEST_S
            if current is not None and is_patient:
                return
            self._turn()
            self._spoke_at = self._turned_at = now

    def _turn(self) -> None:
        """The next step that has something to say: one that has ended rather than another."""
        steps = {step.number: step for step in self.board.steps.values()}
        waiting = sorted(self._waiting, key=lambda n: (not steps[n].has_ended, n))
        step = steps[waiting[0]]
        if self._current is not None and self._current is not step:
            self._write([f"#{self._current.number} ..."])
        if self._current is not step:
            self._write(["", f"#{step.number} {readable(step.name)}"])
        self._current = step
        self._write(self._waiting.pop(step.number))
        if step.has_ended:
            self._current = None

    def _write(self, lines: list[str]) -> None:
        self.out.write("".join(f"{line}\n" for line in lines))
        self.out.flush()

    def _line(self, step: Step, text: str, now: float | None = None) -> str:
        elapsed = step.elapsed(time.monotonic() if now is None else now)
        shown = readable(text) if self.out.isatty() else text.rstrip("\r")
        return f"#{step.number} {elapsed:.3f} {shown}".rstrip(" ")

    def _status(self, step: Step, name: str, now: float) -> list[str]:
        """Now and then: how far a long transfer is, and that it has ended."""
        item = step.items[name]
        known = self._items.get((step.number, name))
        action, told_at = known or ("", item.began)
        state = f"{item.action} done" if item.is_complete else item.action
        is_told = known is not None if not item.total else state == action
        if is_told if item.is_complete else now - told_at < _STATUS_PAUSE_S:
            return []
        self._items[step.number, name] = state, now
        done = " done" if item.is_complete and item.total else ""
        return [f"#{step.number} {item_text(item)}{done}"]

    def _end(self, step: Step) -> list[str]:
        number = f"#{step.number}"
        if step.state in (CACHED, CANCELLED):
            lines = [f"{number} {'CACHED' if step.state == CACHED else 'CANCELED'}"]
        elif step.state == FAILED:
            lines = [f"{number} ERROR: {readable(step.error)}"]
        else:
            lines = [f"{number} {item_text(item)} done" for item in step.items.values()
                     if step.id < 0]  # fmt: skip
            lines.append(f"{number} DONE {step.seconds:.1f}s")
        if self._explained and step.reason:
            lines.append(f"{number} cache {verdict(step)}: {readable(step.reason)}")
        return lines


def verdict(step: Step) -> str:
    return "hit" if step.state == CACHED else "miss"


def item_text(item: Item) -> str:
    """`sha256:1234… downloading 12.3MB / 50MB`."""
    words = [readable(item.name), readable(item.action)]
    if item.total:
        words.append(f"{human_size(item.current, 3)} / {human_size(item.total, 3)}")
    elif item.current:
        words.append(human_size(item.current, 3))
    return " ".join(word for word in words if word)
