"""Programs started from the loop: output, input, limits, cancellation, no descriptor leaks."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from estiba.kernel import spawn


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_output_and_exit_code_are_captured() -> None:
    done = await spawn.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert done == spawn.Completed(7, b"out\n", b"err\n")


async def test_stdin_larger_than_a_pipe_goes_through() -> None:
    data = os.urandom(1 << 20)
    done = await spawn.run(["cat"], stdin=data, limit_bytes=2 << 20)
    assert done.stdout == data


async def test_a_program_that_ignores_its_stdin_is_no_error() -> None:
    done = await spawn.run(["true"], stdin=b"x" * (1 << 20))
    assert done.returncode == 0


async def test_output_is_limited_and_the_program_is_not_blocked() -> None:
    done = await spawn.run(["sh", "-c", "head -c 3000000 /dev/zero"], limit_bytes=1000)
    assert (done.returncode, len(done.stdout)) == (0, 1000)


async def test_a_missing_program_raises_and_leaks_nothing() -> None:
    await spawn.run(["true"])
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        await spawn.run(["/nonexistent/program"])
    assert open_descriptors() <= before


async def test_death_by_signal_is_a_negative_code() -> None:
    done = await spawn.run(["sh", "-c", "kill -TERM $$"])
    assert done.returncode == -signal.SIGTERM


async def test_timeout_kills_and_reaps() -> None:
    await spawn.run(["true"])
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        await spawn.run(["sleep", "100"], timeout_s=0.05)
    await wait_until(lambda: open_descriptors() <= before)


async def test_cancelled_wait_kills_and_reaps() -> None:
    await spawn.run(["true"])
    before = open_descriptors()
    task = asyncio.create_task(spawn.run(["sleep", "100"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: open_descriptors() <= before)


async def test_only_named_descriptors_are_passed() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    other = os.dup(writer)
    os.set_inheritable(other, True)
    try:
        script = (
            "import os, sys; print(*os.listdir('/proc/self/fd')); os.write(int(sys.argv[1]), b'x')"
        )
        done = await spawn.run(["python3", "-c", script, str(writer)], pass_fds=[writer])
        assert os.read(reader, 100) == b"x"
        # 3 is the listing's own directory.
        assert {int(fd) for fd in done.stdout.split()} == {0, 1, 2, 3, writer}
    finally:
        for fd in (reader, writer, other):
            os.close(fd)


async def test_new_session_and_default_sigpipe() -> None:
    script = "ps -o sid= -p $$; echo $$; grep SigIgn /proc/self/status"
    done = await spawn.run(["sh", "-c", script])
    # Others may be ignored by whoever runs the tests: a shell does so for what it runs with "&".
    assert not int(done.stdout.split()[-1], 16) & 1 << signal.SIGPIPE - 1
    child = spawn.start(["sh", "-c", script], stdout=spawn.PIPE, new_session=True)
    assert await child.wait() == 0
    assert child.stdout is not None
    session, pid = os.read(child.stdout, 1000).split()[:2]
    assert session == pid == str(child.pid).encode()
    child.close_pipes()


async def test_a_child_that_was_let_go_is_reaped_later() -> None:
    child = spawn.start(["sleep", "0.05"])
    child.let_go()
    await wait_until(lambda: child.returncode == 0)


async def wait_until(condition, deadline_s: float = 5.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - any condition, no event tells of it
            await asyncio.sleep(0.002)
