"""conmon on the real kernel: exit codes, streams, logs, and life after the engine."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import pytest
from tests.kernel.runtime.runtime_lab import UNTIL_RESIZED

from estiba.kernel import pidfd, spawn
from estiba.kernel.blocking import run_blocking
from estiba.model.errors import (
    CommandNotExecutable,
    CommandNotFound,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from estiba.runtime.conmon import Conmon
from estiba.runtime.monitor import STDERR, STDOUT, Attachment

pytestmark = pytest.mark.kernel


async def read_all(attachment: Attachment) -> dict[int, bytes]:
    output = {STDOUT: b"", STDERR: b""}
    async for stream, data in attachment:
        output[stream] += data
    return output


async def test_exit_code_log_and_streams(lab) -> None:
    container = lab.container("sh", "-c", "echo out; echo err >&2; exit 7")
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    assert await asyncio.wait_for(read_all(attachment), 10) == {STDOUT: b"out\n", STDERR: b"err\n"}
    await attachment.close()
    status = await container.wait()
    assert (status.code, status.oom_killed, status.is_lost) == (7, False, False)
    for line in container.request.log_path.read_text().splitlines():
        assert re.match(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00 (stdout|stderr) F \w+$", line
        )


async def test_death_by_signal_is_128_and_the_number(lab) -> None:
    container = lab.container("sleep", "100")
    monitored = await container.create()
    await container.start()
    pidfd.send_signal(monitored.container, signal.SIGKILL)
    assert (await container.wait()).code == 137


async def test_a_created_container_can_be_deleted_without_a_start(lab) -> None:
    container = lab.container("true")
    monitored = await container.create()
    assert await lab.runtime.state(container.id) == "created"
    await lab.runtime.delete(container.id, force=True)
    await asyncio.wait_for(pidfd.wait_exit(monitored.monitor), 10)


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        ("nope", CommandNotFound, 'exec: "nope": executable file not found in $PATH'),
        ("/bin/nope", CommandNotFound, "no such file or directory"),
        ("/tmp", CommandNotExecutable, "permission denied"),
        ("/etc/passwd", CommandNotExecutable, "permission denied"),
    ],
)
async def test_a_bad_program_is_told_in_dockers_words(lab, program, error, text) -> None:
    container = lab.container(program)
    with pytest.raises(error) as raised:
        await container.create()
        await container.start()
    assert text in str(raised.value)


async def test_a_bad_request_is_the_users_fault(lab) -> None:
    container = lab.container("true", host={"cpuset_cpus": "4000"})
    with pytest.raises(InvalidArgument, match="out of range"):
        await container.create()


async def test_missing_programs_of_the_engine_are_named(lab) -> None:
    container = lab.container("true")
    broken = Conmon(lab.base / "no-conmon", lab.monitor.exit_dir)
    with pytest.raises(Unavailable, match="install conmon"):
        await broken.start(container.request)


async def test_without_open_stdin_the_program_reads_nothing(lab) -> None:
    container = lab.container("sh", "-c", "readlink /proc/self/fd/0; wc -c")
    await container.run()
    assert container.log().split() == ["/dev/null", "0"]


async def test_stdin_once_ends_with_the_clients_half_close(lab) -> None:
    config = {"open_stdin": True, "stdin_once": True}
    container = lab.container("sh", "-c", "wc -c; echo done", config=config)
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    reading = asyncio.create_task(read_all(attachment))
    data = b"x" * 3_000_000
    await asyncio.wait_for(attachment.write_stdin(data), 20)
    await attachment.close_stdin()
    assert (await asyncio.wait_for(reading, 10))[STDOUT].split() == [b"3000000", b"done"]
    assert (await container.wait()).code == 0
    await attachment.close()


async def test_stdin_once_ends_when_the_client_goes_away(lab) -> None:
    container = lab.container("cat", config={"open_stdin": True, "stdin_once": True})
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    await attachment.write_stdin(b"kept\n")
    await attachment.close()
    assert (await container.wait()).code == 0
    assert container.log() == "kept\n"


async def test_open_stdin_outlives_its_clients(lab) -> None:
    script = "read a; echo $a; read b; echo $b"
    container = lab.container("sh", "-c", script, config={"open_stdin": True})
    await container.create()
    await container.start()
    for line in (b"one\n", b"two\n"):
        attachment = await lab.monitor.attach(container.bundle, tty=False)
        await attachment.write_stdin(line)
        await attachment.close_stdin()
        _, data = await asyncio.wait_for(anext(aiter(attachment)), 10)
        assert data == line
        await attachment.close()
    assert (await container.wait()).code == 0
    assert container.log() == "one\ntwo\n"


async def test_a_program_that_does_not_read_blocks_only_its_writer(lab) -> None:
    container = lab.container("sleep", "100", config={"open_stdin": True})
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    writing = asyncio.create_task(attachment.write_stdin(b"x" * 5_000_000))
    done, _ = await asyncio.wait([writing], timeout=0.3)
    assert not done
    await attachment.close()
    await asyncio.wait_for(writing, 5)


async def test_terminal_with_size_resize_and_input(lab) -> None:
    config = {"tty": True, "open_stdin": True}
    script = f"tty; stty size; read line; echo got $line; {UNTIL_RESIZED}; stty size"
    container = lab.container("sh", "-c", script, config=config, host={"console_size": [33, 99]})
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=True)
    await container.start()
    output = b""
    async for stream, data in attachment:
        assert stream == STDOUT
        output += data
        if output.endswith(b"33 99\r\n") and b"got" not in output:
            await lab.monitor.resize(container.bundle, height=44, width=111)
            await attachment.write_stdin(b"hello\r")
    assert output.splitlines() == [
        b"/dev/pts/0",
        b"33 99",
        b"hello",
        b"got hello",
        b"44 111",
    ]
    assert (await container.wait()).code == 0
    await attachment.close()


async def test_much_output_is_whole_in_order_and_in_the_log(lab) -> None:
    container = lab.container("seq", "1", "200000")
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    output = (await asyncio.wait_for(read_all(attachment), 30))[STDOUT]
    expected = b"".join(b"%d\n" % number for number in range(1, 200001))
    assert output == expected
    await container.wait()
    log = container.request.log_path.read_bytes().splitlines()
    assert b"".join(line[45:] + (b"\n" if line[43:44] == b"F" else b"") for line in log) == expected


async def test_log_can_be_moved_and_reopened(lab) -> None:
    container = lab.container("sh", "-c", "echo one; read x; echo two", config={"open_stdin": True})
    await container.create()
    await container.start()
    log = container.request.log_path
    await wait_until(lambda: log.exists() and log.stat().st_size > 0)
    log.rename(log.with_name("old"))
    await lab.monitor.reopen_log(container.bundle)
    await wait_until(log.exists)
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await attachment.write_stdin(b"\n")
    await container.wait()
    assert container.log() == "two\n"
    await attachment.close()


async def test_without_a_log_attached_clients_still_see_output(lab) -> None:
    container = lab.container("echo", "hello", log=False)
    await container.create()
    attachment = await lab.monitor.attach(container.bundle, tty=False)
    await container.start()
    assert (await asyncio.wait_for(read_all(attachment), 10))[STDOUT] == b"hello\n"
    await container.wait()


async def test_a_killed_monitor_is_a_lost_run(lab) -> None:
    container = lab.container("sleep", "100")
    monitored = await container.create()
    await container.start()
    pidfd.send_signal(monitored.monitor, signal.SIGKILL)
    status = await container.wait()
    assert (status.code, status.is_lost) == (137, True)
    with pytest.raises(FailedPrecondition, match="monitor is gone"):
        await lab.monitor.attach(container.bundle, tty=False)
    with pytest.raises(FailedPrecondition, match="monitor is gone"):
        await lab.monitor.resize(container.bundle, height=1, width=1)


async def test_memory_limit_kill_is_recorded(lab) -> None:
    host = {"memory": 16 << 20, "memory_swap": 16 << 20}
    for _ in range(5):
        container = lab.container("tail", "/dev/zero", host=host)
        status = await container.run()
        assert status.code == 137
        if status.oom_killed:
            return
        # conmon saw the end before the sign; the engine asks the kernel then.
    raise AssertionError("conmon never left its mark")


_ENGINE = """
import asyncio, os, signal, sys
from pathlib import Path
from estiba.runtime.bundle import Bundle
from estiba.runtime.conmon import Conmon
from estiba.runtime.monitor import MonitorRequest
from estiba.runtime.oci import OciRuntime

