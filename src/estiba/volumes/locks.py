"""A lock for each name, for as long as somebody holds it or waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class NamedLocks:
    """Names come and go, anonymous volumes by the thousand: a lock that nobody wants goes too."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._wanted: dict[str, int] = {}

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Not to be entered twice by one thread."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name], self._locks[name]

    def __len__(self) -> int:
        return len(self._locks)
