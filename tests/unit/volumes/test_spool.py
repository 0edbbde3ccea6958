"""What waits on the disk for its reader."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from estiba.volumes.spool import Spool

PIECES = [b"secret" * 1000, b"", b"x", b"more secrets" * 200_000]


def open_fds() -> set[str]:
    """Without the one that lists them."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def generator(pieces: list[bytes], closed: list[bool]) -> Generator[bytes, None, None]:
    try:
        yield from pieces
    finally:
        closed.append(True)


def test_what_went_in_comes_out_and_is_unreadable_on_the_disk(tmp_path: Path) -> None:
    before = open_fds()
    spool, closed = Spool(tmp_path), [False]
    assert list(spool.fill(generator(PIECES, closed))) == PIECES
    assert closed[-1]
    (fd,) = open_fds() - before
    kept = Path(f"/proc/self/fd/{fd}").read_bytes()
    assert len(kept) == sum(map(len, PIECES))
    assert b"secret" not in kept
    assert list(tmp_path.iterdir()) == []
    assert b"".join(spool.pieces()) == b"".join(PIECES)
    spool.close()
    assert open_fds() == before


def test_a_source_that_is_left_is_closed(tmp_path: Path) -> None:
    spool, closed = Spool(tmp_path), [False]
    filling = spool.fill(generator(PIECES, closed))
    assert next(filling) == PIECES[0]
    assert isinstance(filling, Generator)
    filling.close()
    assert closed[-1]
    spool.close()


def test_no_two_are_under_one_key(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        spool = Spool(tmp_path)
        for _ in spool.fill(generator([bytes(64)], [])):
            pass
        kept.append(os.pread(spool._file.fileno(), 64, 0))
        spool.close()
    assert kept[0] != kept[1]


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(tmp_path / "none")