path, root, conmon, exits, container_id, bundle, log = sys.argv[1:]

async def main():
    runtime = OciRuntime("x", Path(path), Path(root))
    request = MonitorRequest(
        container_id=container_id,
        bundle=Bundle(Path(bundle)),
        runtime=runtime,
        program="sh",
        log_path=Path(log),
    )
    up = await Conmon(Path(conmon), Path(exits)).start(request)
    await runtime.start(container_id)
    print(up.monitor.pid, up.monitor.start_time, flush=True)
    os.killpg(0, signal.SIGKILL)

asyncio.run(main())
"""


async def test_container_and_monitor_outlive_the_engine(lab) -> None:
    gate = lab.root / "gate"
    os.mkfifo(gate)
    container = lab.container("sh", "-c", "read x < /gate; echo survived; exit 3")
    request = container.request
    words = [lab.runtime.path, lab.runtime.root, lab.monitor.path, lab.monitor.exit_dir]
    engine = await spawn.run(
        [
            "setsid",
            "--wait",
            sys.executable,
            "-c",
            _ENGINE,
            *map(str, [*words, container.id, container.bundle.path, request.log_path]),
        ]
    )
    assert engine.stdout, engine.stderr.decode()
    pid, start_time = map(int, engine.stdout.split())
    monitor = pidfd.ProcessIdentity(pid, start_time)
    assert pidfd.is_alive(monitor)
    await run_blocking(gate.write_text, "go\n")
    waiting = lab.monitor.wait_exit(container.id, container.bundle, monitor)
    assert (await asyncio.wait_for(waiting, 10)).code == 3
    assert container.log() == "survived\n"


async def test_nothing_of_the_engine_leaks_into_the_container(lab) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    script = "ls /proc/self/fd | wc -l; grep -E 'Sig(Ign|Blk)' /proc/self/status; env"
    container = lab.container("sh", "-c", script)
    await container.run()
    os.close(reader)
    os.close(writer)
    lines = container.log().splitlines()
    assert int(lines[0]) == 4  # its streams and the listing's own
    assert [line.split()[1] for line in lines[1:3]] == ["0" * 16, "0" * 16]
    assert sorted(line.partition("=")[0] for line in lines[3:]) == [
        "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL",
    ]  # fmt: skip


async def wait_until(condition, deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - any condition, no event tells of it
            await asyncio.sleep(0.005)
