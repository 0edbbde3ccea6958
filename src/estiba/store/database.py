"""The state database: one writer thread, group commit, records that are wholly there or not.

Never holds a transaction over anything slow: a transaction function only touches SQLite.
Readers at start use `load`; afterwards each package keeps its records in memory and writes
through, so that no query stands on the path of a list or an inspect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from estiba.kernel import failpoint
from estiba.model.errors import AlreadyExists, DataLoss, Internal
from estiba.model.event import Event, EventType
from estiba.store.events import EventBus
from estiba.store.reserve import Reserve
from estiba.store.schema import MAX_EVENTS, migrate

T = TypeVar("T")

_MAX_GROUP = 64
_TRIM_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """One stored object; `body` is the owner's JSON."""

    id: str
    name: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Intent:
    """Work about to touch the kernel: what recovery finishes or undoes after a crash."""

    id: str
    kind: str
    object_id: str
    verb: str
    body: bytes = b"{}"


class Transaction:
    """What one unit of work may write; lives only inside the function given to `commit`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.events: list[Event] = []

    def put(self, kind: str, object_id: str, body: bytes, name: str | None = None) -> None:
        """Inserts or replaces a record.

        Raises AlreadyExists when another object of that kind bears the name.
        """
        try:
            self._connection.execute(
                "INSERT INTO records (kind, id, name, body) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET name = excluded.name, body = excluded.body",
                (kind, object_id, name, body),
            )
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"the {kind} name {name!r} is already in use") from error

    def delete(self, kind: str, object_id: str) -> None:
        """Deletes a record; one that is gone is no error."""
        self._connection.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, object_id))

    def add_intent(self, intent: Intent) -> None:
        """Notes work that begins; the same intent twice is noted once."""
        self._connection.execute(
            "INSERT OR REPLACE INTO intents (id, kind, object_id, verb, body)"
            " VALUES (?, ?, ?, ?, ?)",
            (intent.id, intent.kind, intent.object_id, intent.verb, intent.body),
        )

    def delete_intent(self, intent_id: str) -> None:
        """Notes that the work is over, in the commit that writes its result."""
        self._connection.execute("DELETE FROM intents WHERE id = ?", (intent_id,))

    def add_event(self, event: Event) -> None:
        """Adds an event row; it is published after the commit."""
        stamped = event if event.time_ns else replace(event, time_ns=time.time_ns())
        cursor = self._connection.execute(
            "INSERT INTO events (time_ns, type, action, actor_id, attributes)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                stamped.time_ns,
                stamped.type,
                stamped.action,
                stamped.actor_id,
                json.dumps(stamped.attributes),
            ),
        )
        self.events.append(replace(stamped, sequence=cursor.lastrowid or 0))


@dataclass(slots=True)
class _Job:
    function: Callable[[Transaction], Any]
    durable: bool
    future: Future[Any]


class Store:
    """The engine's only database. Open it with `Store.open`, end with `close`."""

    def __init__(self, path: Path, bus: EventBus, reserve: Reserve) -> None:
        self.path = path
        self.bus = bus
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._submitting = threading.Lock()
        """Held for the moment of handing a job over, so that none comes after the last."""
        self._is_closed = False
        self._reserve = reserve
        self._connection = _connect_somehow(path, self._reserve)
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)

    @classmethod
    def open(cls, path: Path, bus: EventBus, *, reserve: Path | None = None) -> Store:
        """Opens or creates the database at `path` and brings its schema up to date.

        `reserve` is a file that sets room aside for a full disk.

        Raises DataLoss when the file is damaged or newer than this engine.
        """
        try:
            store = cls(path, bus, Reserve(reserve))
        except sqlite3.DatabaseError as error:
            raise DataLoss(
                f"cannot open the state database {path}: {error}; "
                "restore it from a backup or move it away to start empty"
            ) from error
        store._thread.start()
        return store

    def close(self) -> None:
        """Finishes the writes under way; later ones fail with Internal."""
        with self._submitting:
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    async def commit(self, function: Callable[[Transaction], T], *, durable: bool = False) -> T:
        """Runs `function` in one transaction on the writer thread.

        With `durable` the commit has reached the disk on return; without, a power cut may
        take it back, a killed process may not. What `function` raises is raised here, and
        nothing of it is written.
        """
        return await asyncio.wrap_future(self._submit(function, durable))

    def commit_blocking(self, function: Callable[[Transaction], T], *, durable: bool = False) -> T:
        """`commit` for threads other than the event loop's."""
        return self._submit(function, durable).result()

    def start_commit(self, function: Callable[[Transaction], object]) -> None:
        """`commit` that nobody waits for: what a crash or a closed database may lose."""
        with contextlib.suppress(Internal):
            self._submit(function, durable=False)

    def _submit(self, function: Callable[[Transaction], T], durable: bool) -> Future[T]:
        future: Future[T] = Future()
        with self._submitting:
            if self._is_closed:
                raise Internal("the state database is closed")
            self._jobs.put(_Job(function, durable, future))
        return future

    def load(self, kind: str) -> list[Record]:
        """All records of `kind`, by id. Blocks."""
        return self.commit_blocking(
            lambda tx: [
                Record(*row)
                for row in tx._connection.execute(
                    "SELECT id, name, body FROM records WHERE kind = ? ORDER BY id", (kind,)
                )
            ]
        )

    def intents(self, kind: str) -> list[Intent]:
        """The intents of `kind` that a crash left open, oldest first. Blocks."""
        return self.commit_blocking(
            lambda tx: [
                Intent(*row)
                for row in tx._connection.execute(
                    "SELECT id, kind, object_id, verb, body FROM intents WHERE kind = ?"
                    " ORDER BY rowid",
                    (kind,),
                )
            ]
        )

    async def events_since(self, since_ns: int, until_ns: int | None) -> list[Event]:
        """Event rows in [since_ns, until_ns], oldest first."""
        last = until_ns if until_ns is not None else 2**63 - 1
        return await self.commit(
            lambda tx: [
                Event(EventType(row[0]), row[1], row[2], json.loads(row[3]), row[4], row[5])
                for row in tx._connection.execute(
                    "SELECT type, action, actor_id, attributes, time_ns, sequence FROM events"
                    " WHERE time_ns BETWEEN ? AND ? ORDER BY sequence",
                    (since_ns, last),
                )
            ]
        )

    def _write_loop(self) -> None:
        while True:
            first = self._jobs.get()
            if first is None:
                return
            group = [first]
            stop = False
            while len(group) < _MAX_GROUP and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    stop = True
                    break
                group.append(job)
            while not self._run_group(group):
                pass
            self._reserve.fill()
            if stop:
                return

    def _run_group(self, group: list[_Job]) -> bool:
        """One SQLite transaction for all jobs that wait, a savepoint for each.

        Group commit: with FULL a commit costs one flush of the disk, whatever it carries.
        False says that the disk is full, and that there is a little more room now.
        """
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        events: list[Event] = []
        level = "FULL" if any(job.durable for job in group) else "NORMAL"
        try:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._connection.execute("BEGIN IMMEDIATE")
            for job in group:
                outcomes.append(self._run_job(job, events))
            _trim(self._connection, events)
            failpoint.hit("store.before-commit")
            self._connection.execute("COMMIT")
            failpoint.hit("store.after-commit")
        except (sqlite3.Error, OSError) as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if _is_full(error) and self._reserve.give():
                return False
            failure = Internal(f"cannot write the state database {self.path}: {error}")
            for job in group:
                _answer(job, None, failure)
            return True
        if events:
            self.bus.publish(events)
        for job, result, problem in outcomes:
            _answer(job, result, problem)
        return True

    def _run_job(self, job: _Job, events: list[Event]) -> tuple[_Job, Any, BaseException | None]:
        transaction = Transaction(self._connection)
        self._connection.execute("SAVEPOINT job")
        try:
            result = job.function(transaction)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not self._connection.in_transaction:
                raise  # a full disk: SQLite has undone the whole transaction by itself
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return job, None, error
        self._connection.execute("RELEASE job")
        events.extend(transaction.events)
        return job, result, None


