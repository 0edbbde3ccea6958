"""Terminals: the socket on which a runtime hands over a pty, and the window's size.

runtime-spec leaves the protocol to runc: the runtime connects to `--console-socket` and sends
the pty's master side as SCM_RIGHTS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Self

from estiba.kernel.ready import wait_readable


def set_window_size(terminal: int, *, height: int, width: int) -> None:
    """TIOCSWINSZ: the kernel sends SIGWINCH to the foreground processes.

    Raises OSError when `terminal` is none.
    """
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def open_terminal() -> tuple[int, int]:
    """A new pty: the master side, non-blocking, and the slave side; both close-on-exec."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    return master, slave


class ConsoleSocket:
    """A listening socket for one terminal, in a directory that only root can enter."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._unlink()
            self._socket.bind(f"/proc/self/fd/{self._directory}/{name}")
            self._socket.listen(1)
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """The path for the runtime: through this process's descriptor, so 108 bytes suffice."""
        return f"/proc/{os.getpid()}/fd/{self._directory}/{self._name}"

    async def receive(self) -> int:
        """Waits for the terminal; its master side, non-blocking, is the caller's to close."""
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self._socket)
        with connection:
            await wait_readable(connection.fileno())
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        if not fds:
            raise OSError("the runtime sent no terminal")
        os.set_inheritable(fds[0], False)
        os.set_blocking(fds[0], False)
        return fds[0]

    def close(self) -> None:
        self._socket.close()
        self._unlink()
        os.close(self._directory)

    def _unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
