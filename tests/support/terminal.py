"""A program under a pseudo-terminal: what is typed, and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping

DEADLINE_S = 30.0


class Terminal:
    """Ends the program when the block does."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        *,
        rows: int = 30,
        columns: int = 100,
    ) -> None:
        self.seen = b""
        self._mark = 0
        self._code: int | None = None
        self._is_gone = False
        self._child, self._master = pty.fork()
        if self._child == 0:
            # The size is there before the program asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], command, dict(environment))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        if not self._is_gone:
            os.close(self._master)

    def type(self, text: str | bytes) -> None:
        """What is shown from now on is what `wait_for` looks at."""
        self._mark = len(self.seen)
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes) -> None:
        """Fails with what was shown instead."""
        end = time.monotonic() + DEADLINE_S
        while text not in self.seen[self._mark :]:
            assert self._read(end), f"{text!r} was not shown: {self.seen[self._mark :]!r}"

    def hang_up(self) -> int:
        """The terminal goes away; the exit code of the program that hears of it."""
        os.close(self._master)
        self._is_gone = True
        end = time.monotonic() + DEADLINE_S
        while (found := os.waitpid(self._child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < end, "the program goes on without its terminal"
            time.sleep(0.02)
        self._code = os.waitstatus_to_exitcode(found[1])
        return self._code

    def wait(self) -> int:
        """The program's exit code; negative for a signal."""
        end = time.monotonic() + DEADLINE_S
        while self._read(end):
            continue
        assert time.monotonic() < end, f"the program goes on: {self.seen[-500:]!r}"
        self._code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return self._code

    def _read(self, end: float) -> bool:
        """False when the program has ended, or time has."""
        if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        # Without bells: shells ring them where they like.
        self.seen += data.replace(b"\a", b"")
        return bool(data)
