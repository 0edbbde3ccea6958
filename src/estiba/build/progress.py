"""What a build tells while it works: vertices that begin, speak and end. Pure."""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STDOUT, STDERR = 1, 2

CANCELLED = "cancelled"
"""The error of a piece of work that another's failure, or its client, ended."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """One piece of work. `line` and `end_line` are its instruction's, 0 for what has none;
    `step` and `steps` count the instructions of the Dockerfile that are built."""

    id: int
    name: str
    stage: str = ""
    text: str = ""
    line: int = 0
    end_line: int = 0
    step: int = 0
    steps: int = 0
    is_silent: bool = False
    """Only the config changes: of interest to the classic stream alone."""


@dataclass(frozen=True, slots=True)
class Started:
    vertex: Vertex
    time_ns: int


@dataclass(frozen=True, slots=True)
class Log:
    """Output of a RUN, as it comes; `stream` is STDOUT or STDERR."""

    vertex: Vertex
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Status:
    """How far a part of the work is, in bytes; `total` is 0 when nobody knows."""

    vertex: Vertex
    item: str
    action: str
    current: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """`reason` says why the cache hit or missed; `error` is empty unless it failed."""

    vertex: Vertex
    time_ns: int
    cached: bool = False
    error: str = ""
    reason: str = ""
    result: str = ""
    """Id of the cache record, for show."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the linter found, ready for show."""

    rule: str
    message: str
    detail: str
    line: int
    column: int
    end_line: int


Event = Started | Log | Status | Finished | Noticed
Tell = Callable[[Event], None]
"""May be called from any thread, and never blocks."""


class Texts:
    """What programs print, as text: a character may come in two pieces."""

    def __init__(self) -> None:
        self._decoders: dict[tuple[int, int], IncrementalDecoder] = {}

    def of(self, log: Log) -> str:
        key = (log.vertex.id, log.stream)
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = getincrementaldecoder("utf-8")(errors="replace")
        return decoder.decode(log.data)

    def end(self, vertex: Vertex) -> str:
        """The halves of characters that are left when it has finished."""
        decoders = [self._decoders.pop((vertex.id, stream), None) for stream in (STDOUT, STDERR)]
        return "".join(one.decode(b"", final=True) for one in decoders if one is not None)


def as_json(event: Event, texts: Texts) -> dict[str, Any]:
    """The event as a line of the stream that `estiba build` reads (docs/api.md).

    `texts` is the stream's own.
    """
    match event:
        case Started(vertex, time_ns):
            view = {
                "id": vertex.id, "name": vertex.name, "stage": vertex.stage, "line": vertex.line,
                "step": vertex.step, "steps": vertex.steps, "text": vertex.text,
            }  # fmt: skip
            return {"started": {"vertex": view, "time": time_ns}}
        case Log(vertex, stream, _):
            return {"log": {"id": vertex.id, "stream": stream, "text": texts.of(event)}}
        case Status(vertex, item, action, current, total):
            return {
                "status": {
                    "id": vertex.id, "item": item, "action": action, "current": current,
                    "total": total,
                }
            }  # fmt: skip
        case Finished(vertex, time_ns, cached, error, reason, result):
            return {
                "finished": {
                    "id": vertex.id, "time": time_ns, "cached": cached, "error": error,
                    "reason": reason, "result": result,
                }
            }  # fmt: skip
        case Noticed(rule, message, detail, line, column, end_line):
            return {
                "warning": {
                    "rule": rule, "message": message, "detail": detail, "line": line,
                    "column": column, "end_line": end_line,
                }
            }  # fmt: skip
