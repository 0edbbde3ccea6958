"""Digests of little and of much, and the end of the thread in any case."""

from __future__ import annotations

import hashlib
import threading

import pytest

from estiba.storage.hashing import Hashing


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(("pieces", "size"), [(0, 0), (3, 5), (9, 1 << 20), (4000, 3000)])
def test_it_is_the_digest_of_all_pieces(algorithm: str, pieces: int, size: int) -> None:
    hashing, plain = Hashing(algorithm), hashlib.new(algorithm)
    for number in range(pieces):
        piece = bytes([number % 256]) * size
        hashing.update(piece)
        plain.update(piece)
    assert hashing.size == pieces * size
    assert hashing.hexdigest() == plain.hexdigest()
    assert hashing.hexdigest() == plain.hexdigest()


def test_more_may_follow_after_a_look() -> None:
    hashing, piece = Hashing(), bytes(6 << 20)
    hashing.update(piece)
    assert hashing.hexdigest() == hashlib.sha256(piece).hexdigest()
    hashing.update(piece)
    assert hashing.hexdigest() == hashlib.sha256(piece * 2).hexdigest()


def test_the_order_is_kept_whoever_hashes() -> None:
    hashing, plain = Hashing(), hashlib.sha256()
    for number in range(3000):
        piece = number.to_bytes(4, "big") * 5000
        hashing.update(piece, is_awaited=number % 7 < 3)
        plain.update(piece)
    assert hashing.hexdigest() == plain.hexdigest()


def test_close_ends_its_thread() -> None:
    before = set(threading.enumerate())
    hashing = Hashing()
    for _ in range(20):
        hashing.update(bytes(1 << 20))
    hashing.close()
    hashing.close()
    assert set(threading.enumerate()) <= before
