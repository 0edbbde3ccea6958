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


class SignWatch:
    """Calls back when what others do to files has made conditions true, each once.

    One descriptor for all, because the host allows few of them (128 a user). Use it in the event
    loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        self._watches: dict[str, int] = {}
        self._awaited: dict[int, tuple[str, Callable[[], bool], Callable[[], None]]] = {}
        self._loop.add_reader(self._fd, self._read)

    def watch(
        self, key: str, path: Path, condition: Callable[[], bool], happened: Callable[[], None]
    ) -> None:
        """Asks `condition` now and after each change of the file, or in the directory, `path`.

        Takes the place of an earlier watch of the same key. Raises OSError when there is no such
        path, or no more may be watched.
        """
        self.forget(key)
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE
        watch = check(
            libc.inotify_add_watch(self._fd, os.fsencode(path), mask), f"inotify_add_watch {path}"
        )
        self._watches[key] = watch
        self._awaited[watch] = (key, condition, happened)
        self._loop.call_soon(self._ask, watch)

    def forget(self, key: str) -> None:
        """Harmless twice. Call it: files of control groups end without a sign."""
        watch = self._watches.pop(key, None)
        if watch is not None:
            del self._awaited[watch]
            libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        changed, at = set(), 0
        while at < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, at)
            changed.add(watch)
            at += _EVENT.size + length
        for watch in changed:
            self._ask(watch)

    def _ask(self, watch: int) -> None:
        found = self._awaited.get(watch)
        if found is not None and found[1]():
            self.forget(found[0])
            found[2]()
