"""Processes by pidfd (Linux 5.3): identity, waiting and signals without the race of reused pids.

Works for any process, not only children. Never reaps: that is the parent's part
(`kernel.spawn`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
from dataclasses import dataclass

# ioctl(2) on a pidfd: _IOWR(0xFF, 11, struct pidfd_info), the 64 bytes of its first version.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO = struct.Struct("QQ11Ii")
_PIDFD_INFO_EXIT = 1 << 3
_REAP_POLL_S = 0.002


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
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.remove_reader(fd)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ended
    finally:
        loop.remove_reader(fd)


def send_signal(identity: ProcessIdentity, number: int) -> None:
    """Signals exactly that process. Raises ProcessLookupError when it is gone."""
    fd = open_pidfd(identity)
    try:
        signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def can_read_exit_code() -> bool:
    """Whether the kernel tells the exit code of a process that is not a child (Linux 6.15)."""
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1].partition("-")[0])) >= (6, 15)


async def wait_exit_code(fd: int) -> int:
    """Waits for the end of the process behind `fd`, not a child; its wait status.

    The kernel knows it from the moment when its parent has reaped it. Needs
    `can_read_exit_code`; raises OSError otherwise.
    """
    await wait_pidfd(fd)
    while True:
        request = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
        fcntl.ioctl(fd, _PIDFD_GET_INFO, request)
        values = _PIDFD_INFO.unpack(request)
        if values[0] & _PIDFD_INFO_EXIT:
            return int(values[-1])
        await asyncio.sleep(_REAP_POLL_S)


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
