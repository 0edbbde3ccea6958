"""Reading logs, against a straightforward model of what must come out."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.logfiles import (
    BASE_NS,
    LogRecord,
    expected,
    joined,
    line,
    write_records,
    write_rotated,
)

from estiba.containers import logs
from estiba.containers.logs import Chunk, LogQuery, log_files, read_log, seek_tail, stamp

_TEXTS = st.sampled_from(
    [b"", b"a", b"two words", b"x" * 70, b" stderr F ", b" stdout P ", b"\xff\x00\r", b"P", b"F"]
)


@st.composite
def _records(
    draw: st.DrawFn, *, streams: tuple[int, ...] = (1, 2), texts: st.SearchStrategy[bytes] = _TEXTS
) -> list[LogRecord]:
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 1, 10**9, 90 * 10**9]),
                st.sampled_from(streams),
                st.booleans(),
                texts,
            ),
            max_size=25,
        )
    )
    times = itertools.accumulate((step[0] for step in steps), initial=BASE_NS)
    return [
        LogRecord(time_ns, stream, partial, text)
        for time_ns, (_, stream, partial, text) in zip(times, steps, strict=False)
    ]


@st.composite
def _cuts(draw: st.DrawFn, records: list[LogRecord]) -> list[list[LogRecord]]:
    """The records as up to four rotated files; a file may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(records)), max_size=3)))
    edges = [0, *places, len(records)]
    return [records[low:high] for low, high in itertools.pairwise(edges)]


_times = st.just(0) | st.sampled_from(
    [BASE_NS - 1, BASE_NS, BASE_NS + 1, BASE_NS + 5 * 10**9, BASE_NS + 10**12]
)
_queries = st.builds(
    LogQuery,
    stdout=st.booleans(),
    stderr=st.booleans(),
    since_ns=_times,
    until_ns=_times,
    tail=st.none() | st.integers(0, 30),
    timestamps=st.booleans(),
)


async def read(path: Path, query: LogQuery) -> list[Chunk]:
    ended = asyncio.Event()
    ended.set()
    return joined([chunk async for chunk in read_log(path, query, ended)])


# -- against the model ---------------------------------------------------------------------


@given(st.data())
@settings(max_examples=300)
def test_reading_is_the_model(data: st.DataObject) -> None:
    records = data.draw(_records())
    files = data.draw(_cuts(records))
    query = data.draw(_queries)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "container.log"
        write_rotated(path, files)
        assert asyncio.run(read(path, query)) == expected(records, query)


@given(st.data())
@settings(max_examples=60)
def test_every_tail_of_every_log(data: st.DataObject) -> None:
    records = data.draw(_records())
    files = data.draw(_cuts(records))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "container.log"
        write_rotated(path, files)

        async def check() -> None:
            for tail in range(len(records) + 2):
                query = LogQuery(tail=tail, timestamps=bool(tail % 2))
                assert await read(path, query) == expected(records, query), f"tail {tail}"

        asyncio.run(check())


@given(st.data(), st.sampled_from([1, 7, 45, 46, 100, 300]))
@settings(max_examples=150)
def test_records_may_lie_anywhere_in_the_blocks_read(data: st.DataObject, size: int) -> None:
    records = data.draw(_records(streams=(1,)))
    files = data.draw(_cuts(records))
    query = data.draw(_queries)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_BLOCK_BYTES", size)
        patch.setattr(logs, "_TAIL_BYTES", size)
        path = Path(directory) / "container.log"
        write_rotated(path, files)
        assert asyncio.run(read(path, query)) == expected(records, query)


# -- single cases --------------------------------------------------------------------------


async def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert await read(tmp_path / "container.log", LogQuery()) == []
    assert await read(tmp_path / "container.log", LogQuery(tail=3)) == []


async def test_a_line_in_pieces_is_one_line_across_rotation(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_rotated(
        path,
        [
            [line(0, "before"), line(1, "long ", partial=True)],
            [line(2, "longer ", partial=True)],
            [line(3, "longest"), line(4, "after")],
        ],
    )
    assert await read(path, LogQuery()) == [(1, b"before\nlong longer longest\nafter\n")]
    assert await read(path, LogQuery(tail=2)) == [(1, b"long longer longest\nafter\n")]
    stamped = await read(path, LogQuery(tail=2, timestamps=True))
    first, second = line(1, "").stamp, line(4, "").stamp
    assert stamped == [(1, f"{first}Z long longer longest\n{second}Z after\n".encode())]


async def test_the_tail_of_two_streams_that_write_long_lines_at_once(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_records(
        path,
        [
            line(0, "old"),
            line(1, "out ", partial=True),
            line(2, "err ", stream=2, partial=True),
            line(3, "out"),
            line(4, "err", stream=2),
        ],
    )
    assert await read(path, LogQuery(tail=2)) == [
        (1, b"out "),
        (2, b"err "),
        (1, b"out\n"),
        (2, b"err\n"),
    ]


@pytest.mark.parametrize("tail", [None, 0, 1, 5])
async def test_a_record_that_is_being_written_is_not_shown(
    tmp_path: Path, tail: int | None
) -> None:
    path = tmp_path / "container.log"
    write_records(path, [line(0, "whole")])
    with path.open("ab") as file:
        file.write(line(1, "half").encode()[:-3])
    whole = [] if tail == 0 else [(1, b"whole\n")]
    assert await read(path, LogQuery(tail=tail)) == whole


def test_stamps_sort_as_times_do() -> None:
    times = [1, 10**9 - 1, 10**9, BASE_NS, BASE_NS + 1, BASE_NS + 10**9]
    assert [stamp(t) for t in times] == sorted(stamp(t) for t in times)
    assert {len(stamp(t)) for t in times} == {29}


def test_log_files_are_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    for name in ("container.log", "container.log.1", "container.log.2", "container.log.10", "x"):
        (tmp_path / name).touch()
    assert [file.name for file in log_files(path)] == [
        "container.log.2",
        "container.log.1",
        "container.log",
    ]
    assert log_files(tmp_path / "absent") == []


# -- following -----------------------------------------------------------------------------


class Follower:
    """Reads with follow in a task, and can be waited for."""

    def __init__(self, path: Path, query: LogQuery) -> None:
        self.ended = asyncio.Event()
        self.chunks: list[Chunk] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run(read_log(path, query, self.ended)))

    async def _run(self, chunks: AsyncIterator[Chunk]) -> None:
        async for chunk in chunks:
            self.chunks.append(chunk)
            self._more.set()

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in self.chunks)

    async def wait_size(self, size: int) -> None:
        async with asyncio.timeout(10):
            while self.size < size:
                self._more.clear()
                await self._more.wait()

    async def finish(self) -> list[Chunk]:
        self.ended.set()
        async with asyncio.timeout(10):
            await self._task
        return joined(self.chunks)


