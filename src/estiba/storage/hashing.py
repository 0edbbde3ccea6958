"""A digest that grows beside the work on what it is of."""

from __future__ import annotations

import hashlib
import queue
import threading

_DEPTH = 4
_BATCH_BYTES = 1 << 20
_AT_ONCE_BYTES = 4 << 20
"""So much is hashed where it comes: a thread would take longer."""


class Hashing:
    """As `hashlib` has it; large data is hashed by a thread, which `close` ends in any case.

    Pieces are handed over many at a time: each hand-over makes two threads wait for the
    interpreter's lock.
    """

    def __init__(self, algorithm: str = "sha256") -> None:
        self.size = 0
        self._digest = hashlib.new(algorithm)
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._waiting: queue.Queue[list[bytes]] = queue.Queue(_DEPTH)
        self._thread: threading.Thread | None = None

    def update(self, piece: bytes, /, *, is_awaited: bool = True) -> None:
        """May wait until what came before is hashed.

        A caller whom nobody awaits hashes it itself, unless that would break the order.
        """
        self.size += len(piece)
        if not is_awaited and not self._batch and not self._waiting.unfinished_tasks:
            self._digest.update(piece)
            return
        self._batch.append(piece)
        self._batch_bytes += len(piece)
        if self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if self._thread is None and self.size > _AT_ONCE_BYTES:
            self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
            self._thread.start()
        if self._thread is None:
            self._hash(batch)
        elif batch:
            self._waiting.put(batch)

    def _run(self) -> None:
        while batch := self._waiting.get():
            self._hash(batch)
            self._waiting.task_done()

    def _hash(self, batch: list[bytes]) -> None:
        for piece in batch:
            self._digest.update(piece)

    def hexdigest(self) -> str:
        """Of everything until now."""
        self._hand_over()
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Twice is harmless."""
        if self._thread is not None:
            self._waiting.put([])
            self._thread.join()
            self._waiting.task_done()
            self._thread = None
