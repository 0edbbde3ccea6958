"""The stream of the classic builder: text in the Dockerfile's order, however steps were done.

What `docker build`, docker-py and Compose v1 show and look through. Of several steps at once the
first one speaks as it goes; what the others say waits for their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from estiba.build.progress import (
    CANCELLED,
    STDERR,
    Event,
    Finished,
    Log,
    Noticed,
    Started,
    Status,
    Texts,
)
from estiba.images.record import ImageRecord

Json = dict[str, Any]


_MAX_WAITING_CHARS = 256 << 10
"""Of one step's output, for as long as another one speaks; the newest is kept."""

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
"""Around what a step writes to its standard error: clients look for it."""

_LINE_CHARS = 100
"""What a line costs besides its text."""


@dataclass(slots=True)
class _Step:
    """What a step has said and nobody has heard yet."""

    texts: deque[str] = field(default_factory=deque)
    is_done: bool = False
    has_failed: bool = False
    _chars: int = 0
    _left_out: int = 0

    def say(self, text: str) -> None:
        if not text:
            return
        self.texts.append(text)
        self._chars += len(text) + _LINE_CHARS
        while self._chars > _MAX_WAITING_CHARS and len(self.texts) > 2:
            # The first one is the step's own line.
            gone = self.texts[1]
            del self.texts[1]
            self._chars -= len(gone) + _LINE_CHARS
            self._left_out += len(gone)

    def end(self, event: Finished) -> None:
        self.is_done = True
        self.has_failed = bool(event.error) and event.error != CANCELLED

    def take(self) -> Iterator[Json]:
        for number, text in enumerate(self.texts):
            if number == 1 and self._left_out:
                yield _text(f"[{self._left_out} characters left out]\n")
                self._left_out = 0
            yield _text(text)
        self.texts.clear()
        self._chars = 0


@dataclass(slots=True)
class ClassicStream:
    """`feed` it the events; each gives the lines that may go out now, a quiet stream none."""

    is_quiet: bool = False
    _turn: int = 1
    _has_failed: bool = False
    _waiting: dict[int, _Step] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)
    _texts: Texts = field(default_factory=Texts)

    def feed(self, event: Event) -> Iterator[Json]:
        if isinstance(event, Noticed):
            self._notice(event)
            return
        vertex = event.vertex
        if vertex.step == 0:
            if not self.is_quiet:
                yield from _aside(event)
            return
        step = self._waiting.setdefault(vertex.step, _Step())
        self._tell(step, event)
        self._has_failed |= isinstance(event, Finished) and bool(event.error)
        if not (self.is_quiet or self._has_failed):
            yield from self._released()

    def _notice(self, event: Noticed) -> None:
        rule = f"{event.rule}: " if event.rule else ""
        place = f" (line {event.line})" if event.line else ""
        text = f"[Warning] {rule}{event.message}{place}\n"
        if text not in self._warnings:  # another platform's build says the same
            self._warnings.append(text)

    def _tell(self, step: _Step, event: Event) -> None:
        match event:
            case Started(vertex, _):
                step.say(f"Step {vertex.step}/{vertex.steps} : {vertex.text}\n")
            case Log(_, stream, _):
                text = self._texts.of(event)
                step.say(f"{_RED}{text}{_PLAIN}" if stream == STDERR and text else text)
            case Finished(vertex, _, cached, error, _, result):
                step.say(self._texts.end(vertex))
                step.end(event)
                if not error:
                    if cached and not _is_plain(event):
                        step.say(" ---> Using cache\n")
                    step.say(f" ---> {result.rpartition(':')[2][:12]}\n")

    def _released(self) -> Iterator[Json]:
        while (step := self._waiting.get(self._turn)) is not None:
            yield from step.take()
            if not step.is_done:
                return
            del self._waiting[self._turn]
            self._turn += 1

    def failed(self, state: str) -> Iterator[Json]:
        """What nobody has heard when the build failed; the step that failed speaks last.

        `state` is the id of an image of what it left, if any.
        """
        waiting = sorted(self._waiting.items(), key=lambda item: (item[1].has_failed, item[0]))
        for _, step in waiting:
            yield from step.take()
        self._waiting.clear()
        yield from map(_text, self._warnings)
        if state:
            short = _short(state)
            yield _text(
                f"The state at which it failed is {short}: look around in it with "
                f"docker run -it --rm {short}\n"
            )

    def closing(self, image: ImageRecord) -> Iterator[Json]:
        """The image's id, for programs and for people."""
        if self.is_quiet:
            yield _text(f"{image.id}\n")
            return
        yield {"aux": {"ID": image.id}}
        yield from map(_text, self._warnings)
        yield _text(f"Successfully built {_short(image.id)}\n")


def _is_plain(event: Finished) -> bool:
    """A FROM is neither found nor done."""
    return event.vertex.text.upper().startswith("FROM")


def _aside(event: Event) -> Iterator[Json]:
    """The progress of pulls, as docker pull shows it."""
    if isinstance(event, Status):
        line: Json = {"status": event.action}
        if event.item:
            line["id"] = event.item
        if event.total:
            line["progressDetail"] = {"current": event.current, "total": event.total}
        yield line


def tagged(name: str) -> Json:
    return _text(f"Successfully tagged {name}\n")


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _text(text: str) -> Json:
    return {"stream": text}
