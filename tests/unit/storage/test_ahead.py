"""Pieces that a thread makes: all of them, their error, and an end with whoever reads them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from estiba.storage.ahead import ahead


def test_all_pieces_in_their_order() -> None:
    pieces = [bytes([number]) * 3 for number in range(100)]
    assert list(ahead(iter(pieces))) == pieces


def test_an_error_comes_after_what_was_made() -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("no more")

    read = ahead(broken())
    assert next(read) == b"one"
    with pytest.raises(ValueError, match="no more"):
        next(read)


def test_a_reader_that_leaves_ends_the_thread_and_closes_the_pieces() -> None:
    closed = threading.Event()
    before = set(threading.enumerate())

    def endless() -> Iterator[bytes]:
        with contextlib.ExitStack() as stack:
            stack.callback(closed.set)
            while True:
                yield b"more"

    read = ahead(endless())
    assert next(read) == b"more"
    read.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert set(threading.enumerate()) <= before
