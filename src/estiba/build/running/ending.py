"""Ends all that a run may have left running, whatever moment it was cut off at."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from estiba.build.effects import settled
from estiba.build.running.sandbox import Sandbox
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.pidfd import ProcessIdentity, identify, send_signal, wait_exit
from estiba.kernel.procfs import end_processes
from estiba.model.errors import EstibaError
from estiba.runtime.oci import OciRuntime

_PATIENCE_S = 10.0


async def end_run(
    runtime: OciRuntime, hierarchies: Hierarchies, sandbox: Sandbox, run_id: str, group: str
) -> None:
    """Nothing that is left is no error. Raises TimeoutError when something hangs in the kernel.

    `runtime` keeps its state in the run's directory.
    """
    async with asyncio.timeout(_PATIENCE_S):
        # The runtime first: it would go on to make what is being taken away.
        await end_processes([str(sandbox.path)])
        if sandbox.state.exists():
            with contextlib.suppress(EstibaError):
                await runtime.delete(run_id, force=True)
        # Without its state the runtime knows nothing of a container that it has begun to make.
        await end_processes([str(sandbox.path)])
        if group:
            await _end_group(hierarchies, group)


def kill_group(hierarchies: Hierarchies, group: str) -> list[ProcessIdentity]:
    """Kills all processes of the group; returns them. Those that they start meanwhile are left.

    Blocks.
    """
    killed = []
    for pid in hierarchies.processes(group):
        with contextlib.suppress(ProcessLookupError):
            identity = identify(pid)
            send_signal(identity, signal.SIGKILL)
            killed.append(identity)
    return killed


async def _end_group(hierarchies: Hierarchies, group: str) -> None:
    """Again, as long as one of them has children."""
    while killed := await settled(kill_group, hierarchies, group):
        for identity in killed:
            await wait_exit(identity)