def output_size(records: list[LogRecord]) -> int:
    return sum(len(data) for _, data in expected(records, LogQuery()))


class Monitor:
    """Writes a log as conmon does: a rename does not stop it, until it is told to reopen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, records: list[LogRecord]) -> None:
        for record in records:
            self._file.write(record.encode())

    def rename(self) -> None:
        newest = len(log_files(self._path))
        for number in range(newest - 1, 0, -1):
            old = self._path.with_name(f"{self._path.name}.{number}")
            old.rename(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.rename(self._path.with_name(f"{self._path.name}.1"))

    def reopen(self) -> None:
        self._file.close()
        self._file = self._path.open("ab", buffering=0)


_actions = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "rotate", "rotate late", "wait"]),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=14,
)


@given(_actions)
@example([("write", 2, False), ("wait", 1, False), *[("rotate", 1, False)] * 3])
@example([("rotate late", 1, True), ("rotate late", 1, True), ("wait", 1, True)])
@settings(max_examples=60)
def test_following_loses_nothing_while_the_log_rotates(
    actions: list[tuple[str, int, bool]],
) -> None:
    async def run(directory: Path) -> None:
        path = directory / "container.log"
        monitor = Monitor(path)
        written: list[LogRecord] = []

        def write(count: int, partial: bool) -> None:
            records = [
                line(len(written) + n, f"line {len(written) + n}", partial=partial and n == 0)
                for n in range(count)
            ]
            monitor.write(records)
            written.extend(records)

        follower = Follower(path, LogQuery(follow=True))
        for action, count, partial in actions:
            if action == "wait":
                await follower.wait_size(output_size(written))
                continue
            if action.startswith("rotate"):
                monitor.rename()
                if action == "rotate late":
                    write(count, partial)
                monitor.reopen()
            write(count, partial)
        assert await follower.finish() == expected(written, LogQuery())

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


async def test_following_begins_with_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_records(path, [line(n, f"old {n}") for n in range(5)])
    follower = Follower(path, LogQuery(follow=True, tail=2))
    await follower.wait_size(12)
    write_records(path, [line(9, "new")])
    await follower.wait_size(16)
    assert await follower.finish() == [(1, b"old 3\nold 4\nnew\n")]


def test_no_tail_is_the_end_of_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_records(path, [line(0, "whole")])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"2026-11-24T10:0")
    with path.open("rb", buffering=0) as file:
        assert seek_tail(file, 0) == 0
        assert file.tell() == whole


async def test_following_a_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    follower = Follower(path, LogQuery(follow=True))
    await asyncio.sleep(0)
    write_records(path, [line(0, "first", stream=2)])
    await follower.wait_size(6)
    assert await follower.finish() == [(2, b"first\n")]


async def test_following_ends_with_the_container_and_after_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_records(path, [line(0, "first")])
    follower = Follower(path, LogQuery(follow=True))
    await follower.wait_size(6)
    write_records(path, [line(1, "last")])
    assert await follower.finish() == [(1, b"first\nlast\n")]


async def test_following_ends_at_until(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    query = LogQuery(follow=True, until_ns=BASE_NS + 10**9)
    follower = Follower(path, query)
    write_records(path, [line(0, "a"), line(1, "b"), line(2, "c")])
    async with asyncio.timeout(10):
        await follower._task
    assert joined(follower.chunks) == [(1, b"a\nb\n")]


async def test_following_a_truncated_log_goes_on_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    write_records(path, [line(0, "old")])
    follower = Follower(path, LogQuery(follow=True))
    await follower.wait_size(4)
    path.unlink()
    write_records(path, [line(1, "new")])
    await follower.wait_size(8)
    assert await follower.finish() == [(1, b"old\nnew\n")]


async def test_following_holds_one_file_and_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    monitor = Monitor(path)
    monitor.write([line(0, "0")])
    before = len(os.listdir("/proc/self/fd"))
    follower = Follower(path, LogQuery(follow=True))
    await follower.wait_size(2)
    held = len(os.listdir("/proc/self/fd"))
    for number in range(1, 6):
        monitor.rename()
        monitor.reopen()
        monitor.write([line(number, str(number))])
        await follower.wait_size(2 * (number + 1))
    assert len(os.listdir("/proc/self/fd")) <= held + 1
    await follower.finish()
    assert len(os.listdir("/proc/self/fd")) <= before
