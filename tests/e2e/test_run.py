"""`docker run` and its relatives, with the real docker client."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import IO, cast

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean

from estiba.kernel.cgroup import Hierarchies

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def clean(daemon: PrivateDaemon):
    """No test leaves a container, mount, link or process behind."""
    before = HostState.read(only=daemon.tag)
    yield
    for line in daemon.docker("ps", "-aq").stdout.decode().split():
        daemon.docker("rm", "-fv", line)
    assert_clean(before, only=daemon.tag)


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


def test_stop_signals_and_timeouts(daemon: PrivateDaemon) -> None:
    trap = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    daemon.docker(
        "run", "-d", "--name", "polite", "--stop-signal", "USR1", "busybox", "sh", "-c", trap
    )
    wait_until(lambda: daemon.docker("logs", "polite").stdout, what="the trap")
    daemon.docker("stop", "polite")
    assert daemon.inspect("polite")["State"]["ExitCode"] == 3
    daemon.docker("run", "-d", "--name", "rude", "busybox", "sh", "-c", "trap '' TERM; sleep 999")
    started = time.monotonic()
    daemon.docker("stop", "-t", "1", "rude")
    assert time.monotonic() - started < 5
    assert daemon.inspect("rude")["State"]["ExitCode"] == 137


def test_restart_policy_counts(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "crash", "--restart", "on-failure:2", "busybox", "false")
    wait_until(
        lambda: (
            daemon.inspect("crash")["RestartCount"] == 2
            and daemon.inspect("crash")["State"]["Status"] == "exited"
        ),
        what="two restarts",
    )


def test_a_container_about_to_restart_is_removed_by_force_only(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "false")
    # Its pauses grow: by then they are long enough to meet it in one.
    wait_until(lambda: daemon.inspect("again")["RestartCount"] >= 2, what="restarts")
    daemon.wait_state("again", "restarting")
    status, answer = daemon.request("DELETE", "/containers/again")
    assert (status, "is restarting: stop the container" in answer["message"]) == (409, True)
    daemon.docker("rm", "-f", "again")


def test_on_unhealthy_restarts(daemon: PrivateDaemon) -> None:
    status, answer = daemon.request(
        "POST",
        "/containers/create?name=sick",
        {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "StopSignal": "SIGKILL",
            "Healthcheck": {"Test": ["CMD", "false"], "Interval": 50_000_000, "Retries": 1},
            "HostConfig": {"RestartPolicy": {"Name": "on-unhealthy", "MaximumRetryCount": 2}},
        },
    )
    assert status == 201, answer
    daemon.docker("start", "sick")
    wait_until(lambda: daemon.inspect("sick")["RestartCount"] >= 1, what="a restart")


def test_health(daemon: PrivateDaemon) -> None:
    daemon.docker(
        "run", "-d", "--name", "health", "--health-cmd", "test -e /ok && echo fine",
        "--health-interval", "100ms", "--health-retries", "2", "busybox", "sleep", "1000",
    )  # fmt: skip
    wait_until(
        lambda: daemon.inspect("health")["State"]["Health"]["Status"] == "unhealthy", what="illness"
    )
    daemon.docker("exec", "health", "touch", "/ok")
    health = wait_until(
        lambda: (h := daemon.inspect("health")["State"]["Health"])["Status"] == "healthy" and h,
        what="recovery",
    )
    assert health["Log"][-1]["Output"] == "fine\n"
    assert len(health["Log"]) <= 5


def test_pause_and_unpause(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    daemon.docker("pause", "box")
    assert daemon.inspect("box")["State"]["Status"] == "paused"
    assert daemon.docker("exec", "box", "true", check=False).returncode != 0
    daemon.docker("unpause", "box")
    daemon.docker("exec", "box", "true")
    daemon.docker("pause", "box")
    daemon.docker("kill", "box")
    daemon.wait_state("box", "exited")


def test_wait_rename_port_and_top(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "-p", "80", "busybox", "sleep", "1000")
    daemon.docker("rename", "box", "other")
    assert re.match(rb"0\.0\.0\.0:\d+", daemon.docker("port", "other", "80").stdout)
    assert b"sleep 1000" in daemon.docker("top", "other").stdout
    daemon.docker("kill", "other")
    assert daemon.docker("wait", "other").stdout == b"137\n"


def test_update_of_a_running_container(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000")
    daemon.docker("update", "-m", "32m", "--memory-swap", "32m", "--pids-limit", "50", "box")
    host = daemon.inspect("box")["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (32 << 20, 50)
    shown = daemon.docker("stats", "--no-stream", "--format", "{{json .}}", "box").stdout
    assert json.loads(shown)["MemUsage"].endswith("/ 32MiB")


def test_limits_can_be_taken_away(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "free", "--pids-limit", "-1", "busybox", "sleep", "1000")
    assert daemon.inspect("free")["HostConfig"]["PidsLimit"] is None
    limits = ("--pids-limit", "50", "--cpu-quota", "20000")
    daemon.docker("run", "-d", "--name", "box", *limits, "busybox", "sleep", "1000")
    daemon.docker("update", "--cpu-quota", "-1", "--pids-limit", "-1", "box")
    assert daemon.inspect("box")["HostConfig"]["PidsLimit"] == 0
    group = f"/estiba-test-{daemon.bridge}/{daemon.inspect('box')['Id']}"
    stats = Hierarchies.detect().stats(group)
    assert stats.pids.limit is None
    for directory in Hierarchies.detect().directories(group):
        for name, text in (("cpu.cfs_quota_us", "-1\n"), ("cpu.max", "max 100000\n")):
            if (directory / name).exists():
                assert (directory / name).read_text() == text
    daemon.docker("restart", "-t", "0", "box")
    daemon.wait_state("box", "running")


def test_limits_are_real(daemon: PrivateDaemon) -> None:
    done = daemon.docker(
        "run", "--name", "greedy", "-m", "10m", "--memory-swap", "10m", "busybox",
        "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=50", check=False,
    )  # fmt: skip
    assert done.returncode == 137
    assert daemon.inspect("greedy")["State"]["OOMKilled"]


def test_two_clients_remove_the_same_container(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    codes: list[int] = []
    path = f"/containers/{daemon.inspect('box')['Id']}?force=1"
    threads = [
        threading.Thread(target=lambda: codes.append(daemon.request("DELETE", path)[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(204) >= 1
    assert set(codes) <= {204, 404, 409}
    assert daemon.request("GET", "/containers/box/json")[0] == 404


def test_clear_errors(daemon: PrivateDaemon) -> None:
    def error(*arguments: str) -> str:
        done = daemon.docker(*arguments, check=False)
        assert done.returncode != 0
        return done.stderr.decode()

    assert "No such container" in error("start", "nosuch")
    assert "No such image" in error("image", "inspect", "nosuch")
    daemon.docker("create", "--name", "taken", "busybox")
    assert "already in use" in error("create", "--name", "taken", "busybox")
    assert "bind source path does not exist" in error(
        "create", "--mount", "type=bind,source=/no/such,target=/x", "busybox"
    )
    assert "no such file" in error("run", "--device", "/dev/nosuch", "busybox", "true")
    assert "absolute path" in error("create", "-w", "relative", "busybox")
    assert "6MB" in error("create", "-m", "1m", "busybox")
    assert "refused" in error("run", "-w", "/proc/self/fd/7", "busybox", "true")


def test_a_port_in_use(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "first", "-p", "127.0.0.1::80", "busybox", "sleep", "99")
    port = daemon.inspect("first")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    done = daemon.docker("run", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"already" in done.stderr


def test_published_ports_answer_everywhere(daemon: PrivateDaemon) -> None:
    serve = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    daemon.docker("run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", serve)
    port = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    gateway = f"{daemon.subnet}.1"

    def fetch(address: str) -> bytes:
        done = subprocess.run(
            ["curl", "-s", "-m", "5", f"http://{address}:{port}/"], capture_output=True, check=False
        )
        return done.stdout

    wait_until(lambda: fetch("127.0.0.1") == b"page\n", what="the page")
    assert fetch(gateway) == b"page\n"
    inside = ["sh", "-c", f"wget -q -O - http://{gateway}:{port}/"]
    assert daemon.run("busybox", *inside) == "page\n"
    assert daemon.docker("exec", "web", *inside).stdout == b"page\n"


def test_namespaces_of_others(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sleep", "1000")
    daemon.docker("exec", "donor", "touch", "/dev/shm/shared")
    joined = (
        "--network",
        "container:donor",
        "--pid",
        "container:donor",
        "--ipc",
        "container:donor",
    )
    seen = daemon.run(*joined, "busybox", "sh", "-c", "ls /dev/shm; ps; ip -o -4 addr show eth0")
    address = daemon.inspect("donor")["NetworkSettings"]["IPAddress"]
    assert "shared" in seen and "sleep 1000" in seen and address in seen
    assert daemon.run("--uts", "host", "busybox", "hostname").strip() == os.uname().nodename


def test_files_of_names(daemon: PrivateDaemon) -> None:
    seen = daemon.run(
        "-h", "ship", "--add-host", "db:10.9.8.7", "--dns", "1.2.3.4", "--dns-search", "sea.test",
        "busybox", "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf",
    )  # fmt: skip
    assert seen.startswith("ship\n")
    assert "10.9.8.7\tdb" in seen and "nameserver 1.2.3.4" in seen and "search sea.test" in seen


def test_volumes(daemon: PrivateDaemon) -> None:
    daemon.run("-v", "kept:/data", "busybox", "sh", "-c", "echo 1 > /data/file")
    assert daemon.run("-v", "kept:/data:ro", "busybox", "cat", "/data/file") == "1\n"
    done = daemon.docker(
        "run", "--rm", "-v", "kept:/data:ro", "busybox", "touch", "/data/x", check=False
    )
    assert b"Read-only" in done.stderr
    daemon.docker("run", "--name", "user", "-v", "kept:/data", "-v", "/anon", "busybox", "true")
    assert daemon.docker("volume", "rm", "kept", check=False).returncode != 0
    daemon.docker("rm", "-v", "user")
    assert daemon.docker("volume", "ls", "-q").stdout == b"kept\n"
    daemon.docker("volume", "rm", "kept")


def test_a_file_bound_read_only(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    mount = f"type=bind,source={tmp_path}/file,target=/x,readonly"
    done = daemon.docker(
        "run", "--rm", "--mount", mount, "busybox", "sh", "-c", "cat /x; echo > /x", check=False
    )
    assert done.stdout == b"bound" and b"Read-only" in done.stderr


def test_limits_that_the_host_lacks_are_named_and_left_out(daemon: PrivateDaemon) -> None:
    done = daemon.docker("run", "--rm", "--blkio-weight", "300", "busybox", "echo", "ran")
    assert done.stdout == b"ran\n"
    warnings = daemon.request("GET", "/info")[1]["Warnings"]
    assert (b"Weight discarded" in done.stderr) == any("blkio weight" in w for w in warnings)


def test_log_drivers(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
    assert b"does not support reading" in daemon.docker("logs", "silent", check=False).stderr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        port = receiver.getsockname()[1]
        daemon.docker(
            "run", "--name", "sender", "--log-driver", "syslog",
            "--log-opt", f"syslog-address=udp://127.0.0.1:{port}", "--log-opt", "tag=ship",
            "busybox", "echo", "over the wire",
        )  # fmt: skip
        assert receiver.recv(4096).endswith(b"over the wire")
        for number in range(5):
            daemon.docker(
                "run", "--rm", "--name", "gone", "--log-driver", "syslog",
                "--log-opt", f"syslog-address=udp://127.0.0.1:{port}",
                "--log-opt", "tag={{.Name}}", "busybox", "echo", str(number),
            )  # fmt: skip
            line = receiver.recv(4096)
            assert b" gone[" in line and line.endswith(f": {number}".encode())
    assert daemon.docker("logs", "sender").stdout == b"over the wire\n"
    if not Path("/run/systemd/journal/socket").exists():
        done = daemon.docker(
            "run", "--rm", "--log-driver", "journald", "busybox", "true", check=False
        )
        assert done.returncode == 125 and b"journald is not enabled" in done.stderr


def test_five_hundred_in_a_row_leak_nothing(daemon: PrivateDaemon) -> None:
    def descriptors() -> int:
        assert daemon.process is not None
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    before = descriptors()

    def rounds() -> None:
        for _ in range(125):
            made = daemon.request(
                "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]}
            )
            path = f"/containers/{made[1]['Id']}"
            assert daemon.request("POST", f"{path}/start")[0] == 204
            assert daemon.request("POST", f"{path}/wait")[1]["StatusCode"] == 0
            assert daemon.request("DELETE", path)[0] == 204

    threads = [threading.Thread(target=rounds) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert daemon.request("GET", "/containers/json?all=1")[1] == []
    wait_until(lambda: descriptors() <= before + 5, what="descriptors to be closed")


def test_read_only_root_and_tmpfs(daemon: PrivateDaemon) -> None:
    script = "touch /x 2>/dev/null && echo bad; touch /t/y && df -k /t | tail -1"
    seen = daemon.run("--read-only", "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", script)
    assert "bad" not in seen and "1024" in seen


def test_capabilities_and_privileged(daemon: PrivateDaemon) -> None:
    def caps(*flags: str) -> int:
        seen = daemon.run(*flags, "busybox", "sh", "-c", "grep CapEff /proc/self/status")
        return int(seen.split()[1], 16)

    assert caps() == 0xA80425FB
    assert caps("--cap-drop", "ALL") == 0
    assert caps("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    found = re.search(r"CapBnd:\s+(\w+)", Path("/proc/self/status").read_text())
    bounding = int(found[1], 16) if found else 0
    assert caps("--privileged") == bounding


def test_init_reaps(daemon: PrivateDaemon) -> None:
    seen = daemon.run("--init", "busybox", "sh", "-c", "cat /proc/1/comm")
    assert "init" in seen or "tini" in seen


def test_logs(daemon: PrivateDaemon) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; echo problem >&2; printf partial"
    daemon.docker("run", "--name", "talker", "busybox", "sh", "-c", script)
    done = daemon.docker("logs", "talker")
    assert done.stdout == b"line 1\nline 2\nline 3\nline 4\nline 5\npartial"
    assert done.stderr == b"problem\n"
    assert daemon.docker("logs", "--tail", "2", "talker").stdout.endswith(b"partial")
    stamped = daemon.docker("logs", "-t", "talker").stdout.splitlines()[0]
    assert re.match(rb"\d{4}-\d\d-\d\dT[\d:.]+Z line 1", stamped)
    assert daemon.docker("logs", "--since", "1h", "--until", "30m", "talker").stdout == b""
    status, _ = daemon.request("POST", "/containers/talker/logs/truncate")
    assert status == 204
    assert daemon.docker("logs", "talker").stdout == b""


def test_logs_follow_across_rotation(daemon: PrivateDaemon) -> None:
    count = 20_000
    daemon.docker(
        "create", "--name", "long", "--log-opt", "max-size=100k", "--log-opt", "max-file=50",
        "busybox", "sh", "-c", f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; done",
    )  # fmt: skip
    daemon.docker("start", "long")
    seen = daemon.docker("logs", "-f", "long").stdout
    assert seen.split() == [b"%d" % n for n in range(1, count + 1)]


def test_copy_in_and_out(daemon: PrivateDaemon, tmp_path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    for state in ("created", "running"):
        daemon.docker("rm", "-f", "box", check=False)
        daemon.docker("create", "--name", "box", "-v", "/vol", "busybox", "sleep", "1000")
        if state == "running":
            daemon.docker("start", "box")
        daemon.docker("cp", str(source), "box:/tmp/")
        daemon.docker("cp", str(source), "box:/vol/")
        target = tmp_path / state
        daemon.docker("cp", "box:/tmp/source", str(target))
        assert (target / "sub" / "file").read_text() == "content"
        daemon.docker("cp", "box:/vol/source/sub/file", str(tmp_path / "one"))
        assert (tmp_path / "one").read_text() == "content"
        missing = daemon.docker("cp", "box:/none", "-", check=False).stderr
        assert b"Could not find" in missing or b"No such container:path" in missing


def test_commit_export_import_save_load(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "box", "busybox", "sh", "-c", "echo x > /made; rm /etc/group")
    daemon.docker("commit", "-c", "ENV A=b", "-m", "note", "box", "made:1")
    assert daemon.docker("diff", "box").stdout == b"C /etc\nD /etc/group\nA /made\n"
    assert daemon.run("made:1", "sh", "-c", "cat /made; echo $A; ls /etc/group || true") == "x\nb\n"
    before = daemon.docker("image", "inspect", "-f", "{{.Id}}", "made:1").stdout
    archive = daemon.docker("save", "made:1").stdout
    daemon.docker("rmi", "made:1")
    assert b"Loaded image: made:1" in daemon.docker("load", stdin=archive).stdout
    assert daemon.docker("image", "inspect", "-f", "{{.Id}}", "made:1").stdout == before
    tar = daemon.docker("export", "box").stdout
    daemon.docker("import", "-", "flat:1", stdin=tar)
    assert daemon.run("flat:1", "cat", "/made") == "x\n"
    daemon.docker("rmi", "made:1", "flat:1")


def test_a_load_says_whose_name_it_takes(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "box", "busybox")
    first = daemon.docker("commit", "-m", "1", "box", "made:1").stdout.decode().strip()
    archive = daemon.docker("save", "made:1").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        names, old = (
            json.loads(cast(IO[bytes], members.extractfile(name)).read())
            for name in ("manifest.json", "repositories")
        )
    assert old == {"made": {"1": names[0]["Layers"][-1].rpartition("/")[2]}}
    assert daemon.docker("load", stdin=archive).stdout == b"Loaded image: made:1\n"
    second = daemon.docker("commit", "-m", "2", "box", "made:1").stdout.decode().strip()
    assert daemon.docker("load", stdin=archive).stdout.decode() == (
        f"The image made:1 already exists, renaming the old one with ID {second} to empty string\n"
        "Loaded image: made:1\n"
    )
    daemon.docker("rm", "box")
    daemon.docker("rmi", first, second)


def test_events_and_filters(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--rm", "--name", "eve", "-l", "k=v", "busybox", "true")
    done = daemon.docker(
        "events", "--since", "30s", "--until", str(int(time.time()) + 1),
        "--filter", "container=eve", "--format", "{{.Action}}",
    )  # fmt: skip
    actions = done.stdout.decode().split()
    assert [a for a in actions if a != "attach"] == ["create", "start", "die", "destroy"]
    done = daemon.docker(
        "events", "--since", "30s", "--until", str(int(time.time()) + 1), "--filter", "label=k=v",
        "--filter", "event=die", "--format", "{{json .}}",
    )  # fmt: skip
    event = json.loads(done.stdout.decode().splitlines()[-1])
    assert event["Actor"]["Attributes"]["exitCode"] == "0"


def test_lists_and_filters(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "up", "-l", "a=1", "busybox", "sleep", "1000")
    daemon.docker("create", "--name", "made", "-l", "a=2", "busybox")

    def names(*flags: str) -> list[str]:
        shown = daemon.docker("ps", *flags, "--format", "{{.Names}}").stdout.decode()
        return shown.split()

    assert names() == ["up"]
    assert names("-a") == ["made", "up"]
    assert names("-n", "1") == ["made"]
    assert names("-a", "--filter", "label=a=2") == ["made"]
    assert names("-a", "--filter", "status=created") == ["made"]
    assert names("-a", "--filter", "name=u") == ["up"]
    assert names("-a", "--filter", "ancestor=busybox") == ["made", "up"]
    assert names("--filter", "health=none") == ["up"]


def test_prune(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "--name", "old", "busybox", "true")
    assert daemon.inspect("old")["Id"].encode() in daemon.docker("container", "prune", "-f").stdout
    daemon.docker("system", "df")


def test_runc_too(daemon: PrivateDaemon) -> None:
    assert daemon.run("--runtime", "runc", "busybox", "echo", "hi") == "hi\n"
    done = daemon.docker("run", "--rm", "--runtime", "runc", "busybox", "nosuch", check=False)
    assert done.returncode == 127
