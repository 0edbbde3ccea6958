"""Ending blocking network calls from another thread.

Owns the set of what is under way; knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from estiba.model.errors import Cancelled


class CancelToken:
    """One a job. `cancel` may come from any thread, and ends reads and waits at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._enders: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Shuts down every connection in use. Twice is harmless."""
        with self._lock:
            self._event.set()
            for end in self._enders.values():
                end()

    def check(self) -> None:
        """Raises Cancelled after `cancel`."""
        if self._event.is_set():
            raise Cancelled("the transfer was cancelled")

    def wait(self, seconds: float) -> None:
        """Sleeps. Raises Cancelled as soon as `cancel` is called."""
        self._event.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def ending_with(self, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called by `cancel` while the block runs; it must neither block nor raise.

        Raises Cancelled when that was before.
        """
        handle = self.attach(end)
        try:
            yield
        finally:
            self.detach(handle)

    def attach(self, end: Callable[[], None]) -> object:
        """As `ending_with`, until `detach` of what this returns."""
        handle = object()
        with self._lock:
            self.check()
            self._enders[handle] = end
        return handle

    def detach(self, handle: object | None) -> None:
        """Once it returns, `end` is not running and will not run."""
        with self._lock:
            self._enders.pop(handle, None)
