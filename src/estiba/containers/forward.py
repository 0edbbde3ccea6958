"""Sends a container's lines on, for log drivers whose receiver is elsewhere (see `sinks`).

It follows the container's own log file, so `logs` works with every driver, an engine that
was down sends the rest when it is back, and a slow receiver never holds the container. A line
comes twice if the engine was killed within a second after it, and otherwise once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from estiba.containers.logs import (
    HEADER_BYTES,
    STAMP_BYTES,
    STREAMS,
    LogQuery,
    RecordFormatter,
    read_log,
)
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.sinks import Message, Part, Sink, open_sink
from estiba.kernel.blocking import run_apart, run_blocking
from estiba.kernel.files import write_atomic

_log = logging.getLogger(__name__)

PART_BYTES = 16 * 1024
"""Longer lines are sent in parts of this length, as Docker does."""
_RETRY_S = 2.0
_SAVE_EVERY_S = 1.0
_TURN_S = 0.1
"""How long one call of the shared thread pool may send."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log has been sent: all records before `stamp`, `records` with that stamp, and
    `messages` made of what follows.
    """

    stamp: bytes = b""
    records: int = 0
    messages: int = 0


@dataclass(slots=True)
class _Line:
    """What has come of a line that has not ended."""

    stamp: bytes
    text: bytes = b""
    part_id: str = ""
    ordinal: int = 0

    def part(self, *, last: bool) -> Part:
        self.part_id = self.part_id or secrets.token_hex(32)
        self.ordinal += 1
        return Part(self.part_id, self.ordinal, last)


class Assembler:
    """From records of the log to messages, each with the place after it; begins at a place.

    The messages after a place are always the same, however the records are read.
    """

    def __init__(self, start: Place) -> None:
        self._start = start
        self._to_skip = start.records
        self._to_drop = start.messages
        self._at = replace(start, messages=0)
        self._base = self._at
        self._made = 0
        self._lines: dict[int, _Line] = {}

    def feed(self, block: bytes) -> list[tuple[Message, Place]]:
        """The messages of a block of whole records."""
        found = []
        for record in block.split(b"\n")[:-1]:
            if self._is_new(record[:STAMP_BYTES]):
                found += self._placed(self._messages(record))
        return found

    def rest(self) -> list[tuple[Message, Place]]:
        """What is left at the end of a run, as the part of a line that never ended."""
        texts = [(stream, line) for stream, line in self._lines.items() if line.text]
        self._lines.clear()
        return self._placed(
            [
                Message(stream, line.stamp, line.text, line.part(last=False))
                for stream, line in texts
            ]
        )

    @property
    def place(self) -> Place:
        """The place after all that was fed."""
        return replace(self._base, messages=self._made) if self._lines else self._at

    def _is_new(self, stamp: bytes) -> bool:
        if stamp < self._start.stamp:
            return False
        if stamp == self._start.stamp and self._to_skip:
            self._to_skip -= 1
            return False
        records = self._at.records + 1 if stamp == self._at.stamp else 1
        self._at = Place(stamp, records)
        return True

    def _messages(self, record: bytes) -> list[Message]:
        stream = STREAMS.get(record[36:42])
        if stream is None:
            return []
        line = self._lines.setdefault(stream, _Line(record[:STAMP_BYTES]))
        line.text += record[HEADER_BYTES:]
        found = []
        while len(line.text) >= PART_BYTES:
            text, line.text = line.text[:PART_BYTES], line.text[PART_BYTES:]
            found.append(Message(stream, line.stamp, text, line.part(last=False)))
        if record[43:44] == b"F":
            part = line.part(last=True) if line.part_id else None
            found.append(Message(stream, line.stamp, line.text, part))
            del self._lines[stream]
        return found

    def _placed(self, messages: list[Message]) -> list[tuple[Message, Place]]:
        placed = []
        for message in messages:
            self._made += 1
            placed.append((message, replace(self._base, messages=self._made)))
        if not self._lines:
            self._base, self._made = self._at, 0
            if placed:
                placed[-1] = (messages[-1], self._at)
        dropped = min(self._to_drop, len(placed))
        self._to_drop -= dropped
        return placed[dropped:]


def open_forwarder(record: ContainerRecord, paths: Paths) -> Forwarder | None:
    """What sends the container's lines on, if its log driver does."""
    sink = open_sink(record)
    if sink is None:
        return None
    return Forwarder(sink, paths.log(record.id), paths.state(record.id) / "forwarded")


class Forwarder:
    """Sends one container's lines to its sink; remembers in `cursor` how far it came."""

    def __init__(self, sink: Sink, log: Path, cursor: Path) -> None:
        self._sink = sink
        self._log = log
        self._cursor = cursor
        self._place = self._saved = Place()
        self._saved_at = 0.0
        self._is_away = False
        self._is_closed = False
        self._sending = threading.Lock()

    async def run(self, ended: asyncio.Event) -> None:
        """Returns when the container has ended and all was sent."""
        try:
            self._place = self._saved = await run_blocking(_read_place, self._cursor)
            assembler = Assembler(self._place)
            query = LogQuery(follow=True)
            async for _, block in read_log(self._log, query, ended, RecordFormatter(query)):
                if not await self._deliver(await run_blocking(assembler.feed, block)):
                    return
            if await self._deliver(assembler.rest()):
                self._place = assembler.place
        finally:
            self._is_closed = True
            await run_apart(self._close)

    async def _deliver(self, messages: list[tuple[Message, Place]]) -> bool:
        """Tries until it succeeds; False when the container was removed meanwhile."""
        queue = deque(messages)
        while queue:
            # The shared pool is for everybody: who waits for a receiver does so once in it.
            run = run_apart if self._is_away else run_blocking
            try:
                await run(self._send_some, queue)
                self._is_away = False
            except OSError as error:
                if not self._log.parent.exists():
                    return False
                if not self._is_away:
                    _log.warning("cannot forward log lines, trying on and on: %s", error)
                self._is_away = True
                await asyncio.sleep(_RETRY_S)
        return True

    def _send_some(self, queue: deque[tuple[Message, Place]]) -> None:
        until = time.monotonic() + _TURN_S
        with self._sending:
            while queue and not self._is_closed and time.monotonic() < until:
                message, place = queue[0]
                self._sink.send(message)
                queue.popleft()
                self._place = place
            if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
                self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        place = self._place
        if place == self._saved:
            return
        self._saved = place
        text = b"%s %d %d" % (place.stamp, place.records, place.messages)
        with contextlib.suppress(OSError):  # the container was removed, or the disk is full
            write_atomic(self._cursor, text, durable=False)

    def _close(self) -> None:
        with self._sending:
            self._save()
            self._sink.close()


def _read_place(path: Path) -> Place:
    with contextlib.suppress(FileNotFoundError, ValueError):
        stamp, records, messages = path.read_bytes().rsplit(b" ", 2)
        return Place(stamp, int(records), int(messages))
    return Place()
