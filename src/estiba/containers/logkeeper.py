"""Keeps logs within their limits: rotates by size, truncates on request.

The monitor writes; this side renames and tells it to open the file anew, so that no line is
lost: what the monitor still writes before it reopens lands in the renamed file.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from estiba.containers.logs import rotated_files
from estiba.containers.ports import Controls, Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.validate import parse_size
from estiba.kernel.blocking import run_blocking

CHECK_EVERY_S = 1.0
_DEFAULT_FILES = 3


def limits(record: ContainerRecord) -> tuple[int, int]:
    """Bytes a file (-1: no limit) and number of files."""
    options = record.host_config.log_config.config
    return parse_size(options.get("max-size", "-1")), int(options.get("max-file", _DEFAULT_FILES))


class LogKeeper:
    """One task for all containers that are up."""

    def __init__(
        self, paths: Paths, controls: Controls, running: Callable[[], Iterable[ContainerRecord]]
    ) -> None:
        self._paths = paths
        self._controls = controls
        self._running = running

    async def run(self) -> None:
        """Checks every second until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            for record in list(self._running()):
                with contextlib.suppress(OSError):
                    await self.check(record)

    async def check(self, record: ContainerRecord) -> None:
        """Rotates the log of one container if it is over its size.

        A log that is missing was renamed by an engine that died before it told the monitor.
        """
        if record.host_config.log_config.type == "none":
            return
        size, files = limits(record)
        path = self._paths.log(record.id)
        length = await run_blocking(_length, path)
        if length is not None:
            if size < 0 or length <= size:
                return
            await run_blocking(rotate, path, files)
        await self._controls.reopen_log(record)

    async def truncate(self, record: ContainerRecord) -> None:
        """Throws away what has been logged so far."""
        path = self._paths.log(record.id)
        await run_blocking(rotate, path, 1)
        if record.state.is_up:
            await self._controls.reopen_log(record)


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def rotate(path: Path, files: int) -> None:
    """Shifts `path` to `.1`, `.1` to `.2` and so on; keeps `files` in all."""
    rotated = rotated_files(path)
    gap = next(age for age in itertools.count(1) if age not in rotated)
    for age in sorted(rotated, reverse=True):
        if age >= files or age == files - 1 < gap:
            os.unlink(rotated[age])
        elif age < gap:
            os.rename(rotated[age], path.with_name(f"{path.name}.{age + 1}"))
    with contextlib.suppress(FileNotFoundError):
        if files > 1:
            os.rename(path, path.with_name(f"{path.name}.1"))
        else:
            os.unlink(path)
