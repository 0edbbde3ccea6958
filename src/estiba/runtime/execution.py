"""One more program in a running container.

`<runtime> exec` is a child of the engine and ends with the program's exit code; the program
itself holds the other ends of plain pipes, or a terminal, so no process stands between it and
the engine. A slow client holds back its own exec only. There is no monitor: when the engine
dies, an attached exec meets closed pipes, and a detached one runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.kernel import console, spawn
from estiba.kernel.cgroup_moves import expect_move
from estiba.kernel.pidfd import ProcessIdentity, identify, send_signal, wait_pidfd
from estiba.model.errors import EstibaError, FailedPrecondition
from estiba.runtime.bundle import Bundle
from estiba.runtime.failures import explain, read_message
from estiba.runtime.monitor import STDERR, STDOUT
from estiba.runtime.oci import OciRuntime
from estiba.runtime.streams import Input, Output

_PIPE_BYTES = 1 << 20
_AFTER_EXIT_S = 0.05
_PID_POLL_S = 0.005
_START_S = 5.0
"""By then a program has started. One that is the runtime itself cannot be told from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """`process` is the runtime-spec process object (`runtime.process.build_process`).

    A stream that is not asked for is /dev/null; with a terminal they are all one.
    """

    container_id: str
    exec_id: str
    bundle: Bundle
    runtime: OciRuntime
    process: dict[str, Any]
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True

    @property
    def program(self) -> str:
        return str(self.process["args"][0])

    @property
    def is_terminal(self) -> bool:
        return bool(self.process.get("terminal"))

    def file(self, suffix: str) -> Path:
        return self.bundle.exec_dir / f"{self.exec_id}.{suffix}"


