"""Deletes links in the background.

The kernel takes about 30 ms to unregister a veth, most of it waiting for RCU grace periods;
no caller waits for that. Mostly the dying namespace takes its link along first.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading

from estiba.kernel import rtnetlink
from estiba.kernel.netlink import NetlinkError, NetlinkSocket

_log = logging.getLogger(__name__)


class Reaper:
    """One thread, started with the first link. Links are named by index: names come again."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def delete(self, index: int) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="link-reaper", daemon=True)
                self._thread.start()
            self._queue.put(index)

    def drain(self) -> None:
        """Waits until all links handed over so far are gone."""
        with self._lock:
            if self._thread is None:
                return
            done = threading.Event()
            self._queue.put(done)
        done.wait()

    def close(self) -> None:
        """Finishes the work under way and ends the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._queue.put(None)
        thread.join()

    def _run(self) -> None:
        with NetlinkSocket() as handle:
            while (item := self._queue.get()) is not None:
                if isinstance(item, threading.Event):
                    item.set()
                    continue
                try:
                    handle.execute(rtnetlink.delete_link(item))
                except NetlinkError as error:
                    if error.errno != errno.ENODEV:
                        _log.warning("cannot delete link %d: %s", item, error.strerror)
