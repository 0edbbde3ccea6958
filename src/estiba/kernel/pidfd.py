"""Processes by pidfd (Linux 5.3): identity, waiting and signals without the race of reused pids.

Works for any process, not only children. Never reaps: that is the parent's part
(`kernel.spawn`).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from estiba.kernel.ready import wait_readable


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told from a later one with the same pid by its start time.

    `start_time` is field 22 of /proc/pid/stat: clock ticks since boot.
    """

    pid: int
    start_time: int


def identify(pid: int) -> ProcessIdentity:
    """The identity of the process that has `pid` now, a zombie included.

    Raises ProcessLookupError when there is none.
    """
    return ProcessIdentity(pid, _start_time(pid))


def open_pidfd(identity: ProcessIdentity) -> int:
    """A pidfd of exactly that process; the caller closes it.

    Raises ProcessLookupError when it is gone, even if its pid is in use again.
    """
    fd = os.pidfd_open(identity.pid)
    try:
        # Read after the open: the pidfd pins the pid's owner, so the start time is its own.
        if _start_time(identity.pid) != identity.start_time:
            raise ProcessLookupError(f"process {identity.pid} is another one by now")
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = _stat(identity.pid)
    except ProcessLookupError:
        return False
    return int(stat[19]) == identity.start_time and stat[0] not in ("Z", "X")


async def wait_exit(identity: ProcessIdentity) -> None:
    """Waits until the process has ended; returns at once when it is gone."""
    try:
        fd = open_pidfd(identity)
    except ProcessLookupError:
        return
    try:
        await wait_pidfd(fd)
    finally:
        os.close(fd)


async def wait_pidfd(fd: int) -> None:
    """Waits until the process behind `fd` has ended, reaped or not."""
    await wait_readable(fd)


def send_signal(identity: ProcessIdentity, number: int) -> None:
    """Signals exactly that process. Raises ProcessLookupError when it is gone."""
    fd = open_pidfd(identity)
    try:
        signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _start_time(pid: int) -> int:
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/pid/stat from the third on; the second may hold spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    return text[text.rindex(b")") + 2 :].decode().split()
