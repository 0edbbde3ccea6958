"""Lines sent on to a log receiver, which may be away."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.logfiles import line, write_records

from estiba.containers import forward, logs
from estiba.containers.forward import Forwarder, JournaldSink


@dataclass
class FakeSink:
    """Takes lines once it is there."""

    is_there: bool = True
    attempts: int = 0
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    closed: bool = False

    def send(self, stream: int, time_ns: int, line: bytes) -> None:
        self.attempts += 1
        if not self.is_there:
            raise FileNotFoundError("no receiver")
        self.lines.append((stream, line))

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
        def send(self, stream: int, time_ns: int, line: bytes) -> None:
            threads.append(threading.current_thread().name)
            self.is_there = self.attempts == 2
            super().send(stream, time_ns, line)

    async with asyncio.timeout(5):
        await Forwarder(Away(), log, log.parent / "forwarded").run(ended)
    assert [name.startswith("blocking") for name in threads] == [True, False, False]


def test_a_journal_that_takes_nothing_more_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_SEND_TIMEOUT_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        sink = JournaldSink({}, tmp_path / "journal")
        with pytest.raises(TimeoutError):
            for _ in range(100_000):
                sink.send(1, 0, b"x" * 4096)
        sink.close()
