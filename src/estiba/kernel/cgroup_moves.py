"""The wait before a process can move to another cgroup, begun early.

A move takes `cgroup_threadgroup_rwsem` for writing. Readers, which are all forks and exits,
pass that lock without touching shared memory until a writer comes; so the first writer waits
for an RCU grace period, 10 to 25 ms on an idle machine, and those that follow soon do not.
The OCI runtime is such a writer. Whoever is about to start it calls `expect_move`: this
process moves to where it is already, which changes nothing, and the grace period passes while
the runtime still loads its libraries.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from estiba.kernel.blocking import start_blocking
from estiba.kernel.cgroup import Hierarchies

_under_way = threading.Lock()


def expect_move() -> None:
    """Returns at once; call it from the event loop. What cannot be hastened is left slow."""
    start_blocking(_move_nowhere)


def _move_nowhere() -> None:
    if not _under_way.acquire(blocking=False):
        return
    try:
        with contextlib.suppress(OSError):
            (_own_group() / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        _under_way.release()


@cache
def _mounts() -> Mapping[str, Path]:
    return Hierarchies.detect().mounts


def _own_group() -> Path:
    """This process's group of this moment in any one hierarchy. Raises FileNotFoundError."""
    mounts = _mounts()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                return mounts[name] / path.lstrip("/")
    raise FileNotFoundError("no cgroup hierarchy is mounted")
