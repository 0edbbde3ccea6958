"""Waiting until something changes in a directory (inotify(7)), from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Self

from estiba.kernel.libc import check, libc

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200


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
