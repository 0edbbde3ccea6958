"""Reading a container's log: files that the monitor writes, in conmon's k8s-file form.

    2026-11-24T10:01:04.123456789+00:00 stdout F message

The header has a fixed width of 45 bytes, because the monitor runs with TZ=UTC; `F` ends a
line and `P` is a piece of a longer one. Rotated files bear the suffixes .1 (newest), .2, …

Without options that look at single lines a block of the file is turned into output by a few
bulk operations, which is what makes a million lines quick. Never writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from estiba.kernel.blocking import run_blocking
from estiba.kernel.inotify import DirectoryWatch

STDOUT = 1
STDERR = 2

HEADER_BYTES = 45
STAMP_BYTES = 29
_BLOCK_BYTES = 1 << 18
_TAIL_BYTES = 1 << 16
STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}

Chunk = tuple[int, bytes]
"""A stream number and bytes of it: one or many whole lines."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to read; times in nanoseconds since the epoch, `tail` in lines (None is all).

    `prefix` stands before each line, after its time.
    """

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    prefix: bytes = b""


def stamp(time_ns: int) -> bytes:
    """The first 29 bytes of a log header at `time_ns`; they sort as the times do."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanoseconds:09d}".encode()


def log_files(path: Path) -> list[Path]:
    """The files of the log at `path` that exist, oldest first."""
    rotated = rotated_files(path)
    older = [rotated[number] for number in sorted(rotated, reverse=True)]
    return [*older, *([path] if path.exists() else [])]


def rotated_files(path: Path) -> dict[int, Path]:
    """Those behind the first, by their age. One may be missing in between: a rotation is under
    way, or was cut off.
    """
    there = {entry.name: entry for entry in path.parent.glob(f"{glob.escape(path.name)}.*")}
    found: dict[int, Path] = {}
    age, missing = 1, 0
    while missing < 2:
        entry = there.get(f"{path.name}.{age}")
        if entry is None:
            missing += 1
        else:
            found[age] = entry
        age += 1
    return found


