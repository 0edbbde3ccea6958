"""Waiting until something changes in directories (inotify(7)), from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Self

from estiba.kernel.libc import check, libc

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_IGNORED = 0x8000

_EVENT = struct.Struct("iIII")


class DirectoryWatch:
    """Wakes its waiter when a file in `directory` is written, made, moved or deleted.

    One waiter at a time. Raises OSError when the host's limit of watches is reached.
    """

    def __init__(self, directory: Path) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd = check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE
        try:
            check(
                libc.inotify_add_watch(self._fd, os.fsencode(directory), mask),
                f"inotify_add_watch {directory}",
            )
        except OSError:
            os.close(self._fd)
            raise
        self._loop.add_reader(self._fd, self._drain)

    def wake(self) -> None:
        """Wakes the waiter for another reason, for instance that the writer has ended."""
        self._event.set()

    async def wait(self) -> None:
        """Returns after the next change, or at once when one came since the last wait."""
        await self._event.wait()
        self._event.clear()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class ArrivalWatch:
    """Calls back when files appear, each in a directory of its own.

    One descriptor for all, because the host allows few of them (128 a user). A watch ends with
    its directory. Use it in the event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        self._expected: dict[int, tuple[bytes, Callable[[], None]]] = {}
        self._loop.add_reader(self._fd, self._read)

    def expect(self, file: Path, arrived: Callable[[], None]) -> None:
        """Calls `arrived` once, soon if the file is there already.

        Raises OSError when there is no directory, or no more may be watched.
        """
        watch = check(
            libc.inotify_add_watch(self._fd, os.fsencode(file.parent), IN_CREATE | IN_MOVED_TO),
            f"inotify_add_watch {file.parent}",
        )
        self._expected[watch] = (os.fsencode(file.name), arrived)
        if file.exists():
            self._loop.call_soon(self._arrived, watch)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if mask & IN_IGNORED:
                self._expected.pop(watch, None)
            elif watch in self._expected and self._expected[watch][0] == name:
                self._arrived(watch)

    def _arrived(self, watch: int) -> None:
        found = self._expected.pop(watch, None)
        if found is not None:
            libc.inotify_rm_watch(self._fd, watch)
            found[1]()
