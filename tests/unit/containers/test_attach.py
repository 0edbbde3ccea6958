"""Attached clients: all output in order, bounded memory, and nobody holds back anybody."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estiba.containers import attach, spill
from estiba.containers.attach import AttachClient, AttachHub, Chunk, SpillQueue


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "MAX_MEMORY_BYTES", 100)
    monkeypatch.setattr(attach, "MAX_SPILL_BYTES", 1000)


def open_files(directory: Path) -> int:
    """Unlinked files of this process in `directory`."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return sum(link.startswith(f"{directory}/") for link in links)


async def drained(queue: SpillQueue) -> list[Chunk]:
    queue.end()
    found: list[Chunk] = []
    while chunks := await queue.take():
        found += chunks
    return found


# -- the queue -----------------------------------------------------------------------------


async def test_what_fits_stays_in_memory(tmp_path: Path, small: None) -> None:
    queue = SpillQueue(tmp_path / "does not even exist")
    for number in range(10):
        assert await queue.put((1, b"%010d" % number))
    assert await drained(queue) == [(1, b"%010d" % number) for number in range(10)]


async def test_the_rest_goes_to_a_file_that_has_no_name_and_is_given_back(
    tmp_path: Path, small: None
) -> None:
    queue = SpillQueue(tmp_path)
    chunks = [(1 + number % 2, b"%010d" % number) for number in range(40)]
    for chunk in chunks:
        assert await queue.put(chunk)
    assert os.listdir(tmp_path) == []
    assert open_files(tmp_path) == 1
    assert queue._memory_bytes <= 100
    assert await drained(queue) == chunks
    assert open_files(tmp_path) == 0