class Execution:
    """A running exec: iterate it for (stream, bytes), await `wait`, then `close`.

    Owns the descriptors it is made with; `terminal` is a third one of the pty that `output` and
    `stdin` read and write. Nothing is read ahead of the iteration but what a pipe holds, so a
    program whose output nobody reads may never end.
    """

    def __init__(
        self,
        request: ExecRequest,
        child: spawn.Child,
        *,
        output: Output,
        stdin: Input | None,
        terminal: int | None = None,
    ) -> None:
        self._request = request
        self._child = child
        self._output = output
        self._stdin = stdin
        self._terminal = terminal
        self._identity: ProcessIdentity | None = None
        self._is_the_programs = False
        self._error: EstibaError | None = None
        self._exit = asyncio.create_task(self._watch(), name=f"exec {request.exec_id}")

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            has_ended = self._exit.done()
            patience_s = _AFTER_EXIT_S if has_ended else None
            chunks = await self._output.read(patience_s=patience_s)
            if chunks and await self._is_from_program():
                for chunk in chunks:
                    yield chunk
            if not chunks and (has_ended or self._output.is_finished):
                return

    async def _is_from_program(self) -> bool:
        """Whether output is the program's own: on the same stream the runtime says in its words
        why it could not start one, which `wait` raises in ours.
        """
        if not self._is_the_programs:
            with contextlib.suppress(EstibaError, TimeoutError):
                async with asyncio.timeout(_START_S):
                    await self.wait_started()
            self._is_the_programs = self._error is None
        return self._is_the_programs

    async def wait(self) -> int:
        """The program's exit code.

        Raises CommandNotFound, CommandNotExecutable, NotFound or Internal when the runtime
        could not start it. Cancelling it leaves the program running.
        """
        code = await asyncio.shield(self._exit)
        if self._error is not None:
            raise self._error
        return code

    async def write_stdin(self, data: bytes) -> None:
        """Waits while the program does not read; ignored when it reads no more."""
        if self._stdin is not None:
            await self._stdin.write(data)

    async def close_stdin(self) -> None:
        """End of input, once all that was written has been taken. A terminal has no such end."""
        if self._stdin is not None and not self._request.is_terminal:
            await self._stdin.finish()

    def resize(self, *, height: int, width: int) -> None:
        """Raises FailedPrecondition when the exec has no terminal or has ended."""
        if self._terminal is None:
            raise FailedPrecondition(f"exec {self._request.exec_id} has no open terminal")
        console.set_window_size(self._terminal, height=height, width=width)
        if not self._request.runtime.hands_over_terminals:
            self._child.send_signal(signal.SIGWINCH)

    def identity(self) -> ProcessIdentity | None:
        """The program's first process; None while the runtime is starting it or failed to."""
        if self._identity is None and not self._exit.done():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                self._identity = identify(int(self._request.file("pid").read_text()))
        return self._identity

    async def wait_started(self) -> None:
        """Waits until the program itself runs or has ended.

        Raises what `wait` raises when the runtime could not start it.
        """
        while not self._exit.done():
            identity = self.identity()
            if identity is not None and not self._request.runtime.is_executed_by(identity.pid):
                return
            await asyncio.wait([self._exit], timeout=_PID_POLL_S)
        await self.wait()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Signals the program, once the runtime has started it; harmless after its end."""
        while not self._exit.done():
            identity = self.identity()
            if identity is not None:
                with contextlib.suppress(ProcessLookupError):
                    send_signal(identity, number)
                return
            await asyncio.wait([self._exit], timeout=_PID_POLL_S)

    def close(self) -> None:
        """Closes this side: a program that goes on meets closed pipes, or its terminal hangs up."""
        if self._terminal is not None and not self._request.runtime.hands_over_terminals:
            # The program's own terminal belongs to the runtime, which does not pass it on.
            identity = self.identity()
            if identity is not None:
                with contextlib.suppress(ProcessLookupError):
                    send_signal(identity, signal.SIGHUP)
        self._output.close()
        if self._stdin is not None:
            self._stdin.close()
        self._close_terminal()

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    async def _watch(self) -> int:
        code = await self._child.wait()
        log = self._request.file("log")
        if code != 0:
            with contextlib.suppress(FileNotFoundError):
                message = read_message(log.read_bytes())
                if message:
                    error = explain(message, program=self._request.program, doing="exec")
                    self._error = error
        for suffix in ("json", "log", "pid"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._request.file(suffix))
        self._close_terminal()
        self._output.interrupt()
        return code if code >= 0 else 128 - code


async def start_exec(request: ExecRequest) -> Execution:
    """Starts the program. Whether the runtime could execute it is known from `wait`.

    Raises Unavailable when the runtime itself cannot be executed.
    """
    expect_move()
    request.bundle.exec_dir.mkdir(exist_ok=True, mode=0o700)
    request.file("json").write_bytes(msgspec.json.encode(request.process))
    if not request.is_terminal:
        return _start_with_pipes(request)
    if request.runtime.hands_over_terminals:
        return await _start_with_console_socket(request)
    return _start_behind_terminal(request)


def _start_with_pipes(request: ExecRequest) -> Execution:
    wanted = (request.stdin, request.stdout, request.stderr)
    child = _spawn(request, [spawn.PIPE if one else spawn.DEVNULL for one in wanted])
    stdin, stdout, stderr = child.take_pipes()
    for fd in (stdin, stdout):
        if fd is not None:
            # A wide pipe means few wake-ups. A user over the kernel's limit keeps 64 KiB.
            with contextlib.suppress(PermissionError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    outputs = {STDOUT: stdout, STDERR: stderr}
    return Execution(
        request,
        child,
        output=Output({stream: fd for stream, fd in outputs.items() if fd is not None}),
        stdin=None if stdin is None else Input(stdin),
    )


async def _start_with_console_socket(request: ExecRequest) -> Execution:
    """The runtime makes the terminal inside the container and hands it over."""
    with console.ConsoleSocket(request.bundle.exec_dir, request.exec_id) as listener:
        nothing = [spawn.DEVNULL] * 3
        child = _spawn(request, nothing, "--console-socket", listener.path)
        receive = asyncio.ensure_future(listener.receive())
        ended = asyncio.ensure_future(wait_pidfd(child.pidfd))
        given_up = True
        try:
            await asyncio.wait([receive, ended], return_when=asyncio.FIRST_COMPLETED)
            # A quick program has ended before its terminal was picked up.
            await asyncio.wait([receive], timeout=_AFTER_EXIT_S)
            given_up = False
        finally:
            receive.cancel()
            ended.cancel()
            results = await asyncio.gather(receive, ended, return_exceptions=True)
            if given_up:
                child.abandon()
                if isinstance(results[0], int):
                    os.close(results[0])
    if isinstance(results[0], int):
        return _with_terminal(request, child, results[0])
    return Execution(request, child, output=Output({}), stdin=None)


def _start_behind_terminal(request: ExecRequest) -> Execution:
    """The runtime copies between the terminal that it makes and this one."""
    master, slave = console.open_terminal()
    try:
        size = request.process.get("consoleSize")
        if size:
            console.set_window_size(master, height=size["height"], width=size["width"])
        child = _spawn(request, [slave, slave, slave])
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return _with_terminal(request, child, master)


def _with_terminal(request: ExecRequest, child: spawn.Child, terminal: int) -> Execution:
    """Owns the terminal. Raises OSError, and ends the program, when descriptors are short."""
    owned = [terminal]
    try:
        for _ in range(2 if request.stdin else 1):
            owned.append(os.dup(terminal))
    except OSError:
        for fd in owned:
            os.close(fd)
        child.abandon()
        raise
    return Execution(
        request,
        child,
        output=Output({STDOUT: terminal}),
        stdin=Input(owned[2]) if request.stdin else None,
        terminal=owned[1],
    )


def _spawn(request: ExecRequest, streams: list[int], *options: str) -> spawn.Child:
    files = ["--process", str(request.file("json")), "--pid-file", str(request.file("pid"))]
    words = ["exec", *files, *options, request.container_id]
    command = request.runtime.command(*words, log=request.file("log"))
    stdin, stdout, stderr = streams
    try:
        return spawn.start(command, stdin=stdin, stdout=stdout, stderr=stderr, new_session=True)
    except OSError as error:
        raise request.runtime.unusable(error) from error
