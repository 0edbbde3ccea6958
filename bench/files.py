"""A program that works on files as a container sees them: it joins a mount namespace.

files.py write|read|small PID DIRECTORY      prints seconds
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable

MEGABYTES = 256
FILES = 500

_CHUNK = bytes(1 << 20)
_CLONE_NEWNS = 0x20000


def join(pid: int) -> None:
    """Its root directory too. One's parent is in one's own namespace already."""
    if pid == os.getppid():
        return
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)


def write() -> None:
    with open("big", "wb", buffering=0) as file:
        for _ in range(MEGABYTES):
            file.write(_CHUNK)
        os.fsync(file.fileno())


def read() -> None:
    buffer = bytearray(len(_CHUNK))
    with open("big", "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def small() -> None:
    """In a directory of its own each time; what is deleted would slow down who comes next."""
    data = bytes(1000)
    place = tempfile.mkdtemp(dir=".")
    for number in range(FILES):
        with open(f"{place}/{number}", "wb", buffering=0) as file:
            file.write(data)
    for _ in range(3):
        for number in range(FILES):
            with open(f"{place}/{number}", "rb", buffering=0) as file:
                file.read()
        for name in os.listdir(place):
            os.stat(f"{place}/{name}")


WORKS: dict[str, tuple[Callable[[], None], Callable[[], float], int]] = {
    "write": (write, time.perf_counter, 4),
    "read": (read, time.process_time, 6),
    "small": (small, time.process_time, 6),
}
"""What is done, by which clock and how often: the best time counts. What waits for no disk is
counted in the processor's time, so that other work on the host does not count."""


def seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


if __name__ == "__main__":
    chosen, clock, times = WORKS[sys.argv[1]]
    join(int(sys.argv[2]))
    os.chdir(sys.argv[3])
    if chosen is read and not os.path.exists("big"):
        write()
    print(min(seconds(chosen, clock) for _ in range(times)))
