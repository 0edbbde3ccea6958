"""Logs in conmon's form for tests, and a plain model of what reading them must give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from estiba.containers.logs import Chunk, LogQuery

BASE_NS = 1_790_000_000 * 10**9
_NAMES = {1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of the file; a partial one is a piece of a longer line."""

    time_ns: int
    stream: int
    partial: bool
    text: bytes

    @property
    def stamp(self) -> str:
        seconds, nanoseconds = divmod(self.time_ns, 10**9)
        whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{whole}.{nanoseconds:09d}"

    def encode(self) -> bytes:
        mark = "P" if self.partial else "F"
        header = f"{self.stamp}+00:00 {_NAMES[self.stream]} {mark} "
        return header.encode() + self.text + b"\n"


def line(number: int, text: str, *, stream: int = 1, partial: bool = False) -> LogRecord:
    """A record `number` seconds after the base time."""
    return LogRecord(BASE_NS + number * 10**9, stream, partial, text.encode())


def write_records(path: Path, records: Iterable[LogRecord]) -> None:
    """Appends as the monitor does."""
    with path.open("ab") as file:
        file.write(b"".join(record.encode() for record in records))


def write_rotated(path: Path, files: Sequence[Sequence[LogRecord]]) -> None:
    """Writes `files`, oldest first, as a rotated log."""
    for age, records in enumerate(reversed(files)):
        name = path.with_name(f"{path.name}.{age}") if age else path
        name.write_bytes(b"".join(record.encode() for record in records))


def expected(records: Sequence[LogRecord], query: LogQuery) -> list[Chunk]:
    """What reading must give, neighbouring chunks of a stream joined."""
    chosen = list(records) if query.tail is None else _tail(records, query.tail)
    in_line = {1: False, 2: False}
    chunks: list[Chunk] = []
    for record in chosen:
        if query.since_ns and record.time_ns < query.since_ns:
            continue
        if query.until_ns and record.time_ns > query.until_ns:
            continue
        stamp = b"" if in_line[record.stream] else f"{record.stamp}Z ".encode()
        in_line[record.stream] = record.partial
        if not (query.stdout if record.stream == 1 else query.stderr):
            continue
        text = record.text + (b"" if record.partial else b"\n")
        chunks.append((record.stream, (stamp if query.timestamps else b"") + text))
    return joined(chunks)


def _tail(records: Sequence[LogRecord], lines: int) -> list[LogRecord]:
    starts = _line_starts(records)
    if lines == 0:
        return []
    return list(records[starts[-lines] if lines <= len(starts) else 0 :])


def _line_starts(records: Sequence[LogRecord]) -> list[int]:
    in_line = {1: False, 2: False}
    starts = []
    for index, record in enumerate(records):
        if not in_line[record.stream]:
            starts.append(index)
        in_line[record.stream] = record.partial
    return starts


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """`chunks` with neighbours of one stream made one, and empty ones left out."""
    return [
        (stream, data)
        for stream, run in groupby(chunks, key=lambda chunk: chunk[0])
        if (data := b"".join(text for _, text in run))
    ]
