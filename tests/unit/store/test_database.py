"""The state database: group commit, names, rollback of one job, intents, events, bad disks."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from estiba.model.errors import AlreadyExists, DataLoss, Internal
from estiba.model.event import Event, EventType
from estiba.store import EventBus, Intent, Record, Store, Transaction, database, schema


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    yield opened
    opened.close()


def reopened(store: Store) -> Store:
    store.close()
    return Store.open(store.path, EventBus())


def event(action: str, *, time_ns: int = 0) -> Event:
    return Event(EventType.CONTAINER, action, "c1", {"name": "web"}, time_ns)


class Gate:
    """Holds the writer thread inside a job, so that later jobs gather into one group."""

    def __init__(self, store: Store) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()
        self._job = asyncio.create_task(store.commit(self._wait))

    def _wait(self, _: Transaction) -> None:
        self._entered.set()
        assert self._opened.wait(10)

    async def __aenter__(self) -> Gate:
        assert await asyncio.to_thread(self._entered.wait, 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._opened.set()
        await self._job


# -- records and names ---------------------------------------------------------------------


async def test_records_are_kept_by_kind_and_id(store: Store) -> None:
    def write(tx: Transaction) -> str:
        tx.put("container", "b", b"1", "two")
        tx.put("container", "a", b"2", "one")
        tx.put("container", "a", b"3", "uno")
        tx.put("network", "a", b"4")
        tx.put("network", "gone", b"5")
        tx.delete("network", "gone")
        tx.delete("network", "never was")
        return "result"

    assert await store.commit(write) == "result"
    again = reopened(store)
    assert again.load("container") == [Record("a", "uno", b"3"), Record("b", "two", b"1")]
    assert again.load("network") == [Record("a", None, b"4")]
    assert again.load("volume") == []
    again.close()


async def test_a_name_is_unique_within_its_kind_and_free_after_rename_or_delete(
    store: Store,
) -> None:
    await store.commit(lambda tx: tx.put("container", "a", b"{}", "web"))
    await store.commit(lambda tx: tx.put("network", "a", b"{}", "web"))
    await store.commit(lambda tx: (tx.put("x", "1", b"{}"), tx.put("x", "2", b"{}")))
    with pytest.raises(AlreadyExists, match="the container name 'web' is already in use"):
        await store.commit(lambda tx: tx.put("container", "b", b"{}", "web"))
    await store.commit(lambda tx: tx.put("container", "a", b"{}", "renamed"))
    await store.commit(lambda tx: tx.put("container", "b", b"{}", "web"))
    await store.commit(lambda tx: tx.delete("container", "b"))
    await store.commit(lambda tx: tx.put("container", "c", b"{}", "web"))


# -- one group, many jobs ------------------------------------------------------------------


async def test_waiting_jobs_share_one_transaction(store: Store) -> None:
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    async with Gate(store):
        jobs = [
            asyncio.create_task(store.commit(lambda tx, n=n: tx.put("x", str(n), b"{}")))
            for n in range(20)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*jobs)
    assert statements.count("BEGIN IMMEDIATE") == 2
    assert statements.count("COMMIT") == 2
    assert len(store.load("x")) == 20


async def test_a_group_is_flushed_to_disk_when_one_job_asks_for_it(store: Store) -> None:
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    for durable, level in [(False, "NORMAL"), (True, "FULL"), (False, "NORMAL")]:
        await store.commit(lambda tx: tx.put("x", "1", b"{}"), durable=durable)
        assert f"PRAGMA synchronous = {level}" in statements
        statements.clear()
    async with Gate(store):
        jobs = [
            asyncio.create_task(store.commit(lambda tx: None, durable=durable))
            for durable in (False, True, False)
        ]
    await asyncio.gather(*jobs)
    assert [s for s in statements if "synchronous" in s][-1].endswith("FULL")


async def test_a_job_that_fails_takes_back_its_own_writes_only(store: Store) -> None:
    await store.commit(lambda tx: tx.put("container", "old", b"{}", "taken"))
    subscription = store.bus.subscribe()

    def good(tx: Transaction, number: int) -> int:
        tx.put("container", f"good{number}", b"{}", f"name{number}")
        tx.add_event(event(f"good{number}"))
        return number

    def bad(tx: Transaction) -> None:
        tx.put("container", "bad", b"{}", "free")
        tx.add_intent(Intent("i", "container", "bad", "create"))
        tx.add_event(event("bad"))
        tx.put("container", "bad2", b"{}", "taken")

    def broken(tx: Transaction) -> None:
        tx.put("container", "broken", b"{}", "broken")
        raise ZeroDivisionError

    async with Gate(store):
        jobs = [
            asyncio.create_task(job)
            for job in (
                store.commit(lambda tx: good(tx, 1)),
                store.commit(bad),
                store.commit(lambda tx: good(tx, 2)),
                store.commit(broken),
                store.commit(lambda tx: good(tx, 3)),
            )
        ]
    one, failed, two, defect, three = await asyncio.gather(*jobs, return_exceptions=True)
    assert (one, two, three) == (1, 2, 3)
    assert isinstance(failed, AlreadyExists)
    assert isinstance(defect, ZeroDivisionError)
    assert [row.id for row in store.load("container")] == ["good1", "good2", "good3", "old"]
    assert store.intents("container") == []
    seen = subscription.__aiter__()
    assert [(await anext(seen)).action for _ in range(3)] == ["good1", "good2", "good3"]
    assert [e.action for e in await store.events_since(0, None)] == ["good1", "good2", "good3"]


async def test_a_caller_that_is_cancelled_does_not_take_back_the_write(store: Store) -> None:
    async with Gate(store):
        task = asyncio.create_task(store.commit(lambda tx: tx.put("x", "1", b"{}")))
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await asyncio.to_thread(store.load, "x")) == 1


# -- intents -------------------------------------------------------------------------------


async def test_intents_outlive_the_store_in_their_order(store: Store) -> None:
    await store.commit(lambda tx: tx.add_intent(Intent("z", "container", "a", "start")))
    await store.commit(lambda tx: tx.add_intent(Intent("a", "container", "b", "remove", b"[1]")))
    await store.commit(lambda tx: tx.add_intent(Intent("n", "network", "c", "create")))
    again = reopened(store)
    assert again.intents("container") == [
        Intent("z", "container", "a", "start"),
        Intent("a", "container", "b", "remove", b"[1]"),
    ]
    await again.commit(lambda tx: (tx.delete_intent("z"), tx.delete_intent("unknown")))
    assert [intent.id for intent in again.intents("container")] == ["a"]
    again.close()


async def test_the_same_intent_twice_is_noted_once(store: Store) -> None:
    for body in (b"1", b"2"):
        intent = Intent("i", "container", "a", "start", body)
        await store.commit(lambda tx, intent=intent: tx.add_intent(intent))
    assert [intent.body for intent in store.intents("container")] == [b"2"]


# -- events --------------------------------------------------------------------------------


async def test_events_are_rows_with_growing_numbers_and_their_time(store: Store) -> None:
    for action, time_ns in (("create", 100), ("start", 200), ("die", 300)):
        await store.commit(lambda tx, a=action, t=time_ns: tx.add_event(event(a, time_ns=t)))
    await store.commit(lambda tx: tx.add_event(event("now")))
    rows = await store.events_since(0, None)
    assert [row.sequence for row in rows] == [1, 2, 3, 4]
    assert rows[0] == Event(EventType.CONTAINER, "create", "c1", {"name": "web"}, 100, 1)
    assert rows[3].time_ns > 300
    between = await store.events_since(200, 300)
    assert [row.action for row in between] == ["start", "die"]


async def test_old_events_are_trimmed_and_numbers_are_never_used_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MAX_EVENTS", 50)
    monkeypatch.setattr(database, "_TRIM_EVERY", 20)
    for number in range(105):
        await store.commit(lambda tx, n=number: tx.add_event(event(str(n))))
    rows = await store.events_since(0, None)
    assert [row.sequence for row in rows] == list(range(51, 106))
    assert 50 <= len(rows) < 50 + 20


# -- failures of the disk ------------------------------------------------------------------


async def test_a_full_database_refuses_and_goes_on_when_there_is_room_again(store: Store) -> None:
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    await store.commit(lambda tx: tx._connection.execute(f"PRAGMA max_page_count = {pages + 2}"))
    with pytest.raises(Internal, match="cannot write the state database"):
        await store.commit(lambda tx: tx.put("x", "big", b"x" * 100_000))
    assert await asyncio.to_thread(store.load, "x") == []
    await store.commit(lambda tx: tx._connection.execute("PRAGMA max_page_count = 100000"))
    await store.commit(lambda tx: tx.put("x", "big", b"x" * 100_000))
    assert len(await asyncio.to_thread(store.load, "x")) == 1


@pytest.fixture
def failing_commit(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def hit(name: str) -> None:
        if name == "store.before-commit":
            raise OSError("failpoint")

    monkeypatch.setattr(database.failpoint, "hit", hit)
    return monkeypatch


async def test_a_failed_commit_fails_the_whole_group_and_publishes_nothing(
    store: Store, failing_commit: pytest.MonkeyPatch
) -> None:
    subscription = store.bus.subscribe()
    with pytest.raises(Internal):
        await store.commit(lambda tx: (tx.put("x", "1", b"{}"), tx.add_event(event("create"))))
    failing_commit.undo()
    await store.commit(lambda tx: tx.add_event(event("next")))
    assert (await anext(subscription.__aiter__())).action == "next"
    assert await asyncio.to_thread(store.load, "x") == []


async def test_the_writer_survives_a_failed_commit_whose_caller_has_gone(
    store: Store, failing_commit: pytest.MonkeyPatch
) -> None:
    entered, opened = threading.Event(), threading.Event()

    def slow(_: Transaction) -> None:
        entered.set()
        opened.wait(10)

    task = asyncio.create_task(store.commit(slow))
    assert await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    opened.set()
    with pytest.raises(Internal):
        await store.commit(lambda tx: tx.put("x", "1", b"{}"))
    failing_commit.undo()
    async with asyncio.timeout(10):
        await store.commit(lambda tx: tx.put("x", "1", b"{}"))


# -- opening and closing -------------------------------------------------------------------


async def test_the_file_is_private_and_in_wal_mode(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 200])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "estiba.db"
    path.write_bytes(content)
    with pytest.raises(DataLoss, match=r"estiba\.db.*restore it from a backup"):
        Store.open(path, EventBus())
    assert path.read_bytes() == content


async def test_a_file_of_a_newer_engine_is_refused_untouched(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataLoss, match="schema 99, this engine knows 1"):
        Store.open(store.path, EventBus())


async def test_a_migration_cut_off_in_the_middle_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "estiba.db"
    broken = (*schema._MIGRATIONS, "CREATE TABLE extra (a); INSERT INTO nothing VALUES (1)")
    monkeypatch.setattr(schema, "_MIGRATIONS", broken)
    with pytest.raises(DataLoss):
        Store.open(path, EventBus())
    monkeypatch.setattr(schema, "_MIGRATIONS", (*broken[:1], "CREATE TABLE extra (a)"))
    store = Store.open(path, EventBus())
    assert store._connection.execute("PRAGMA user_version").fetchone() == (2,)
    store.close()


async def test_writes_before_close_are_kept_and_later_ones_are_refused(store: Store) -> None:
    async with Gate(store):
        jobs = [
            asyncio.create_task(store.commit(lambda tx, n=n: tx.put("x", str(n), b"{}")))
            for n in range(5)
        ]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(store.close))
    await asyncio.gather(closing, *jobs)
    with pytest.raises(Internal, match="closed"):
        await store.commit(lambda tx: None)
    again = Store.open(store.path, EventBus())
    assert len(again.load("x")) == 5
    again.close()


async def test_a_write_that_comes_while_the_store_closes_does_not_wait_forever(
    store: Store,
) -> None:
    async with Gate(store):
        closing = threading.Thread(target=store.close)
        closing.start()
        async with asyncio.timeout(10):
            while store._jobs.empty():  # noqa: ASYNC110 - the queue tells that close has begun
                await asyncio.sleep(0.001)
            with pytest.raises(Internal, match="closed"):
                await store.commit(lambda tx: tx.put("x", "1", b"{}"))
    await asyncio.to_thread(closing.join)