def _answer(job: _Job, result: Any, problem: BaseException | None) -> None:
    """Hands the outcome to whoever waits; a caller that was cancelled does not."""
    if not job.future.set_running_or_notify_cancel():
        return
    if problem is not None:
        job.future.set_exception(problem)
    else:
        job.future.set_result(result)


def _is_full(error: Exception) -> bool:
    """The second: the index of the log, which lies in shared memory, has no room to grow."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def _connect_somehow(path: Path, reserve: Reserve) -> sqlite3.Connection:
    """`_connect`, with room from the reserve if the disk is full."""
    while True:
        try:
            connection = _connect(path)
        except sqlite3.Error as error:
            if not (_is_full(error) and reserve.give()):
                raise
        else:
            reserve.fill()
            return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if os.statvfs(path.parent).f_bsize < mmap.PAGESIZE:
            # SQLite sees to it that each page of the log's index has one byte on the disk, which
            # here is a part of the page: on a full disk a write to the rest would be a SIGBUS.
            # Exclusive, it has the index in memory; nobody else reads the database then.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 1000")
        connection.execute("PRAGMA journal_size_limit = 8388608")
        path.chmod(0o600)
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _trim(connection: sqlite3.Connection, events: list[Event]) -> None:
    if events and events[-1].sequence // _TRIM_EVERY != (events[0].sequence - 1) // _TRIM_EVERY:
        connection.execute(
            "DELETE FROM events WHERE sequence <= ?", (events[-1].sequence - MAX_EVENTS,)
        )
