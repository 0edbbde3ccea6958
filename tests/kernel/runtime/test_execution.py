"""Execs on the real kernel: streams, terminals, exit codes, backpressure, throughput."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from tests.kernel.runtime.runtime_lab import UNTIL_RESIZED

from estiba.kernel import pidfd
from estiba.model.errors import CommandNotExecutable, CommandNotFound, FailedPrecondition, NotFound
from estiba.runtime.execution import Execution
from estiba.runtime.monitor import STDERR, STDOUT
from estiba.runtime.users import User

pytestmark = pytest.mark.kernel


@pytest.fixture
async def running(lab) -> AsyncIterator:  # type: ignore[type-arg]
    container = lab.container("sleep", "1000")
    await container.create()
    await container.start()
    return container


async def read_all(execution: Execution) -> tuple[dict[int, bytes], int]:
    output = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(30):
        async for stream, data in execution:
            output[stream] += data
        code = await execution.wait()
    execution.close()
    return output, code


async def test_streams_and_exit_code(running) -> None:
    execution = await running.exec("sh", "-c", "echo out; echo err >&2; exit 9")
    assert await read_all(execution) == ({STDOUT: b"out\n", STDERR: b"err\n"}, 9)
    assert os.listdir(running.bundle.exec_dir) == []


async def test_death_by_signal(running) -> None:
    execution = await running.exec("sh", "-c", "kill -KILL $$")
    assert (await read_all(execution))[1] == 137


async def test_identity_user_directory_and_environment(running) -> None:
    user = User(8, 12, (77,), "/var")
    script = "id -u; id -g; id -G; pwd; echo $HOME $FOO; grep CapEff /proc/self/status"
    execution = await running.exec("sh", "-c", script, user=user, cwd="/tmp", env=["FOO=bar"])
    output, _ = await read_all(execution)
    assert output[STDOUT].split() == [
        b"8", b"12", b"12", b"77", b"/tmp", b"/var", b"bar", b"CapEff:", b"0" * 16,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("nope", CommandNotFound),
        ("/bin/nope", CommandNotFound),
        ("/tmp", CommandNotExecutable),
        ("/etc/passwd", CommandNotExecutable),
    ],
)
@pytest.mark.parametrize("tty", [False, True])
async def test_a_bad_program_is_told(running, program, error, tty) -> None:
    execution = await running.exec(program, tty=tty, stdin=tty)
    async with asyncio.timeout(20):
        async for _ in execution:
            pass
        with pytest.raises(error, match=f'exec: "{program}"'):
            await execution.wait()
    execution.close()


async def test_a_container_that_is_gone(running, lab) -> None:
    await lab.runtime.delete(running.id, force=True)
    execution = await running.exec("true")
    with pytest.raises((NotFound, FailedPrecondition)):
        await execution.wait()
    execution.close()


async def test_stdin_goes_in_and_its_end_too(running) -> None:
    execution = await running.exec("sh", "-c", "wc -c; echo done", stdin=True)
    await execution.write_stdin(b"x" * 3_000_000)
    await execution.close_stdin()
    output, code = await read_all(execution)
    assert (output[STDOUT].split(), code) == ([b"3000000", b"done"], 0)


async def test_output_goes_on_after_the_end_of_stdin(running) -> None:
    execution = await running.exec("sh", "-c", "cat; echo more; exit 4", stdin=True)
    await execution.write_stdin(b"first\n")
    await execution.close_stdin()
    assert await read_all(execution) == ({STDOUT: b"first\nmore\n", STDERR: b""}, 4)


async def test_input_for_a_program_that_ended_is_dropped(running) -> None:
    execution = await running.exec("true", stdin=True)
    assert await execution.wait() == 0
    async with asyncio.timeout(5):
        await execution.write_stdin(b"x" * 5_000_000)
    execution.close()


async def test_a_slow_reader_holds_back_its_own_exec_only(running) -> None:
    slow = await running.exec("sh", "-c", "head -c 10000000 /dev/zero; echo end >&2")
    other = await running.exec("echo", "quick")
    assert (await read_all(other))[0][STDOUT] == b"quick\n"
    waiting = asyncio.create_task(slow.wait())
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    output, code = await read_all(slow)
    assert (len(output[STDOUT]), output[STDERR], code) == (10_000_000, b"end\n", 0)
    await waiting


async def test_closing_ends_a_program_that_writes(running) -> None:
    execution = await running.exec("yes")
    execution.close()
    assert await asyncio.wait_for(execution.wait(), 10) in (141, 1)


async def test_kill_reaches_the_program(running) -> None:
    execution = await running.exec("sleep", "1000")
    await asyncio.wait_for(execution.kill(signal.SIGTERM), 10)
    assert await asyncio.wait_for(execution.wait(), 10) == 143
    await execution.kill()
    execution.close()


async def test_a_program_left_in_the_background_does_not_hold_the_exec(running, lab) -> None:
    if lab.runtime.name == "runc":
        pytest.skip("runc copies the streams itself and waits for their end")
    execution = await running.exec("sh", "-c", "sleep 1000 & echo started")
    output, code = await read_all(execution)
    assert (output[STDOUT], code) == (b"started\n", 0)


async def test_terminal(running) -> None:
    script = f"tty; stty size; read line; echo got $line; {UNTIL_RESIZED}; stty size; exit 6"
    execution = await running.exec("sh", "-c", script, tty=True, stdin=True, size=(33, 99))
    output = b""
    async with asyncio.timeout(20):
        async for stream, data in execution:
            assert stream == STDOUT
            output += data
            if output.endswith(b"33 99\r\n") and b"got" not in output:
                execution.resize(height=44, width=111)
                await execution.write_stdin(b"hello\r")
        assert await execution.wait() == 6
    lines = output.splitlines()
    assert lines[0].startswith(b"/dev/pts/")
    assert lines[1:] == [b"33 99", b"hello", b"got hello", b"44 111"]
    with pytest.raises(FailedPrecondition, match="no open terminal"):
        execution.resize(height=1, width=1)
    execution.close()


async def test_the_client_of_a_terminal_goes_away(running) -> None:
    execution = await running.exec("cat", tty=True, stdin=True)
    async with asyncio.timeout(10):
        while execution.identity() is None:  # noqa: ASYNC110 - a file tells, no event
            await asyncio.sleep(0.005)
        execution.close()
        assert await execution.wait() != 0


async def test_a_detached_exec_needs_no_reader(running) -> None:
    execution = await running.exec("sh", "-c", "yes | head -n 100000", stdout=False, stderr=False)
    assert await asyncio.wait_for(execution.wait(), 10) == 0
    execution.close()


async def test_identity_is_the_programs_own(running) -> None:
    execution = await running.exec("sleep", "1000")
    async with asyncio.timeout(10):
        while (  # noqa: ASYNC110 - files tell, no event
            identity := execution.identity()
        ) is None or b"sleep" not in command(identity.pid):
            await asyncio.sleep(0.005)
    await execution.kill()
    await execution.wait()
    assert not pidfd.is_alive(identity)
    execution.close()


def command(pid: int) -> bytes:
    """Until its own exec the runtime's child stands there."""
    with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        return cmdline.read()