async def test_who_stays_a_little_behind_takes_little_room(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is given back although the queue is never empty."""
    monkeypatch.setattr(spill, "FILE_BYTES", 500)
    queue = SpillQueue(tmp_path)
    found: list[Chunk] = []
    for number in range(400):
        assert await queue.put((1, b"%050d" % number))
        if number >= 8:
            found += await queue.take()
        assert open_files(tmp_path) <= 3
    found += await drained(queue)
    assert found == [(1, b"%050d" % number) for number in range(400)]
    assert open_files(tmp_path) == 0


async def test_a_chunk_larger_than_the_memory_passes(tmp_path: Path, small: None) -> None:
    queue = SpillQueue(tmp_path)
    assert await queue.put((1, b"a"))
    assert await queue.put((2, b"b" * 500))
    assert await queue.put((1, b"c"))
    assert await drained(queue) == [(1, b"a"), (2, b"b" * 500), (1, b"c")]


async def test_a_reader_too_far_behind_is_told_so(tmp_path: Path, small: None) -> None:
    queue = SpillQueue(tmp_path)
    accepted = 0
    while await queue.put((1, b"x" * 50)):
        accepted += 1
        assert accepted < 100
    assert 1000 <= accepted * 50 <= 100 + 1000 + 50
    assert len(await drained(queue)) == accepted


async def test_a_reader_that_waits_is_woken_by_data_and_by_the_end(tmp_path: Path) -> None:
    queue = SpillQueue(tmp_path)
    for chunk in ((1, b"a"), (2, b"b")):
        taking = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        assert not taking.done()
        await queue.put(chunk)
        async with asyncio.timeout(5):
            assert await taking == [chunk]
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.end()
    async with asyncio.timeout(5):
        assert await taking == []


async def test_a_full_disk_drops_the_reader_and_raises_nothing(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, "no space")

    queue = SpillQueue(tmp_path)
    assert await queue.put((1, b"x" * 90))
    monkeypatch.setattr(spill.tempfile, "TemporaryFile", fail)
    assert not await queue.put((1, b"y" * 90))
    assert await drained(queue) == [(1, b"x" * 90)]


async def test_a_disk_that_is_full_half_way_keeps_what_came_before(
    tmp_path: Path, small: None
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    queue = SpillQueue(tmp_path)
    assert await queue.put((1, b"x" * 90))
    assert await queue.put((1, b"y" * 90))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        assert not await queue.put((1, b"z" * 90))
        assert await queue.take() == [(1, b"x" * 90)]
        assert await queue.take() == [(1, b"y" * 90)]
        queue.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_discarding_while_data_is_spilled_harms_nobody(tmp_path: Path, small: None) -> None:
    for _ in range(30):
        queue = SpillQueue(tmp_path)
        for _ in range(3):
            await queue.put((1, b"x" * 90))
        putting = asyncio.create_task(queue.put((1, b"y" * 90)))
        taking = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        taking.cancel()
        queue.discard()
        assert await putting in (True, False)
        await asyncio.gather(taking, return_exceptions=True)
        assert await queue.put((1, b"z")) in (True, False)
        assert await queue.take() == []
        del queue, putting, taking
    assert open_files(tmp_path) == 0


_steps = st.lists(st.tuples(st.booleans(), st.integers(0, 160)), max_size=40)


@given(_steps)
@settings(max_examples=60)
def test_order_is_kept_however_puts_and_takes_alternate(steps: list[tuple[bool, int]]) -> None:
    async def run() -> None:
        queue = SpillQueue(Path("/tmp"))
        wanted: list[Chunk] = []
        found: list[Chunk] = []
        for number, (take, size) in enumerate(steps):
            if take and len(found) < len(wanted):
                found += await queue.take()
                continue
            chunk = (1 + number % 2, bytes([number]) * size)
            assert await queue.put(chunk)
            wanted.append(chunk)
        assert found + await drained(queue) == wanted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attach, "MAX_MEMORY_BYTES", 200)
        asyncio.run(run())


# -- the hub -------------------------------------------------------------------------------


class FakeConsole:
    """The monitor's side: output is fed, input is kept."""

    def __init__(self) -> None:
        self.feed: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        self.stdin: list[bytes] = []
        self.stdin_open = True
        self.is_open = True

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while (item := await self.feed.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def put(self, *items: Chunk | Exception | None) -> None:
        for item in items:
            self.feed.put_nowait(item)

    async def write_stdin(self, data: bytes) -> None:
        self.stdin.append(data)

    async def close_stdin(self) -> None:
        self.stdin_open = False

    async def close(self) -> None:
        self.is_open = False


async def output(client: AttachClient) -> list[Chunk]:
    async with asyncio.timeout(5):
        return [chunk async for chunk in client]


async def test_every_client_sees_the_streams_that_it_asked_for(tmp_path: Path) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    both = hub.join(stdout=True, stderr=True)
    errors = hub.join(stdout=False, stderr=True)
    neither = hub.join(stdout=False, stderr=False)
    assert hub.has_clients
    hub.connect(console, name="web")
    assert hub.is_connected
    console.put((1, b"out"), (2, b"err"), None)
    await hub.finish()
    assert await output(both) == [(1, b"out"), (2, b"err")]
    assert await output(errors) == [(2, b"err")]
    assert await output(neither) == []
    assert not console.is_open
    assert not hub.is_connected
    assert not hub.has_clients


async def test_input_waits_for_the_container(tmp_path: Path) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    writing = asyncio.create_task(hub.write_stdin(b"typed early"))
    await asyncio.sleep(0)
    assert not writing.done()
    hub.connect(console, name="web")
    await writing
    await hub.write_stdin(b"more")
    await hub.close_stdin()
    assert console.stdin == [b"typed early", b"more"]
    assert not console.stdin_open
    await hub.close()


async def test_a_client_that_leaves_takes_nothing_from_the_others(tmp_path: Path) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    stays, leaves = (hub.join(stdout=True, stderr=True) for _ in range(2))
    hub.connect(console, name="web")
    console.put((1, b"a"))
    assert await stays.queue.take() == [(1, b"a")]
    hub.leave(leaves)
    hub.leave(leaves)
    console.put((1, b"b"), None)
    await hub.finish()
    assert await output(stays) == [(1, b"b")]
    assert await output(leaves) == []


async def test_a_client_that_does_not_read_is_dropped_and_the_container_goes_on(
    tmp_path: Path, small: None
) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    stuck = hub.join(stdout=True, stderr=True)
    reads = hub.join(stdout=True, stderr=True)
    hub.connect(console, name="web")
    for number in range(100):
        console.put((1, b"%050d" % number))
        assert await reads.queue.take() == [(1, b"%050d" % number)]
    console.put(None)
    await hub.finish()
    assert await output(reads) == []
    kept = await output(stuck)
    assert kept == [(1, b"%050d" % number) for number in range(len(kept))]
    assert 20 < len(kept) < 30
    assert open_files(tmp_path) == 0


async def test_a_console_that_breaks_ends_the_clients_and_not_the_run(tmp_path: Path) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    client = hub.join(stdout=True, stderr=True)
    hub.connect(console, name="web")
    console.put((1, b"a"), ConnectionResetError("the monitor died"))
    await hub.finish()
    assert await output(client) == [(1, b"a")]
    assert not console.is_open


async def test_a_second_run_is_a_new_console(tmp_path: Path) -> None:
    hub = AttachHub(tmp_path)
    for run in (b"first", b"second"):
        client, console = hub.join(stdout=True, stderr=True), FakeConsole()
        hub.connect(console, name="web")
        console.put((1, run), None)
        await hub.finish()
        assert await output(client) == [(1, run)]


async def test_close_does_not_wait_for_the_output(tmp_path: Path) -> None:
    hub, console = AttachHub(tmp_path), FakeConsole()
    client = hub.join(stdout=True, stderr=True)
    hub.connect(console, name="web")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await hub.close()
    assert await output(client) == []
    assert not console.is_open
