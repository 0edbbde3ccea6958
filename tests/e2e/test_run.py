"""`docker run`, `exec` and `attach`: programs, streams, terminals, with the real docker client."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import threading
import time

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


def test_output_and_exit_code(daemon: PrivateDaemon) -> None:
    done = daemon.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


@pytest.mark.parametrize(
    ("command", "code"),
    [("nosuch", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126)],
)
def test_a_command_that_cannot_start(daemon: PrivateDaemon, command: str, code: int) -> None:
    done = daemon.docker("run", "--rm", "busybox", command, check=False)
    assert done.returncode == code
    assert command.encode() in done.stderr


def test_stdin_is_passed_and_closed(daemon: PrivateDaemon) -> None:
    assert daemon.run("-i", "busybox", "cat", stdin=b"hello\n") == "hello\n"


def test_much_stdin_comes_back_whole(daemon: PrivateDaemon) -> None:
    data = os.urandom(20_000_000)
    done = daemon.docker("run", "--rm", "-i", "busybox", "cat", stdin=data)
    assert done.stdout == data


def test_exec_with_100_mb(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    data = os.urandom(1_000_000) * 100
    assert daemon.docker("exec", "-i", "box", "cat", stdin=data).stdout == data


def test_exec_exit_codes(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    assert daemon.docker("exec", "box", "sh", "-c", "exit 5", check=False).returncode == 5
    assert daemon.docker("exec", "box", "nosuch", check=False).returncode == 127
    assert daemon.docker("exec", "box", "/etc/passwd", check=False).returncode == 126
    assert daemon.docker("exec", "-u", "user", "box", "id", "-u").stdout == b"1000\n"
    assert daemon.docker("exec", "-w", "/tmp", "box", "pwd").stdout == b"/tmp\n"
    assert daemon.docker("exec", "-e", "A=b", "box", "sh", "-c", "echo $A").stdout == b"b\n"


def _in_terminal(daemon: PrivateDaemon, arguments: list[str], typed: bytes) -> tuple[bytes, int]:
    """Runs docker under a pty, types, and returns all output and the exit code."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["docker", *arguments], stdin=slave, stdout=slave, stderr=slave,
        env=daemon.client_environment(), start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    end = time.monotonic() + 30
    sent = False
    while time.monotonic() < end:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
        if not sent and b"#" in seen:
            os.write(master, typed)
            sent = True
        if process.poll() is not None and not ready:
            break
    os.close(master)
    return seen, process.wait(10)


def test_an_interactive_terminal(daemon: PrivateDaemon) -> None:
    seen, code = _in_terminal(
        daemon, ["run", "--rm", "-it", "busybox", "sh"], b"tty; stty size; exit 3\n"
    )
    assert b"/dev/pts/0" in seen
    assert code == 3


def test_detach_keys_leave_the_container_running(daemon: PrivateDaemon) -> None:
    _, code = _in_terminal(daemon, ["run", "-it", "--name", "left", "busybox", "sh"], b"\x10\x11")
    assert daemon.inspect("left")["State"]["Running"]
    assert code == 0


def test_exec_in_a_terminal(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    seen, code = _in_terminal(daemon, ["exec", "-it", "box", "sh"], b"tty; exit 4\n")
    assert b"/dev/pts/" in seen
    assert code == 4


def test_two_clients_attached_see_the_same(daemon: PrivateDaemon) -> None:
    script = "read line; for i in 1 2 3; do echo tick $i; done"
    daemon.docker("run", "-di", "--name", "two", "busybox", "sh", "-c", script)
    results: list[bytes] = []

    def attach(stdin: bytes | None) -> None:
        arguments = ["attach", "two"] if stdin else ["attach", "--no-stdin", "two"]
        results.append(daemon.docker(*arguments, stdin=stdin).stdout)

    watcher = threading.Thread(target=attach, args=(None,))
    watcher.start()
    wait_until(lambda: b'"attach"' in daemon.events("two"), what="the first client to be attached")
    attach(b"go\n")
    watcher.join(30)
    assert results == [b"tick 1\ntick 2\ntick 3\n"] * 2


def test_a_client_that_is_killed_in_the_middle(daemon: PrivateDaemon) -> None:
    process = subprocess.Popen(
        ["docker", "run", "--name", "orphan", "busybox", "sh", "-c", "while :; do echo x; done"],
        stdout=subprocess.DEVNULL, env=daemon.client_environment(),
    )  # fmt: skip
    wait_until(
        lambda: (
            daemon.request("GET", "/containers/orphan/json")[0] == 200
            and daemon.inspect("orphan")["State"]["Running"]
        ),
        what="the container",
    )
    process.kill()
    process.wait()
    assert daemon.inspect("orphan")["State"]["Running"]
    assert daemon.docker("exec", "orphan", "echo", "alive").stdout == b"alive\n"


def test_a_client_that_does_not_read_never_freezes_the_container(daemon: PrivateDaemon) -> None:
    script = (
        "for i in 1 2 3 4 5; do head -c 1000000 /dev/zero; done; echo done > /tmp/done; sleep 99"
    )
    daemon.docker("create", "--name", "stuck", "busybox", "sh", "-c", script)
    process = subprocess.Popen(
        ["docker", "start", "-a", "stuck"], stdout=subprocess.PIPE, env=daemon.client_environment()
    )
    try:
        wait_until(
            lambda: (
                daemon.docker("exec", "stuck", "cat", "/tmp/done", check=False).stdout == b"done\n"
            ),
            what="the container to go on",
        )
    finally:
        process.kill()
        process.communicate()
