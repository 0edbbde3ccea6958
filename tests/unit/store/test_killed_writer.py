"""A process that is killed around a commit leaves each change wholly there or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from estiba.model.event import EventType
from estiba.store import EventBus, Intent, Store

_CHANGES = 6

_WRITER = f"""
import sys
from pathlib import Path
from estiba.model.event import Event, EventType
from estiba.store import EventBus, Intent, Store

store = Store.open(Path(sys.argv[1]), EventBus())

def begin(number):
    def write(tx):
        tx.add_intent(Intent(f"intent {{number}}", "container", str(number), "create"))
    store.commit_blocking(write)

def finish(number):
    def write(tx):
        tx.put("container", str(number), b"{{}}", f"name{{number}}")
        tx.add_event(Event(EventType.CONTAINER, "create", str(number)))
        tx.delete_intent(f"intent {{number}}")
    store.commit_blocking(write, durable=number % 2 == 0)

for number in range({_CHANGES}):
    begin(number)
    finish(number)
    print(number, flush=True)
store.close()
"""


@pytest.mark.parametrize("point", ["store.before-commit", "store.after-commit"])
@pytest.mark.parametrize("hit", [1, 2, 3, 4, 2 * _CHANGES - 1, 2 * _CHANGES])
async def test_kill_9_around_a_commit(tmp_path: Path, point: str, hit: int) -> None:
    path = tmp_path / "estiba.db"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _WRITER, str(path)],
        env={**os.environ, "ESTIBA_FAILPOINTS": f"{point}#{hit}=kill"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr

    store = Store.open(path, EventBus())
    try:
        written = hit if point == "store.after-commit" else hit - 1
        begun, finished = (written + 1) // 2, written // 2
        assert len(ended.stdout.split()) <= finished, "a change was acknowledged and is lost"
        assert [row.id for row in store.load("container")] == [str(n) for n in range(finished)]
        rows = await store.events_since(0, None)
        assert [(row.type, row.actor_id) for row in rows] == [
            (EventType.CONTAINER, str(n)) for n in range(finished)
        ]
        assert store.intents("container") == [
            Intent(f"intent {n}", "container", str(n), "create") for n in range(finished, begun)
        ]
        check = await store.commit(
            lambda tx: tx._connection.execute("PRAGMA integrity_check").fetchone()
        )
        assert check == ("ok",)
        await store.commit(lambda tx: tx.put("container", "next", b"{}", "free"))
    finally:
        store.close()
