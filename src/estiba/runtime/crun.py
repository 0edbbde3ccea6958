"""Two calls of crun that the engine can do itself, because a process for each costs 8 ms.

crun keeps `<root>/<id>/`: `exec.fifo` holds a created container back until somebody opens it,
`status` names its pid and cgroup. Both are read with suspicion: whenever anything is not as
expected, nothing is done and the caller runs crun.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.pidfd import ProcessIdentity, is_alive
from estiba.model.decoding import from_json

_NO_WAIT_S = 0.02


class _Status(msgspec.Struct, rename="kebab"):
    pid: int
    process_start_time: int
    cgroup_path: str


@dataclass(frozen=True, slots=True)
class CrunState:
    """What crun keeps under its root. All methods block for a moment only."""

    root: Path
    hierarchies: Hierarchies

    def release(self, container_id: str) -> bool:
        """Starts the program of a created container; False when crun must be asked."""
        fifo = self.root / container_id / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.unlink(fifo)
            return os.write(fd, b"0") == 1
        finally:
            os.close(fd)

    def discard(self, container_id: str) -> bool:
        """Removes state and cgroup of a container that has ended; False when crun must be."""
        folder = self.root / container_id
        try:
            status = from_json((folder / "status").read_bytes(), _Status)
        except FileNotFoundError:
            return not folder.exists()
        except (OSError, msgspec.DecodeError):
            return False
        if is_alive(ProcessIdentity(status.pid, status.process_start_time)):
            return False
        if container_id not in status.cgroup_path:
            return False
        with contextlib.suppress(OSError):
            self.hierarchies.remove(status.cgroup_path, patience_s=_NO_WAIT_S)
            shutil.rmtree(folder)
            return True
        return False
