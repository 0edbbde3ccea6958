"""The stream of the classic builder: text in the Dockerfile's order, however steps were done.

What `docker build`, docker-py and Compose v1 show and look through. Of several steps at once the
first one speaks as it goes; what the others say waits for their turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from estiba.build.progress import Event, Finished, Log, Noticed, Started, Status, Vertex
from estiba.images.record import ImageRecord

Json = dict[str, Any]


@dataclass(slots=True)
class _Step:
    vertex: Vertex
    lines: list[Json] = field(default_factory=list)
    is_done: bool = False


@dataclass(slots=True)
class ClassicStream:
    """`feed` it the events; each gives the lines that may go out now."""

    steps: Mapping[int, Vertex]
    """All of the build, by their place in it."""

    is_quiet: bool = False
    _turn: int = 1
    _waiting: dict[int, _Step] = field(default_factory=dict)

    def feed(self, event: Event) -> Iterator[Json]:
        if isinstance(event, Noticed) or self.is_quiet:
            return
        vertex = event.vertex
        if vertex.step == 0:
            yield from _aside(event)
            return
        step = self._waiting.setdefault(vertex.step, _Step(vertex))
        step.lines += self._lines(event)
        step.is_done |= isinstance(event, Finished)
        yield from self._released()

    def _released(self) -> Iterator[Json]:
        while (step := self._waiting.get(self._turn)) is not None:
            yield from step.lines
            step.lines.clear()
            if not step.is_done:
                return
            del self._waiting[self._turn]
            self._turn += 1

    def rest(self) -> Iterator[Json]:
        """What later steps said before the build failed."""
        for number in sorted(self._waiting):
            yield from self._waiting[number].lines
        self._waiting.clear()

    def _lines(self, event: Event) -> list[Json]:
        match event:
            case Started(vertex, _):
                return [_text(f"Step {vertex.step}/{vertex.steps} : {vertex.text}\n")]
            case Log(_, _, data):
                return [_text(data.decode(errors="replace"))]
            case Finished(_, _, cached, error, _, result) if not error:
                short = result.removeprefix("base:")[:12]
                hit = [_text(" ---> Using cache\n")] if cached and not _is_plain(event) else []
                return [*hit, _text(f" ---> {short}\n")]
            case _:
                return []


def _is_plain(event: Finished) -> bool:
    """FROM and instructions that only change the config are neither found nor done."""
    return event.vertex.is_silent or event.vertex.text.upper().startswith("FROM")


def _aside(event: Event) -> Iterator[Json]:
    """The progress of pulls, as docker pull shows it."""
    if isinstance(event, Status):
        line: Json = {"status": event.action}
        if event.item:
            line["id"] = event.item
        if event.total:
            line["progressDetail"] = {"current": event.current, "total": event.total}
        yield line


def closing(image: ImageRecord, *, is_quiet: bool) -> Iterator[Json]:
    """The image's id, for programs and for people."""
    if is_quiet:
        yield _text(f"{image.id}\n")
        return
    yield {"aux": {"ID": image.id}}
    yield _text(f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n")


def tagged(name: str) -> Json:
    return _text(f"Successfully tagged {name}\n")


def _text(text: str) -> Json:
    return {"stream": text}
