"""A program that works on files as a container sees them: it joins a mount namespace.

files.py write|read|small PID DIRECTORY      prints seconds
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable

MEGABYTES = 512
FILES = 5000

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
    """Twice, so that the second time all is cached: that one counts for most."""
    buffer = bytearray(len(_CHUNK))
    for _ in range(2):
        with open("big", "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def small() -> None:
    data = bytes(1000)
    for number in range(FILES):
        with open(f"small{number}", "wb", buffering=0) as file:
            file.write(data)
    for number in range(FILES):
        with open(f"small{number}", "rb", buffering=0) as file:
            file.read()
    for number in range(FILES):
        os.unlink(f"small{number}")


WORKS: dict[str, Callable[[], None]] = {"write": write, "read": read, "small": small}


if __name__ == "__main__":
    work = WORKS[sys.argv[1]]
    join(int(sys.argv[2]))
    os.chdir(sys.argv[3])
    if sys.argv[1] == "read" and not os.path.exists("big"):
        write()
    started = time.perf_counter()
    work()
    print(time.perf_counter() - started)