class LogFormatter:
    """Turns blocks of whole records into output, as the query asks.

    Holds one state: whether the last piece of each stream was partial, so that times and prefix
    stand at the start of lines only.
    """

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._since = stamp(query.since_ns) if query.since_ns else b""
        self._until = stamp(query.until_ns) if query.until_ns else b""
        self._in_line = {STDOUT: False, STDERR: False}
        self.past_until = False

    def format(self, block: bytes) -> list[Chunk]:
        """Output of `block`, which ends at a record's end."""
        lines = block.split(b"\n")
        lines.pop()
        if self._since or self._until:
            lines = self._within(lines)
        if self._query.timestamps or self._query.prefix:
            return self._headed(lines)
        if b" stderr " not in block and b" stdout P " not in block:
            # Every record bears one of four marks, so all of these are whole lines of stdout.
            return self._wanted([(STDOUT, _text(lines, whole=True))] if lines else [])
        return self._wanted(
            [
                (STREAMS.get(tag[:6], 0), _text(list(run), whole=tag[7:] == b"F"))
                for tag, run in groupby(lines, key=lambda line: line[36:44])
            ]
        )

    def _wanted(self, chunks: list[Chunk]) -> list[Chunk]:
        streams = (STDOUT if self._query.stdout else -1, STDERR if self._query.stderr else -1)
        return [chunk for chunk in chunks if chunk[0] in streams]

    def _within(self, lines: list[bytes]) -> list[bytes]:
        if self._since:
            lines = [line for line in lines if line[:STAMP_BYTES] >= self._since]
        if self._until:
            kept = [line for line in lines if line[:STAMP_BYTES] <= self._until]
            self.past_until = len(kept) < len(lines)
            lines = kept
        return lines

    def _headed(self, lines: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for tag, run in groupby(lines, key=lambda line: line[36:42]):
            stream = STREAMS.get(tag, 0)
            if stream == 0:
                continue
            parts: list[bytes] = []
            for line in run:
                if not self._in_line[stream]:
                    if self._query.timestamps:
                        parts += (line[:STAMP_BYTES], b"Z ")
                    parts.append(self._query.prefix)
                parts.append(line[HEADER_BYTES:])
                self._in_line[stream] = line[43:44] == b"P"
                if not self._in_line[stream]:
                    parts.append(b"\n")
            chunks.append((stream, b"".join(parts)))
        return self._wanted(chunks)


class RecordFormatter(LogFormatter):
    """Gives the records as they stand in the log, for those who look at each."""

    def format(self, block: bytes) -> list[Chunk]:
        return [(STDOUT, block)]


def _text(lines: list[bytes], *, whole: bool) -> bytes:
    if whole:
        return b"\n".join([line[HEADER_BYTES:] for line in lines]) + b"\n"
    return b"".join([line[HEADER_BYTES:] for line in lines])


def blocks(file: BinaryIO, carry: bytearray) -> Iterator[bytes]:
    """Blocks of whole records from the file's position to its present end.

    What follows the last record's end stays in `carry` for the next call.
    """
    while data := file.read(_BLOCK_BYTES):
        carry += data
        end = carry.rfind(b"\n") + 1
        if end:
            yield bytes(carry[:end])
            del carry[:end]


def seek_tail(file: BinaryIO, lines: int, in_line: Iterable[bytes] = ()) -> int:
    """Moves to the start of the last `lines` lines; returns how many are missing.

    `in_line` names the streams that the files before left in the middle of a line. Each block
    yields the lines that start after its first whole record, which tells whether the next one
    goes on with a line; that record itself is left to the block before.
    """
    position, _ = _last_records(file)
    found, kept = 0, b""
    while position > 0 and lines:
        step = min(_TAIL_BYTES, position)
        position -= step
        file.seek(position)
        data = file.read(step) + kept
        state, first = set(in_line), 0
        if position:
            record = data.find(b"\n") + 1
            first = data.find(b"\n", record) + 1 if record else 0
            state = set()
            _follow_line(state, _mark(data, record))
        starts = _line_starts(data, first, state) if first or not position else []
        if found + len(starts) >= lines:
            file.seek(position + starts[len(starts) - (lines - found)])
            return 0
        found += len(starts)
        kept = data[:first] if first else data
    file.seek(position)
    return lines - found


def _line_starts(data: bytes, position: int, in_line: set[bytes]) -> list[int]:
    """Offsets from `position` on at which a line (not a later piece of one) starts."""
    starts = []
    while (end := data.find(b"\n", position)) >= 0:
        mark = _mark(data, position)
        if mark[:6] not in in_line:
            starts.append(position)
        _follow_line(in_line, mark)
        position = end + 1
    return starts


def _follow_line(in_line: set[bytes], mark: bytes) -> None:
    """Notes in `in_line` whether the stream of a record with that mark is within a line."""
    if mark.endswith(b"P"):
        in_line.add(mark[:6])
    else:
        in_line.discard(mark[:6])


def _mark(data: bytes, record: int) -> bytes:
    """`stdout F` and the like."""
    return data[record + 36 : record + 44]


def _last_records(file: BinaryIO) -> tuple[int, list[bytes]]:
    """Where the last whole record ends, and the marks of the last ones, oldest first.

    The monitor may be writing the next.
    """
    size = file.seek(0, os.SEEK_END)
    window = _TAIL_BYTES
    while True:
        start = file.seek(max(0, size - window))
        data = file.read(size - start)
        end = data.rfind(b"\n") + 1
        first = data.find(b"\n") + 1 if start else 0
        if first < end or not start:
            lines = data[first:end].split(b"\n")
            return start + end, [_mark(line, 0) for line in lines[:-1]]
        window *= 2


async def read_log(
    path: Path, query: LogQuery, ended: asyncio.Event, formatter: LogFormatter | None = None
) -> AsyncIterator[Chunk]:
    """Yields the log as the query asks; with `follow` until `ended` and no byte is left.

    A log that does not exist is empty.
    """
    formatter = formatter or LogFormatter(query)
    with ExitStack() as stack:
        watch = stack.enter_context(_watch(path.parent, ended)) if query.follow else None
        files = [stack.enter_context(file) for file in await run_blocking(_open_all, path)]
        if query.tail is not None:
            files = await run_blocking(_keep_tail, files, query.tail)
        carry = bytearray()
        for file in files:
            async for chunk in _drain(file, carry, formatter):
                yield chunk
            if formatter.past_until:
                return
        current = files[-1] if files else None
        while watch is not None and not formatter.past_until:
            last = ended.is_set()
            newer: list[BinaryIO] = []
            if current is None or _replaced(current, path):
                newer = await run_blocking(_open_newer, path, current)
            progressed = False
            for file in newer:
                stack.enter_context(file)
            for file in [current, *newer] if current is not None else newer:
                async for chunk in _drain(file, carry, formatter):
                    progressed = True
                    yield chunk
                if newer and file is not newer[-1]:
                    file.close()
            current = newer[-1] if newer else current
            if progressed:
                continue
            if last:
                return
            await watch.wait()


@contextmanager
def _watch(directory: Path, ended: asyncio.Event) -> Iterator[DirectoryWatch]:
    """A watch that also wakes when the writer has ended."""

    async def wake_at_end(watch: DirectoryWatch) -> None:
        await ended.wait()
        watch.wake()

    with DirectoryWatch(directory) as watch:
        waker = asyncio.create_task(wake_at_end(watch), name=f"log-end {directory.name}")
        try:
            yield watch
        finally:
            waker.cancel()


async def _drain(file: BinaryIO, carry: bytearray, formatter: LogFormatter) -> AsyncIterator[Chunk]:
    """All whole records between the position and the end, one block a turn."""
    reader = blocks(file, carry)
    while (block := await run_blocking(next, reader, None)) is not None:
        for chunk in await run_blocking(formatter.format, block):
            yield chunk


def _open_one(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _open_all(path: Path) -> list[BinaryIO]:
    """The files of the log, oldest first; done again when they were renamed meanwhile."""
    while True:
        names = log_files(path)
        files = [file for name in names if (file := _open_one(name)) is not None]
        with contextlib.suppress(FileNotFoundError):
            found = [name.stat().st_ino for name in names]
            if names == log_files(path) and found == [_inode(file) for file in files]:
                return files
        for file in files:
            file.close()


def _open_newer(path: Path, current: BinaryIO | None) -> list[BinaryIO]:
    """The files that rotation has put after `current`: several, for a slow reader."""
    files = _open_all(path)
    inodes = [_inode(file) for file in files]
    past = inodes.index(_inode(current)) + 1 if current and _inode(current) in inodes else 0
    for file in files[:past]:
        file.close()
    return files[past:]


def _keep_tail(files: list[BinaryIO], lines: int) -> list[BinaryIO]:
    """Moves in the files so that together they hold the last `lines` lines."""
    states: list[set[bytes]] = [set()]
    for file in files:
        states.append(set(states[-1]))
        for mark in _last_records(file)[1]:
            _follow_line(states[-1], mark)
    missing = lines
    for index in range(len(files) - 1, -1, -1):
        missing = seek_tail(files[index], missing, states[index])
        if missing == 0:
            return files[index:]
    return files


def _replaced(file: BinaryIO, path: Path) -> bool:
    """Whether rotation has put another file at `path`."""
    try:
        return _inode(file) != path.stat().st_ino
    except FileNotFoundError:
        return False


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
