"""Processes of the host by what their command line names."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from estiba.kernel.pidfd import ProcessIdentity, identify, send_signal, wait_exit


def processes_naming(words: list[str]) -> Iterator[ProcessIdentity]:
    """Processes that have one of `words` as a whole argument. Blocks."""
    wanted = {word.encode() for word in words}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            if wanted & set(arguments):
                yield identify(int(entry))


async def end_processes(words: list[str]) -> None:
    """Kills them and waits for their end."""
    found = list(processes_naming(words))
    for identity in found:
        with contextlib.suppress(ProcessLookupError):
            send_signal(identity, signal.SIGKILL)
    for identity in found:
        await wait_exit(identity)
