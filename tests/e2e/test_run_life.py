"""How containers start again, change, pause and end, with the real docker client."""

from __future__ import annotations

import json
import os
import re
import threading

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

from estiba.kernel.cgroup import Hierarchies

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


def test_stop_signals_and_timeouts(daemon: PrivateDaemon) -> None:
    trap = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    daemon.docker(
        "run", "-d", "--name", "polite", "--stop-signal", "USR1", "busybox", "sh", "-c", trap
    )
    wait_until(lambda: daemon.docker("logs", "polite").stdout, what="the trap")
    daemon.docker("stop", "polite")
    assert daemon.inspect("polite")["State"]["ExitCode"] == 3
    daemon.docker("run", "-d", "--name", "rude", "busybox", "sh", "-c", "trap '' TERM; sleep 999")
    daemon.docker("stop", "-t", "1", "rude")
    kills = [one for one in map(json.loads, daemon.events("rude").splitlines())
             if one["Action"] == "kill"]  # fmt: skip
    assert [one["Actor"]["Attributes"]["signal"] for one in kills] == ["15", "9"]
    assert 1e9 <= kills[1]["timeNano"] - kills[0]["timeNano"] < 5e9
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
    wait_until(lambda: b"sleep 1000" in daemon.docker("top", "other").stdout, what="the program")
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


def test_init_reaps(daemon: PrivateDaemon) -> None:
    seen = daemon.run("--init", "busybox", "sh", "-c", "cat /proc/1/comm")
    assert "init" in seen or "tini" in seen


def test_runc_too(daemon: PrivateDaemon) -> None:
    assert daemon.run("--runtime", "runc", "busybox", "echo", "hi") == "hi\n"
    done = daemon.docker("run", "--rm", "--runtime", "runc", "busybox", "nosuch", check=False)
    assert done.returncode == 127
