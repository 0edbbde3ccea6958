"""Lines sent on to a log receiver, which may be away."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.logfiles import BASE_NS, LogRecord, line, write_records

from estiba.containers import forward, logs
from estiba.containers.forward import PART_BYTES, Assembler, Forwarder, Place
from estiba.containers.sinks import Message


@dataclass
class FakeSink:
    """Takes lines once it is there."""

    is_there: bool = True
    attempts: int = 0
    messages: list[Message] = field(default_factory=list)
    closed: bool = False

    def send(self, message: Message) -> None:
        self.attempts += 1
        if not self.is_there:
            raise FileNotFoundError("no receiver")
        self.messages.append(message)

    @property
    def lines(self) -> list[tuple[int, bytes]]:
        return [(message.stream, message.text) for message in self.messages]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "container.log"
    path.parent.mkdir()
    return path


@pytest.fixture
def ended() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@pytest.mark.parametrize("block", [64, 1 << 18])
async def test_lines_are_what_the_program_wrote(
    log: Path, ended: asyncio.Event, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In however many pieces they lie in the log, and with whatever is in them."""
    monkeypatch.setattr(logs, "_BLOCK_BYTES", block)
    write_records(
        log,
        [
            line(0, "50%\r100%"),
            line(1, "a long ", partial=True),
            line(2, "failed", stream=2),
            line(3, "line"),
            line(4, "no end", partial=True),
        ],
    )
    sink = FakeSink()
    await Forwarder(sink, log, log.parent / "forwarded").run(ended)
    assert [text for stream, text in sink.lines if stream == 1] == [
        b"50%\r100%",
        b"a long line",
        b"no end",
    ]
    assert [text for stream, text in sink.lines if stream == 2] == [b"failed"]
    assert sink.closed


async def test_a_receiver_that_is_away_is_tried_until_it_is_back_or_the_container_gone(
    log: Path,
    ended: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(forward, "_RETRY_S", 0.001)
    write_records(log, [line(0, "one"), line(1, "two")])
    for comes_back in (True, False):
        sink = FakeSink(is_there=False)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            running = asyncio.create_task(Forwarder(sink, log, log.parent / "cursor").run(ended))
            for _ in range(5000):
                if sink.attempts > 3:
                    break
                await asyncio.sleep(0.001)
            sink.is_there = comes_back
            if not comes_back:
                shutil.rmtree(log.parent)
            async with asyncio.timeout(10):
                await running
        assert len(caplog.records) == 1
        assert [text for _, text in sink.lines] == ([b"one", b"two"] if comes_back else [])
        (log.parent / "cursor").unlink(missing_ok=True)


async def test_a_receiver_that_is_away_holds_no_thread_of_the_shared_pool(
    log: Path, ended: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few containers whose receiver does not answer would take it from everybody else."""
    monkeypatch.setattr(forward, "_RETRY_S", 0.001)
    write_records(log, [line(0, "late")])
    threads: list[str] = []

    class Away(FakeSink):
        def send(self, message: Message) -> None:
            threads.append(threading.current_thread().name)
            self.is_there = self.attempts == 2
            super().send(message)

    async with asyncio.timeout(5):
        await Forwarder(Away(), log, log.parent / "forwarded").run(ended)
    assert [name.startswith("blocking") for name in threads] == [True, False, False]


_PIECES = st.builds(
    LogRecord,
    # Few times, so that many records have the same one, as those of one read of the monitor do.
    st.just(BASE_NS),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.sampled_from([b"", b"a", b"bc", b"x" * 5000, b"y" * PART_BYTES, b"z" * 40_000]),
)


def timed(records: list[LogRecord], steps: list[int]) -> list[LogRecord]:
    """The records with times that never go back."""
    times = accumulate(steps)
    return [
        replace(record, time_ns=BASE_NS + time) for record, time in zip(records, times, strict=True)
    ]


def seen(messages: list[tuple[Message, Place]]) -> list[tuple[object, ...]]:
    """Without the ids of long lines, which are random."""
    return [
        (one.stream, one.stamp, one.text, one.part and (one.part.ordinal, one.part.last))
        for one, _ in messages
    ]


@given(st.data())
def test_each_message_comes_once_wherever_it_is_taken_up_again(data: st.DataObject) -> None:
    records = data.draw(st.lists(_PIECES, max_size=12))
    steps = data.draw(st.lists(st.integers(0, 1), min_size=len(records), max_size=len(records)))
    log = b"".join(record.encode() for record in timed(records, steps))
    assembler = Assembler(Place())
    whole = assembler.feed(log)
    if whole:
        cut = data.draw(st.integers(0, len(whole) - 1))
        again = Assembler(whole[cut][1])
        assert seen(again.feed(log)) == seen(whole[cut + 1 :])
        assert again.place == assembler.place
    again = Assembler(assembler.place)
    assert again.feed(log) == []
    rest = assembler.rest()
    for stream in (1, 2):
        texts = b"".join(
            record.text + (b"" if record.partial else b"\n")
            for record in records
            if record.stream == stream
        )
        sent = b"".join(
            one.text + (b"\n" if one.part is None or one.part.last else b"")
            for one, _ in [*whole, *rest]
            if one.stream == stream
        )
        assert sent == texts
    assert Assembler(assembler.place).feed(log) == []


async def test_a_further_run_sends_only_what_is_new(log: Path, ended: asyncio.Event) -> None:
    """The log goes on over the runs of a container; many lines have the same time."""
    cursor = log.parent / "forwarded"
    for run in range(3):
        write_records(log, [line(0, f"{run} one"), line(0, f"{run} two")])
        write_records(log, [line(0, f"{run} end", partial=True)])
        sink = FakeSink()
        await Forwarder(sink, log, cursor).run(ended)
        assert [text.decode() for _, text in sink.lines] == [
            f"{run} {word}" for word in ("one", "two", "end")
        ]


async def test_an_engine_that_ends_remembers_how_far_it_came(
    log: Path, ended: asyncio.Event
) -> None:
    write_records(log, [line(number, str(number)) for number in range(4)])

    loop = asyncio.get_running_loop()

    class Stops(FakeSink):
        stuck = asyncio.Event()

        def send(self, message: Message) -> None:
            if len(self.messages) == 2:
                loop.call_soon_threadsafe(self.stuck.set)
                raise FileNotFoundError("no receiver")
            super().send(message)

    first, second = Stops(), FakeSink()
    running = asyncio.create_task(Forwarder(first, log, log.parent / "cursor").run(ended))
    await first.stuck.wait()
    running.cancel()
    await asyncio.wait({running})
    await Forwarder(second, log, log.parent / "cursor").run(ended)
    assert [text for _, text in first.lines + second.lines] == [b"0", b"1", b"2", b"3"]
    assert first.closed
