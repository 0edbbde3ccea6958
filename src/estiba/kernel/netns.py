"""Network namespaces that live as files: bind mounts of a thread's namespace (nsfs).

A namespace is only ever entered by a thread made for that call, which ends with it: a thread
of a pool that failed to return would poison whoever runs on it next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from estiba.kernel.libc import check, libc
from estiba.kernel.mounts import MountFlag, mount, unmount
from estiba.kernel.netlink import NETLINK_ROUTE, NetlinkSocket

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_PAUSE_S = 0.01


def ensure_netns(path: Path, prepare: Callable[[], None] | None = None) -> None:
    """A new namespace at `path`, with `prepare` run inside it; one that is there stays.

    What `prepare` raises is raised here, and nothing is left at `path` then.
    """
    if is_netns(path):
        return
    path.touch(mode=0o400)

    def make() -> None:
        check(libc.unshare(_CLONE_NEWNET), "unshare the network namespace")
        if prepare is not None:
            prepare()
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        mount(own, path, "", MountFlag.BIND)

    try:
        _in_new_thread(make)
    except BaseException:
        remove_netns(path)
        raise


def remove_netns(path: Path) -> None:
    """Takes the file away; the kernel ends the namespace when its last process has.

    One that is gone is no error.
    """
    unmount(path)
    path.unlink(missing_ok=True)


def is_netns(path: Path) -> bool:
    """Whether a namespace is mounted there: a file that a crash left behind is empty."""
    try:
        return path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False


def run_in_netns(path: Path, function: Callable[[], T]) -> T:
    """What `function` returns or raises when it runs inside the namespace at `path`."""

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check(libc.setns(fd, _CLONE_NEWNET), f"enter the network namespace {path}")
        finally:
            os.close(fd)
        return function()

    return _in_new_thread(enter)


def open_netlink(path: Path, protocol: int = NETLINK_ROUTE) -> NetlinkSocket:
    """A netlink socket that belongs to the namespace at `path`, for use from any thread."""
    return run_in_netns(path, lambda: NetlinkSocket(protocol))


@contextlib.contextmanager
def alone_in_netns(patience_s: float) -> Iterator[bool]:
    """Alone with the caller's namespace among all processes, and threads, that ask for that.

    After `patience_s` it goes on all the same, and False tells so: whoever holds it may have been
    stopped. The lock is one of flock(2) on the namespace itself; a process that dies lets go.
    """
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _is_locked(fd, time.monotonic() + patience_s)
    finally:
        os.close(fd)


def _is_locked(fd: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True


class NamespaceThread:
    """Makes sockets in other namespaces, for the one thread that owns it and does nothing else
    that depends on its namespace.

    A thread for each socket would cost ten times as much. Each call comes back to the namespace
    in which this was made, and the next call begins from wherever it finds itself: a way back
    that failed harms no later socket.
    """

    def __init__(self) -> None:
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        self._home = os.open(own, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._home)

    def at_home(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises in the namespace of the beginning."""
        self._return()
        return function()

    def inside(self, path: Path, function: Callable[[], T]) -> T:
        """What `function` returns or raises in the namespace at `path`. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check(libc.setns(fd, _CLONE_NEWNET), f"enter the network namespace {path}")
        finally:
            os.close(fd)
        try:
            return function()
        finally:
            self._return()

    def _return(self) -> None:
        check(libc.setns(self._home, _CLONE_NEWNET), "return to the own network namespace")


def _in_new_thread(function: Callable[[], T]) -> T:
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
