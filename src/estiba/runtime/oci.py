"""An OCI runtime (crun, runc, or any that speaks runc's command line), one call a method.

`create` is not here: the monitor runs it, because the container must be the monitor's child.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.kernel import spawn
from estiba.kernel.blocking import run_blocking
from estiba.model.errors import DeadlineExceeded, EstibaError, NotFound, Unavailable
from estiba.runtime.crun import CrunState
from estiba.runtime.failures import explain, read_message

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """`root` is the runtime's own state directory, one for each engine and runtime."""

    name: str
    path: Path
    root: Path
    args: Sequence[str] = ()
    shortcut: CrunState | None = None
    """What can be done without a process of the runtime, if it is crun."""

    @property
    def hands_over_terminals(self) -> bool:
        """Whether `exec --console-socket` works without `--detach`; runc refuses that."""
        return self.path.name == "crun"

    def is_executed_by(self, pid: int) -> bool:
        """Whether the process is still the runtime, or its copy of itself in memory."""
        link = f"/proc/{pid}/exe"
        try:
            return os.readlink(link).startswith("/memfd:") or os.path.samefile(link, self.path)
        except OSError:
            return False

    def command(self, *words: str, log: Path | None = None) -> list[str]:
        """A whole command line; with `log` errors go there, else to stderr, as JSON lines."""
        destination = ["--log", str(log)] if log else []
        options = ["--root", str(self.root), "--log-format", "json", *destination, *self.args]
        return [str(self.path), *options, *words]

    async def start(self, container_id: str, *, program: str = "") -> None:
        """Releases the program of a created container.

        Raises CommandNotFound or CommandNotExecutable when `program` is to blame.
        """
        if self.shortcut is None or not self.shortcut.release(container_id):
            await self._call(["start", container_id], program=program)

    async def kill(self, container_id: str, signal: int, *, everything: bool = False) -> None:
        """Signals the first process, or all. Raises NotFound or FailedPrecondition."""
        flags = ["--all"] if everything else []
        await self._call(["kill", *flags, container_id, str(signal)])

    async def delete(self, container_id: str, *, force: bool = False) -> None:
        """Removes the container's runtime state and cgroup; harmless when it is gone.

        With `force` its processes are killed first. Raises FailedPrecondition while it runs.
        """
        if self.shortcut is not None and await run_blocking(self.shortcut.discard, container_id):
            return
        flags = ["--force"] if force else []
        try:
            await self._call(["delete", *flags, container_id])
        except NotFound:
            return

    async def pause(self, container_id: str) -> None:
        await self._call(["pause", container_id])

    async def resume(self, container_id: str) -> None:
        await self._call(["resume", container_id])

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Changes the limits of a running container; `resources` as in runtime-spec linux."""
        body = msgspec.json.encode(resources)
        await self._call(["update", "--resources", "-", container_id], stdin=body)

    async def state(self, container_id: str) -> str:
        """creating, created, running, paused or stopped. Raises NotFound."""
        done = await self._call(["state", container_id])
        return str(msgspec.json.decode(done.stdout)["status"])

    def unusable(self, error: OSError) -> Unavailable:
        return Unavailable(f"cannot execute the runtime {self.path}: {error.strerror}: install it")

    async def _call(
        self, words: list[str], *, stdin: bytes | None = None, program: str = ""
    ) -> spawn.Completed:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            done = await spawn.run(self.command(*words), stdin=stdin, timeout_s=_TIMEOUT_S)
        except TimeoutError as error:  # an OSError too
            raise DeadlineExceeded(
                f"{self.name} {words[0]} did not end within {_TIMEOUT_S:g} s: a process of the "
                "container may hang in the kernel; see `ps` for state D on the host"
            ) from error
        except OSError as error:
            raise self.unusable(error) from error
        if done.returncode != 0:
            raise self._failure(words[0], done, program)
        return done

    @staticmethod
    def _failure(verb: str, done: spawn.Completed, program: str) -> EstibaError:
        message = read_message(done.stderr) or f"exit code {done.returncode}"
        return explain(message, program=program, doing=verb)
