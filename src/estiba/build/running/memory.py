"""The cgroup of a step, as far as the runtime forgets it: whether the kernel killed for memory.

The runtime removes its group with the program's end, and on version 1 the counter goes with it;
so a listener is there before the group has a process. On version 2 the group above counts what
happens below it, and outlives the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from estiba.kernel.cgroup import Hierarchies, Mode
from estiba.kernel.cgroup_stats import oom_kills
from estiba.model.errors import InvalidArgument

_KILLED = 137
_END_OF_GROUP_S = 0.2


class MemoryWatch:
    """Of one run: `prepare` (blocks), `listen` and `close` on the loop, `lacked` after the end."""

    def __init__(self, hierarchies: Hierarchies, group: str) -> None:
        self.group = group
        self._hierarchies = hierarchies
        self._counter = hierarchies.oom_counter(group)
        self._signals: int | None = None
        self._count = 0
        self._is_certain = False
        self._taken = asyncio.Event()

    @property
    def runtime_group(self) -> str:
        """The group for the runtime to make."""
        return f"{self.group}/run" if self._hierarchies.mode == Mode.V2 else self.group

    def prepare(self) -> None:
        """Makes what must be there before the runtime. Raises InvalidArgument."""
        try:
            self._make()
        except OSError as error:
            raise InvalidArgument(
                f"cannot make the cgroup {self.group}: {error.strerror}: choose another parent"
            ) from error

    def _make(self) -> None:
        if self._hierarchies.mode == Mode.V2:
            self._hierarchies.ensure_parent(self.group)
        elif self._counter is not None:
            self._counter.parent.mkdir(parents=True, exist_ok=True)
            self._signals = _subscribe(self._counter)

    def listen(self) -> None:
        if self._signals is not None:
            asyncio.get_running_loop().add_reader(self._signals, self._take)

    def _take(self) -> None:
        """The end of the group is a signal too, but then its counter is gone."""
        assert self._signals is not None
        with contextlib.suppress(BlockingIOError):
            self._count += os.eventfd_read(self._signals)
            self._taken.set()
        if self._counter is not None and self._counter.exists():
            self._is_certain = True

    async def lacked(self, code: int) -> bool:
        """Whether a process was killed for memory in a program that ended with `code`."""
        if code == 0 or self._counter is None:
            return False
        if self._hierarchies.mode == Mode.V2:
            return oom_kills(self._counter) > 0
        if self._signals is not None:
            self._take()
        if self._count == 1 and not self._is_certain and code == _KILLED:
            # One signal, seen too late: lack of memory if the end of the group is still to come.
            self._taken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._taken.wait(), _END_OF_GROUP_S)
        return self._is_certain or self._count > 1

    def close(self) -> None:
        if self._signals is not None:
            asyncio.get_running_loop().remove_reader(self._signals)
            os.close(self._signals)
            self._signals = None


def _subscribe(counter: Path) -> int | None:
    """An eventfd that the kernel signals for a lack of memory in the group (cgroup-v1/memory)."""
    signals = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
        try:
            (counter.parent / "cgroup.event_control").write_text(f"{signals} {control}")
        finally:
            os.close(control)
    except OSError:
        os.close(signals)
        return None
    return signals
