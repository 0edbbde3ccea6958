"""What processes hold in memory: at a moment, and at most while something goes on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_INTERVAL_S = 0.02
_RESET_PEAK = "5"
"""proc(5), clear_refs: VmHWM starts anew from what is resident now."""


def processes_naming(*words: str) -> list[int]:
    """Those that name one of the words in their command line: a daemon and all its helpers."""
    found = []
    wanted = [word.encode() for word in words]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if any(word in line for word in wanted):
                found.append(int(entry.name))
    return found


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size (proc(5), smaps_rollup)."""
    return sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids)


class Peak:
    """Resident memory of some processes before, and the most that each had until `stop`.

    The sum of their peaks is an upper bound: they need not have come at the same moment.
    """

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self._processes = processes
        self._peaks: dict[int, int] = {}
        self._ended = threading.Event()
        for pid in processes():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
        self._look()
        self.before = sum(self._peaks.values())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        for pid in self._processes():
            if peak := _field(f"/proc/{pid}/status", "VmHWM:"):
                self._peaks[pid] = peak

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self._look()

    def stop(self) -> int:
        """The peak in bytes."""
        self._ended.set()
        self._thread.join()
        self._look()
        return sum(self._peaks.values())


@contextlib.contextmanager
def watched(processes: Callable[[], list[int]]) -> Iterator[Peak]:
    peak = Peak(processes)
    try:
        yield peak
    finally:
        peak.stop()


def _field(path: str, name: str) -> int:
    """A value in kB of a file of proc(5), in bytes; 0 when the process has gone."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
