"""Steps that are cut off: by their caller at any moment, by the death of their engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.kernel.build.running.running_lab import (
    Lab,
    Told,
    discard,
    layer,
    make_engine,
    make_lab,
    make_networks,
    remove_networks,
)
from tests.support.leaks import HostState, assert_clean

from estiba.build.ports import BindMount, CacheMount, RunMount, SecretMount, TmpfsMount
from estiba.kernel.mounts import mounted_under, unmount
from estiba.kernel.pidfd import identify, is_alive
from estiba.kernel.procfs import processes_naming

pytestmark = pytest.mark.kernel
both = pytest.mark.parametrize("lab", ["crun", "runc"], indirect=True)
REPOSITORY = Path(__file__).parents[4]


def some_mounts(source: Path) -> tuple[RunMount, ...]:
    return (
        BindMount("/in", source),
        BindMount("/rw", source, writable=True),
        CacheMount("/cache", "c"),
        TmpfsMount("/t"),
        SecretMount(b"x", target="/run/secrets/x"),
    )


@both
async def test_a_cancelled_step_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    told = Told()
    script = "trap '' TERM INT HUP; (setsid sleep 1000 &); (sleep 1000 &); echo up; sleep 1000"
    source = layer(tmp_path / "source", file="x")
    with lab.tree() as tree:
        request = lab.request(
            tree, "/bin/sh", "-c", script, mounts=some_mounts(source), network="bridge"
        )
        running = asyncio.create_task(lab.executor.run(request, told))
        await told.until("up")
        group = lab.engine.defaults.cgroup_parent + f"/build-{request.id}"
        inside = [identify(pid) for pid in lab.engine.hierarchies.processes(group)]
        assert len(inside) >= 3
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert lab.leftovers() == []
        assert not [process for process in inside if is_alive(process)]


@both
async def test_a_step_can_be_cancelled_at_any_moment(lab: Lab, tmp_path: Path) -> None:
    """A few milliseconds later each time, from before its beginning to when it runs."""
    source = layer(tmp_path / "source", file="x")
    began = time.monotonic()
    await lab.sh("true", mounts=some_mounts(source), network="bridge")
    usual_ms = (time.monotonic() - began) * 1000
    step_ms = max(2 if lab.engine.runtime.name == "crun" else 8, int(usual_ms / 40))
    times_running = 0
    for moment_ms in itertools.count(0, step_ms):
        if times_running == 3:
            break
        with lab.tree() as tree:
            told = Told()
            request = lab.request(
                tree,
                *("/bin/sh", "-c", "echo up; exec sleep 1000"),
                mounts=some_mounts(source),
                network="bridge",
            )
            running = asyncio.create_task(lab.executor.run(request, told))
            await asyncio.wait({running}, timeout=moment_ms / 1000)
            times_running += told.text() == "up\n"
            running.cancel()
            # A second time while it is being taken away: that too is no way to leave half of it.
            await asyncio.wait({running}, timeout=moment_ms / 10_000)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert lab.leftovers() == [], moment_ms
            assert not list(processes_naming([str(tmp_path), request.id])), moment_ms


async def test_a_listener_that_fails_ends_the_step(lab: Lab) -> None:
    def fail(_stream: int, _data: bytes) -> None:
        raise RuntimeError("the client is gone")

    with lab.tree() as tree, pytest.raises(RuntimeError, match="client is gone"):
        await lab.executor.run(lab.request(tree, "/bin/sh", "-c", "echo up; sleep 1000"), fail)


async def test_a_runtime_that_is_killed(lab: Lab) -> None:
    """Somebody kills the runtime: the step ends like one that was killed, and nothing is left."""
    with lab.tree() as tree:
        told = Told()
        request = lab.request(tree, "/bin/sh", "-c", "echo up; sleep 1000")
        running = asyncio.create_task(lab.executor.run(request, told))
        await told.until("up")
        place = str(lab.engine.places.runs / request.id)
        for identity in processes_naming([place]):
            os.kill(identity.pid, signal.SIGKILL)
        assert (await running).code == 137
        assert lab.leftovers() == []


async def test_eight_steps_at_once(lab: Lab, tmp_path: Path) -> None:
    source = layer(tmp_path / "source", file="x")

    async def step(number: int) -> str:
        script = f"cat /in/file; echo {number} >> /cache/all; ip route | wc -l; exit 0"
        return await lab.sh(script, mounts=some_mounts(source), network="bridge")

    said = await asyncio.gather(*(step(number) for number in range(8)))
    assert said == ["x2\n"] * 8
    cache = CacheMount("/cache", "c")
    assert len((await lab.sh("cat /cache/all", mounts=(cache,))).split()) == 8


# -- the death of the engine -------------------------------------------------------------------


def start_step(base: Path, lower: Path, bridge: str, runtime: str) -> subprocess.Popen[bytes]:
    words = ["-m", "tests.kernel.build.running.step_to_kill", base, lower, bridge, runtime]
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, cwd=REPOSITORY, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("moment", ["begun", "2ms", "8ms", "16ms", "32ms", "running"])
async def test_a_killed_engine_is_swept_up_after(
    tmp_path: Path, busybox_tree: Path, runtime: str, moment: str
) -> None:
    bridge = f"estk{os.getpid() % 10**6}"
    before = HostState.read(only=bridge)
    process = start_step(tmp_path, busybox_tree, bridge, runtime)
    assert process.stdout is not None
    if moment == "running":
        assert process.stdout.readline() == b"running\n"
    elif moment.endswith("ms"):
        reading = asyncio.create_task(asyncio.Event().wait())
        await asyncio.wait({reading}, timeout=int(moment[:-2]) / 1000)
        reading.cancel()
    process.kill()
    process.wait()
    process.stdout.close()

    networks = make_networks(tmp_path, bridge)
    try:
        engine = make_engine(tmp_path, networks, parent=f"/estiba-test-{bridge}", runtime=runtime)
        lab = make_lab(tmp_path, busybox_tree, engine)
        lab.trees = 1
        for _ in range(2):
            await lab.executor.sweep()
            assert lab.leftovers() == []
            assert not list(processes_naming([str(lab.engine.places.runs)]))
        # What outlives a step is there, and free.
        for tree in mounted_under(tmp_path):
            unmount(tree)
        cache = CacheMount("/cache", "c", sharing="locked")
        assert await lab.sh("ls /cache; ls /sys/class/net", mounts=(cache,), network="bridge")
        assert lab.leftovers() == []
    finally:
        engine.hierarchies.remove(engine.defaults.cgroup_parent)
        remove_networks(networks)
        discard(tmp_path)
    assert_clean(before, only=bridge)
