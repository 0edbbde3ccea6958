"""One line of JSON for every request: who, what, how it went; no query and no credentials.

Lines are gathered for a moment and written by a thread: a reader that is slow never holds up a
request, it loses lines, and how many is written once it reads again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

import msgspec

from estiba.kernel.blocking import run_blocking

_log = logging.getLogger(__name__)

_EVERY_S = 0.1
_MAX_WAITING = 10_000
_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes to a descriptor; `fd` None is silence."""

    def __init__(self, fd: int | None, clock: Callable[[], float] = time.time) -> None:
        self._fd = fd
        self._clock = clock
        self._lines: list[bytes] = []
        self._lost = 0
        self._is_writing = False

    @property
    def is_on(self) -> bool:
        return self._fd is not None

    def add(
        self,
        *,
        address: str,
        user: str,
        method: str,
        path: str,
        status: int,
        size: int,
        seconds: float,
        agent: str,
        is_whole: bool,
    ) -> None:
        """`size` is that of the answer's body; `is_whole` says whether all of it was sent."""
        if self._fd is None:
            return
        if len(self._lines) >= _MAX_WAITING:
            self._lost += 1
            return
        entry: dict[str, object] = {
            "time": round(self._clock(), 3),
            "client": address,
            "user": user,
            "method": method[:16],
            "path": path[:512],
            "status": status,
            "bytes": size,
            "ms": round(seconds * 1000, 1),
            "agent": agent[:200],
        }
        if not is_whole:
            entry["cut"] = True
        self._lines.append(_encode(entry))
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_later(_EVERY_S, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        fd = self._fd
        assert fd is not None
        while self._lines:
            lines, self._lines = self._lines, []
            if self._lost:
                lines.append(_encode({"time": round(self._clock(), 3), "lost": self._lost}))
                self._lost = 0
            try:
                await run_blocking(_write_all, fd, b"\n".join(lines) + b"\n")
            except OSError as error:
                _log.error("the access log cannot be written and ends here: %s", error)
                self._fd = None
                break
        self._is_writing = False

    def flush(self) -> None:
        """Writes what is left. Blocks."""
        if self._fd is not None and self._lines:
            _write_all(self._fd, b"\n".join(self._lines) + b"\n")
            self._lines = []


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