async def test_a_hundred_megabytes_through_cat(running) -> None:
    """At least 300 MB/s when the machine is idle; asserted at a tenth for a busy one."""
    block = bytes(1 << 20)
    execution = await running.exec("cat", stdin=True)

    async def feed() -> None:
        for _ in range(100):
            await execution.write_stdin(block)
        await execution.close_stdin()

    began = time.perf_counter()
    feeding = asyncio.create_task(feed())
    received = 0
    async for _, data in execution:
        received += len(data)
    await feeding
    rate = received / (time.perf_counter() - began) / 1e6
    assert received == 100 << 20
    assert await execution.wait() == 0
    assert rate > 30
    print(f"{rate:.0f} MB/s")
    execution.close()


@pytest.mark.parametrize("tty", [False, True])
async def test_output_of_a_program_that_ended_before_anybody_read(running, tty) -> None:
    execution = await running.exec("echo", "x", tty=tty)
    assert await asyncio.wait_for(execution.wait(), 10) == 0
    assert (await read_all(execution))[0][STDOUT].strip() == b"x"


async def test_descriptors_are_given_back(running) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for tty in (False, True, False, True):
        execution = await running.exec("echo", "x", tty=tty, stdin=True)
        await read_all(execution)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("left", [0, 1])
async def test_a_terminal_is_given_back_when_descriptors_are_short(
    running, monkeypatch, left
) -> None:
    fds, copies = set(os.listdir("/proc/self/fd")), iter(range(left))
    dup = os.dup

    def short(fd: int) -> int:
        if next(copies, None) is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return dup(fd)

    monkeypatch.setattr(os, "dup", short)
    with pytest.raises(OSError, match="Too many open files"):
        await running.exec("sleep", "1000", tty=True, stdin=True)
    async with asyncio.timeout(10):
        while not set(os.listdir("/proc/self/fd")) <= fds:  # noqa: ASYNC110 - its end is reaped
            await asyncio.sleep(0.01)
