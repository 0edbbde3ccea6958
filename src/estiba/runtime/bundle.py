"""One run's directory: the OCI bundle, and what monitor and runtime leave beside it.

config.json   the runtime-spec                 rootfs/   the mounted root
attach        conmon's attach socket           ctl       conmon's control fifo
runtime.log   why the runtime failed           pid       the container's first process
oom           exists once the kernel killed a process for memory
exec/         process specs and pid files of execs
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.kernel.files import write_atomic


@dataclass(frozen=True, slots=True)
class Bundle:
    """The paths of one bundle; `path` is the directory."""

    path: Path

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def runtime_log(self) -> Path:
        return self.path / "runtime.log"

    @property
    def pid_file(self) -> Path:
        return self.path / "pid"

    @property
    def attach_socket(self) -> Path:
        return self.path / "attach"

    @property
    def control_fifo(self) -> Path:
        return self.path / "ctl"

    @property
    def oom_mark(self) -> Path:
        return self.path / "oom"

    @property
    def exec_dir(self) -> Path:
        return self.path / "exec"

    def write(self, spec: dict[str, Any]) -> None:
        """Makes the directory and its config.json; a run does not outlive a power cut."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.rootfs.mkdir(exist_ok=True)
        write_atomic(self.path / "config.json", msgspec.json.encode(spec), durable=False)

    def clear_traces(self) -> None:
        """Removes what an earlier run with the same id left."""
        for path in (self.runtime_log, self.pid_file, self.oom_mark):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
