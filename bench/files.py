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

MEGABYTES = 512
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


WORKS: dict[str, tuple[Callable[[], None], int]] = {
    "write": (write, 2),
    "read": (read, 6),
    "small": (small, 6),
}
"""What is done, and how often: the best time counts, whatever else runs on the host."""


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    chosen, times = WORKS[sys.argv[1]]
    join(int(sys.argv[2]))
    os.chdir(sys.argv[3])
    if chosen is read and not os.path.exists("big"):
        write()
    print(min(seconds(chosen) for _ in range(times)))
