"""The monitor made of conmon: one small C process a container.

conmon is a child of the engine in a session of its own (`--sync`: one fork less, and its
identity is known at once). When the engine dies it is adopted by init and goes on: it writes
the log, and at the end `<exit_dir>/<container id>` with the exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from estiba.kernel import spawn
from estiba.kernel.cgroup_moves import expect_move
from estiba.kernel.pidfd import ProcessIdentity, identify, wait_exit
from estiba.model.decoding import from_json
from estiba.model.errors import (
    DeadlineExceeded,
    EstibaError,
    FailedPrecondition,
    Internal,
    Unavailable,
)
from estiba.runtime.attachment import SocketAttachment
from estiba.runtime.bundle import Bundle
from estiba.runtime.failures import explain, read_message
from estiba.runtime.monitor import Attachment, ExitStatus, Monitored, MonitorRequest

_CREATE_TIMEOUT_S = 120.0
_LOST_CODE = 137
_RESIZE, _REOPEN_LOG = 1, 2
_MAX_SIDE = 1000  # conmon refuses larger terminals


class _Report(msgspec.Struct):
    """What conmon writes to the sync pipe: the container's pid, or -1 and a reason."""

    data: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Conmon:
    """`exit_dir` is short: conmon also makes its console sockets there (108 bytes at most)."""

    path: Path
    exit_dir: Path

    async def start(self, request: MonitorRequest) -> Monitored:
        expect_move()
        bundle = request.bundle
        bundle.clear_traces()
        self.forget(request.container_id)
        self.exit_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        request.runtime.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        try:
            try:
                child = spawn.start(
                    self._command(request),
                    stderr=spawn.PIPE,
                    env=self._environment(writer),
                    cwd=bundle.path,
                    pass_fds=[writer],
                    new_session=True,
                )
            except OSError as error:
                raise Unavailable(
                    f"cannot execute the monitor {self.path}: {error.strerror}: install conmon"
                ) from error
            finally:
                os.close(writer)
            monitor = child.identity()
            try:
                report = await self._report(request, reader)
                if report is None or report.data <= 0:
                    raise await self._failure(request, child, report)
                container = identify(report.data)
            except BaseException:
                child.abandon()
                raise
        finally:
            os.close(reader)
        child.let_go()
        return Monitored(container, monitor)

    async def wait_exit(
        self, container_id: str, bundle: Bundle, monitor: ProcessIdentity
    ) -> ExitStatus:
        await wait_exit(monitor)
        oom_killed = bundle.oom_mark.exists()
        try:
            code = int((self.exit_dir / container_id).read_text())
        except (FileNotFoundError, ValueError):
            return ExitStatus(_LOST_CODE, oom_killed, is_lost=True)
        return ExitStatus(code, oom_killed)

    def forget(self, container_id: str) -> None:
        """Removes the exit file, once its content is recorded; harmless twice."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.exit_dir / container_id)

    async def attach(self, bundle: Bundle, *, tty: bool) -> Attachment:
        return SocketAttachment(bundle.attach_socket)

    async def resize(self, bundle: Bundle, *, height: int, width: int) -> None:
        self._control(bundle, _RESIZE, min(height, _MAX_SIDE), min(width, _MAX_SIDE))

    async def reopen_log(self, bundle: Bundle) -> None:
        self._control(bundle, _REOPEN_LOG, 0, 0)

    @staticmethod
    def _control(bundle: Bundle, kind: int, height: int, width: int) -> None:
        try:
            fd = os.open(bundle.control_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            raise FailedPrecondition("the container's monitor is gone") from error
        try:
            os.write(fd, f"{kind} {height} {width}\n".encode())
        finally:
            os.close(fd)

    def _command(self, request: MonitorRequest) -> list[str]:
        bundle, container_id = request.bundle, request.container_id
        create, *options = request.runtime.command(log=bundle.runtime_log)
        log = f"k8s-file:{request.log_path}" if request.log_path else "none"
        command = [str(self.path), "--api-version", "1", "--sync", "--full-attach"]
        command += ["-c", container_id, "-u", container_id, "-n", container_id]
        command += ["-b", str(bundle.path), "-r", create]
        command += [f"--runtime-arg={option}" for option in options]
        command += ["-p", str(bundle.pid_file), "--exit-dir", str(self.exit_dir), "-l", log]
        # The log is no database: an fsync at the end would hold up the exit for nothing.
        command += ["--no-sync-log"]
        if request.tty:
            command.append("-t")
        if request.open_stdin:
            command.append("-i")
            if not request.stdin_once:
                command.append("--leave-stdin-open")
        return command

    def _environment(self, sync_pipe: int) -> dict[str, str]:
        """The log's time stamps are UTC; nothing of the engine's own environment gets in."""
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "TZ": "UTC",
            "TMPDIR": str(self.exit_dir),
            "_OCI_SYNCPIPE": str(sync_pipe),
        }

    @staticmethod
    async def _report(request: MonitorRequest, reader: int) -> _Report | None:
        try:
            async with asyncio.timeout(_CREATE_TIMEOUT_S):
                return await _read_report(reader)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{request.runtime.name} did not create the container within "
                f"{_CREATE_TIMEOUT_S:g} s: is the host or a file system of a mount too slow?"
            ) from error

    async def _failure(
        self, request: MonitorRequest, child: spawn.Child, report: _Report | None
    ) -> EstibaError:
        """Why there is no container: the runtime's log, its stderr, or conmon's own words."""
        try:
            message = read_message(request.bundle.runtime_log.read_bytes())
        except FileNotFoundError:
            message = ""
        if not message and report is not None:
            message = read_message(report.message.encode())
        if message:
            return explain(message, program=request.program)
        code = await child.wait()
        words = b""
        if child.stderr is not None:
            with contextlib.suppress(BlockingIOError):
                words = os.read(child.stderr, 4096)
        reason = words.decode(errors="replace").strip() or f"exit code {code}"
        return Internal(f"the monitor {self.path} failed: {reason}")


async def _read_report(fd: int) -> _Report | None:
    """The report line; None when conmon ended without one."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        data = os.read(fd, 65536)
        received.extend(data)
        if (not data or b"\n" in data) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, read)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    if not received.strip():
        return None
    return from_json(bytes(received), _Report)
