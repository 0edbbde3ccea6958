"""Digests of what is copied: of content, many files at once, and of the whole.

Times count for nothing, so a checkout made anew finds its layers again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from estiba.build.files.model import Entry, Form, Selected
from estiba.build.files.modes import Change
from estiba.distribution.cancel import CancelToken

_SMALL_BYTES = 256 << 10
"""Up to here a hand-over to another thread takes longer than the work."""

_CHUNK = 1 << 20
_MAX_OPEN = 32
_MAX_SHOWN = 5_000
_SHORT = 12


class Contents:
    """Hashes files; large ones in threads. Ends with its context."""

    def __init__(self, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._is_over = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._slots = threading.Semaphore(_MAX_OPEN)
        self._waiting: list[tuple[Entry, Future[str]]] = []
        self._known: dict[tuple[int, int], Future[str]] = {}

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def add(self, entry: Entry, fd: int) -> None:
        """Takes over the open file `fd` and sets the entry's content, at `finish` at the latest."""
        known = self._known.get(entry.inode) if entry.inode else None
        if known is not None:
            os.close(fd)
            self._waiting.append((entry, known))
            return
        if entry.size <= _SMALL_BYTES:
            try:
                entry.content = self._hash(fd)
            finally:
                os.close(fd)
            if entry.inode:
                self._known[entry.inode] = Future()
                self._known[entry.inode].set_result(entry.content)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="digest")
        self._slots.acquire()
        future = self._pool.submit(self._hash_large, fd)
        self._waiting.append((entry, future))
        if entry.inode:
            self._known[entry.inode] = future

    def finish(self) -> None:
        """Every entry has its content. Raises OSError, Cancelled."""
        for entry, future in self._waiting:
            entry.content = future.result()
        self._waiting.clear()

    def _hash_large(self, fd: int) -> str:
        try:
            return self._hash(fd)
        finally:
            os.close(fd)
            self._slots.release()

    def _hash(self, fd: int) -> str:
        piece = os.read(fd, _SMALL_BYTES + 1)
        digest = hashlib.sha256(piece)
        if len(piece) > _SMALL_BYTES:
            while (piece := os.read(fd, _CHUNK)) and not self._is_over.is_set():
                self._cancel.check()
                digest.update(piece)
        return digest.hexdigest()


def digest_of(selected: Iterable[Selected], change: Change) -> str:
    """sha256 over all that decides what comes out. `change` is what `--chmod` does."""
    whole = hashlib.sha256(b"estiba copy 1\n")
    for source in selected:
        whole.update(_line("source", source.form.value, source.name if _is_named(source) else ""))
        lines = [_entry_line(source, entry, change) for entry in source.entries]
        for line in sorted([*lines, *_shared_lines(source)]):
            whole.update(line)
    return f"sha256:{whole.hexdigest()}"


def _shared_lines(source: Selected) -> Iterator[bytes]:
    """Which paths are one file: that is kept where it is copied to."""
    first: dict[tuple[int, int], str] = {}
    for entry in source.entries:
        if entry.inode and (known := first.setdefault(entry.inode, entry.path)) != entry.path:
            yield _line("one file", known, entry.path)


def _is_named(source: Selected) -> bool:
    """Content goes where the destination says, a file may keep its name."""
    return source.form is Form.FILE


def _entry_line(source: Selected, entry: Entry, change: Change) -> bytes:
    if source.form is Form.ARCHIVE:
        return _line("archive", entry.content)
    is_link = stat.S_ISLNK(entry.mode)
    return _line(
        entry.path,
        f"{stat.S_IFMT(entry.mode):o}",
        "" if is_link else f"{change(entry.mode):o}",
        f"{entry.uid}:{entry.gid}" if source.keeps_owner else "",
        entry.content,
        entry.link,
        f"{entry.rdev}" if entry.rdev else "",
        *(f"{name}={value.hex()}" for name, value in entry.xattrs),
    )


def _line(*fields: str) -> bytes:
    """No name holds a zero byte, so nothing else makes the same line."""
    return b"\0".join(os.fsencode(field) for field in fields) + b"\0\0"


def shown_files(selected: Iterable[Selected], change: Change) -> dict[str, str]:
    """Path in its source → a short digest of content, mode and the rest."""
    shown: dict[str, str] = {}
    for path, line in _shown(selected, change):
        if len(shown) == _MAX_SHOWN:
            break
        shown[path] = hashlib.sha256(line).hexdigest()[:_SHORT]
    return shown


def _shown(selected: Iterable[Selected], change: Change) -> Iterator[tuple[str, bytes]]:
    for source in selected:
        for entry in source.entries:
            path = f"{source.path}/{entry.path}".strip("/")
            yield os.fsencode(path).decode(errors="replace"), _entry_line(source, entry, change)
