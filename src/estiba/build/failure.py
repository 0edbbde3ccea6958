"""A step that failed, with all that helps to find out why."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.build.dockerfile.instructions import Span
from estiba.build.progress import CANCELLED, Finished, Started, Tell, Vertex
from estiba.model.errors import EstibaError, InvalidArgument

_LEAST_FREE = 0.01


@dataclass(frozen=True, slots=True)
class Failure:
    """`state` is the id of an image of what the step left, empty when none was kept; `output` the
    last lines that the program wrote."""

    vertex: Vertex
    span: Span
    exit_code: int | None = None
    output: str = ""
    state: str = ""


class StepFailed(InvalidArgument):
    """Raised for the step that ended a build; the error behind it is its cause."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure


def exit_message(argv: tuple[str, ...], code: int, *, oom_killed: bool, memory: str = "") -> str:
    """In the classic builder's words, with the reason where it is known."""
    text = f"The command '{' '.join(argv)}' returned a non-zero code: {code}"
    if oom_killed:
        return f"{text}: the kernel ended it for want of memory: raise --memory{memory}"
    if code > 128:
        return f"{text} (ended by signal {code - 128})"
    return text


def reason(error: BaseException) -> str:
    if isinstance(error, EstibaError):
        return error.message
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}: make room, `builder prune` and `image prune` do"
    return str(error) or type(error).__name__


@contextmanager
def under_way(tell: Tell, vertex: Vertex) -> Iterator[None]:
    """Tells that the work begins, and that it has ended, however it does."""
    tell(Started(vertex, time.time_ns()))
    try:
        yield
    except BaseException as error:
        is_cancelled = isinstance(error, asyncio.CancelledError)
        tell(Finished(vertex, time.time_ns(), error=CANCELLED if is_cancelled else reason(error)))
        raise
    tell(Finished(vertex, time.time_ns()))


def is_nearly_full(place: Path) -> bool:
    """Whether the file system there has little room for bytes or for files. Blocks."""
    found = os.statvfs(place)
    return (
        found.f_bavail < found.f_blocks * _LEAST_FREE
        or found.f_favail < found.f_files * _LEAST_FREE
    )
