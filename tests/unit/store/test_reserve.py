"""Room that is set aside, given up when the disk is full, and taken again."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from estiba.model.errors import Internal
from estiba.store import EventBus, Store
from estiba.store.reserve import Reserve

WHOLE = 4 << 20


def test_it_is_given_in_pieces_and_filled_again(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    assert not reserve.give()
    reserve.fill()
    assert path.stat().st_size == WHOLE
    assert path.stat().st_blocks * 512 >= WHOLE
    assert Reserve(path).give()
    pieces = 0
    reserve = Reserve(path)
    while reserve.give():
        pieces += 1
    assert pieces == 15 and path.stat().st_size == 0
    reserve.fill()
    assert path.stat().st_size == WHOLE


def test_without_a_path_there_is_none() -> None:
    reserve = Reserve(None)
    reserve.fill()
    assert not reserve.give()


class Room(Reserve):
    """Each piece lets the database grow by eight pages, up to `pieces` times."""

    def __init__(self, connection: sqlite3.Connection, pieces: int) -> None:
        super().__init__(None)
        self._connection, self._pieces = connection, pieces
        self._pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {self._pages}")

    def give(self) -> bool:
        self._pieces -= 1
        self._pages += 8
        self._connection.execute(f"PRAGMA max_page_count = {self._pages}")
        return self._pieces >= 0


@pytest.mark.parametrize(("pieces", "works"), [(9, True), (1, False)])
async def test_a_write_is_tried_again(tmp_path: Path, pieces: int, works: bool) -> None:
    store = Store.open(tmp_path / "estiba.db", EventBus(asyncio.get_running_loop()))
    store._reserve = Room(store._connection, pieces)
    large = store.commit(lambda tx: tx.put("kind", "large", bytes(100_000)))
    if works:
        await large
    else:
        with pytest.raises(Internal, match="full"):
            await large
    assert len(store.load("kind")) == works
    store.close()
