"""Clears away in the background what no caller should wait for.

The kernel takes about 30 ms to unregister a veth, most of it waiting for RCU grace periods, and
15 ms to walk the table of connections. Mostly a dying namespace takes its link along first.
"""

from __future__ import annotations

import errno
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Collection

from estiba.kernel import rtnetlink
from estiba.kernel.conntrack import forget_udp_flows
from estiba.kernel.netlink import NetlinkError, NetlinkSocket, Request
from estiba.model.errors import EstibaError

_log = logging.getLogger(__name__)

Job = Callable[[NetlinkSocket], object]


class Reaper:
    """One thread, started with the first job; jobs are done in order.

    Whoever drains waits for it: it ends with `close` and by nothing else.
    """

    def __init__(self) -> None:
        """Raises OSError. Later there may be no descriptor left."""
        self._handle = NetlinkSocket()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ports: set[int] = set()
        self._waiting: set[int] = set()
        self._doomed: set[int] = set()

    def delete_link(self, index: int) -> None:
        """By index: a name may soon be another link's.

        All that wait while one is deleted go at once then, for the price of one.
        """
        with self._lock:
            is_asked_for = bool(self._waiting)
            self._waiting.add(index)
            self._doomed.add(index)
        if not is_asked_for:
            self._add(self._delete_links)

    @property
    def doomed(self) -> frozenset[int]:
        """Links that are as good as gone."""
        with self._lock:
            return frozenset(self._doomed)

    def _delete_links(self, handle: NetlinkSocket) -> None:
        with self._lock:
            links, self._waiting = self._waiting, set()
        try:
            if len(links) == 1 or not _delete_together(handle, links):
                for index in links:
                    _forgiving(handle, rtnetlink.delete_link(index))
        finally:
            with self._lock:
                self._doomed -= links

    def then(self, job: Callable[[], object]) -> None:
        """Done when all jobs so far are."""
        self._add(lambda _: job())

    def forget_udp_flows(self, ports: Collection[int]) -> None:
        """For flows that began under other rules, which would go on to where those led.

        What is asked for while a walk is under way shares the next one.
        """
        with self._lock:
            is_asked_for = bool(self._ports)
            self._ports.update(ports)
        if ports and not is_asked_for:
            self._add(self._forget_flows)

    def _forget_flows(self, _: NetlinkSocket) -> None:
        with self._lock:
            ports, self._ports = self._ports, set()
        forget_udp_flows(ports)

    def drain(self) -> None:
        """Waits until all jobs so far are done."""
        if self._thread is not None:
            done = threading.Event()
            self._add(lambda _: done.set())
            done.wait()

    def close(self) -> None:
        """Finishes the jobs so far and ends the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()
        self._handle.close()

    def _add(self, job: Job) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job(self._handle)
            except (OSError, EstibaError) as error:
                _log.warning("cannot clear away: %s", error)
            except Exception:
                _log.exception("cannot clear away")


def _delete_together(handle: NetlinkSocket, links: Collection[int]) -> bool:
    """As a group, with a number that nobody else has; False when the kernel does not like it."""
    group = 1 << 30 | secrets.randbits(30)
    for index in links:
        _forgiving(handle, rtnetlink.set_link_group(index, group))
    try:
        _forgiving(handle, rtnetlink.delete_link_group(group))
    except NetlinkError:
        return False
    return True


def _forgiving(handle: NetlinkSocket, request: Request) -> None:
    """A link that is gone is no error: mostly a dying namespace has taken it along."""
    try:
        handle.execute(request)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
