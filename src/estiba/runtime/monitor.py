"""What watches a container: keeps its streams and log, and knows its exit code.

A monitor outlives the engine. `conmon.Conmon` is the one there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from estiba.kernel.pidfd import ProcessIdentity
from estiba.runtime.bundle import Bundle
from estiba.runtime.oci import OciRuntime

STDOUT = 1
STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRequest:
    """How to watch one run; the bundle is written and its root mounted.

    Without `open_stdin` the program reads /dev/null. With `stdin_once` the first attached
    client that closes its input or goes away ends the program's input. Without a `log_path`
    output goes to attached clients only.
    """

    container_id: str
    bundle: Bundle
    runtime: OciRuntime
    program: str
    log_path: Path | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True)
class Monitored:
    """A container in state created, and who watches it."""

    container: ProcessIdentity
    monitor: ProcessIdentity


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """`code` as a shell reports it. `is_lost`: the monitor died first, the code is a guess."""

    code: int
    oom_killed: bool = False
    is_lost: bool = False


class Attachment(Protocol):
    """The standard streams of one container; iterate for (stream, bytes) until its end.

    Whoever holds one must read it: a monitor waits for its slowest reader, and with it the
    container.
    """

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]: ...

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def close(self) -> None: ...


class Monitor(Protocol):
    async def start(self, request: MonitorRequest) -> Monitored:
        """Creates the container; `OciRuntime.start` then releases its program.

        Raises CommandNotFound, CommandNotExecutable, InvalidArgument or Internal; nothing of
        the monitor is left then.
        """

    async def wait_exit(
        self, container_id: str, bundle: Bundle, monitor: ProcessIdentity
    ) -> ExitStatus:
        """Waits until the run has ended, also one that an earlier engine started."""

    async def attach(self, bundle: Bundle, *, tty: bool) -> Attachment:
        """Connects to the streams. Raises FailedPrecondition when the monitor is gone."""

    async def resize(self, bundle: Bundle, *, height: int, width: int) -> None:
        """Sets the terminal's size. Raises FailedPrecondition when the monitor is gone."""

    async def reopen_log(self, bundle: Bundle) -> None:
        """Has the monitor open the log file anew, after its path was renamed."""
