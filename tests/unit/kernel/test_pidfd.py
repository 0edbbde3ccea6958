"""Process identities: a reused pid is another process, a waited one is seen to end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from estiba.kernel import pidfd, spawn


async def test_identity_of_a_live_process() -> None:
    me = pidfd.identify(os.getpid())
    assert pidfd.is_alive(me)
    assert not pidfd.is_alive(pidfd.ProcessIdentity(me.pid, me.start_time + 1))


async def test_another_start_time_is_another_process() -> None:
    me = pidfd.identify(os.getpid())
    with pytest.raises(ProcessLookupError):
        pidfd.open_pidfd(pidfd.ProcessIdentity(me.pid, me.start_time - 1))
    with pytest.raises(ProcessLookupError):
        pidfd.send_signal(pidfd.ProcessIdentity(me.pid, me.start_time - 1), signal.SIGKILL)


async def test_a_missing_process_cannot_be_identified() -> None:
    with pytest.raises(ProcessLookupError):
        pidfd.identify(2**22 - 1)


async def test_waiting_for_a_process_that_is_not_a_child() -> None:
    done = await spawn.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
    grandchild = pidfd.identify(int(done.stdout))
    waiting = asyncio.create_task(pidfd.wait_exit(grandchild))
    await asyncio.sleep(0)
    assert not waiting.done()
    pidfd.send_signal(grandchild, signal.SIGKILL)
    await asyncio.wait_for(waiting, 30)
    assert not pidfd.is_alive(grandchild)
    await pidfd.wait_exit(grandchild)


async def test_signal_reaches_the_process() -> None:
    child = spawn.start(["sleep", "100"])
    pidfd.send_signal(child.identity(), signal.SIGTERM)
    assert await child.wait() == -signal.SIGTERM
