"""kill -9 of the daemon at every step of create, start, stop and remove.

Whatever the instant: after the next start the state is true, and nothing is left that no
record justifies.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean

from estiba.kernel.pidfd import identify, is_alive

pytestmark = pytest.mark.e2e

CREATE = ["create.begun", "prepare.snapshot", "create.prepared"]
START = [
    "start.begun",
    "start.mounted",
    "start.sandbox",
    "network.sandbox-open",
    "start.connected",
    "start.bundle",
    "start.created",
    "start.releasing",
    "start.released",
]
END = ["teardown.deleted", "teardown.disconnected", "teardown.unmounted"]
REMOVE = ["teardown.deleted", "discard.run", "discard.snapshot"]

BODY = {
    "Image": "busybox",
    "Cmd": ["sleep", "1000"],
    "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}, "Binds": ["/anon"]},
}


@pytest.fixture
def daemon(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon()
    made.start()
    made.import_busybox()
    return made


def create(daemon: PrivateDaemon) -> None:
    body = {**BODY, "HostConfig": {"PortBindings": BODY["HostConfig"]["PortBindings"]}}
    daemon.request("POST", "/containers/create?name=box", body)


def start(daemon: PrivateDaemon) -> None:
    daemon.request("POST", "/containers/box/start")


def kill(daemon: PrivateDaemon) -> None:
    daemon.request("POST", "/containers/box/kill")


def remove(daemon: PrivateDaemon) -> None:
    daemon.request("DELETE", "/containers/box?v=1")


def die_in(daemon: PrivateDaemon, point: str, action: Callable[[PrivateDaemon], None]) -> bool:
    """Does `action` on a daemon that dies at `point`; False when the point was not reached.

    The points of recovery itself would fire too early, so the daemon is told afterwards.
    """
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        action(daemon)
        return False
    daemon.wait_death()
    daemon.start()
    return True


def check_true(daemon: PrivateDaemon, before: HostState) -> None:
    """The container is wholly there or not at all, can be used, and leaves nothing."""
    status, view = daemon.request("GET", "/containers/box/json")
    if status == 200:
        state = view["State"]["Status"]
        assert state in ("created", "running", "exited"), view["State"]
        if state == "running":
            assert Path(f"/proc/{view['State']['Pid']}").exists()
        else:
            assert daemon.request("POST", "/containers/box/start")[0] == 204
        assert daemon.docker("exec", "box", "echo", "alive").stdout == b"alive\n"
        assert daemon.request("DELETE", "/containers/box?force=1&v=1")[0] == 204
    else:
        assert status == 404
    assert daemon.request("GET", "/containers/json?all=1")[1] == []
    assert not list((daemon.data_root / "containers").iterdir())
    assert not list((daemon.exec_root / "containers").iterdir())
    assert not list((daemon.data_root / "snapshots" / "active").iterdir())
    assert_clean(before, only=daemon.tag)


@pytest.mark.parametrize("point", CREATE)
def test_killed_in_create(daemon: PrivateDaemon, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    die_in(daemon, point, create)
    check_true(daemon, before)


@pytest.mark.parametrize("point", START)
def test_killed_in_start(daemon: PrivateDaemon, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    assert die_in(daemon, point, start), f"{point} was not reached"
    check_true(daemon, before)


def pause(daemon: PrivateDaemon) -> None:
    daemon.request("POST", "/containers/box/pause")


def unpause(daemon: PrivateDaemon) -> None:
    daemon.request("POST", "/containers/box/unpause")


@pytest.mark.parametrize(("point", "verb"), [("pause.frozen", pause), ("unpause.thawed", unpause)])
def test_killed_around_the_freezer(
    daemon: PrivateDaemon, point: str, verb: Callable[[PrivateDaemon], None]
) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    start(daemon)
    if verb is unpause:
        pause(daemon)
    assert die_in(daemon, point, verb), f"{point} was not reached"
    assert daemon.inspect("box")["State"]["Status"] == "running"
    check_true(daemon, before)


def test_a_pause_that_fails_is_undone(daemon: PrivateDaemon) -> None:
    daemon.restart({"ESTIBA_FAILPOINTS": "pause.frozen=error"})
    create(daemon)
    start(daemon)
    assert daemon.request("POST", "/containers/box/pause")[0] == 500
    assert daemon.docker("exec", "box", "echo", "alive").stdout == b"alive\n"
    daemon.request("DELETE", "/containers/box?force=1&v=1")


@pytest.mark.parametrize("point", ["layer.unpacked", "layer.renamed"])
def test_killed_while_an_image_is_made(daemon: PrivateDaemon, point: str) -> None:
    """The pause of a commit ends with it, and no half of an image is left."""
    before = HostState.read(only=daemon.tag)
    create(daemon)
    start(daemon)

    def commit(daemon: PrivateDaemon) -> None:
        daemon.request("POST", "/commit?container=box&repo=half&tag=1")

    assert die_in(daemon, point, commit), f"{point} was not reached"
    assert daemon.inspect("box")["State"]["Status"] == "running"
    assert daemon.request("GET", "/images/half:1/json")[0] == 404
    assert len(list((daemon.data_root / "images" / "layers").iterdir())) == 1
    ingest = daemon.data_root / "images" / "ingest"
    wait_until(lambda: not list(ingest.iterdir()), what="the files of removed layers to go")
    check_true(daemon, before)


def test_killed_while_a_frozen_program_is(daemon: PrivateDaemon) -> None:
    create(daemon)
    start(daemon)
    pause(daemon)
    assert die_in(daemon, "unpause.thawed", kill)
    daemon.wait_state("box", "exited")
    assert daemon.inspect("box")["State"]["ExitCode"] == 137


@pytest.mark.parametrize("point", END)
def test_killed_at_the_end_of_a_run(daemon: PrivateDaemon, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    start(daemon)

    def end(daemon: PrivateDaemon) -> None:
        kill(daemon)
        wait_until(lambda: daemon.request("GET", "/containers/box/json") is None, what="death")

    assert die_in(daemon, point, end), f"{point} was not reached"
    view = daemon.inspect("box")
    assert view["State"]["Status"] == "exited"
    assert view["State"]["ExitCode"] == 137
    check_true(daemon, before)


@pytest.mark.parametrize("point", REMOVE)
def test_killed_in_remove(daemon: PrivateDaemon, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    assert die_in(daemon, point, remove), f"{point} was not reached"
    assert daemon.request("GET", "/containers/box/json")[0] == 404
    check_true(daemon, before)


def test_killed_in_recovery_too(daemon: PrivateDaemon) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    assert die_in_once(daemon, "start.created", start)
    for point in ("teardown.deleted", "teardown.disconnected", "teardown.unmounted"):
        daemon.start({"ESTIBA_FAILPOINTS": f"{point}=kill"}, wait=False)
        daemon.wait_death()
    daemon.start()
    check_true(daemon, before)


def die_in_once(daemon: PrivateDaemon, point: str, action: Callable[[PrivateDaemon], None]) -> bool:
    """`die_in` without the start that follows."""
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        action(daemon)
        return False
    daemon.wait_death()
    return True


@pytest.mark.parametrize("point", [*START, "network.sandbox-open"])
def test_an_error_in_start_is_undone(daemon: PrivateDaemon, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    create(daemon)
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=error"})
    status, answer = daemon.request("POST", "/containers/box/start")
    assert status == 500, answer
    assert daemon.inspect("box")["State"]["Status"] == "created"
    check_true(daemon, before)


def test_running_containers_outlive_the_daemon(daemon: PrivateDaemon) -> None:
    ticker = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    daemon.docker("run", "-d", "--name", "live", "busybox", "sh", "-c", ticker)
    until_told = "until [ -e /end/now ]; do sleep 0.02; done"
    end = ("-v", f"{daemon.root}/end:/end:ro", "busybox", "sh", "-c")
    daemon.docker("run", "-d", "--name", "ends", *end, f"{until_told}; exit 9")
    daemon.docker("run", "-d", "--name", "auto", "--rm", *end, until_told)
    daemon.docker("run", "-d", "--name", "kept", "--restart", "always", *end,
                  f"{until_told}; sleep 0.3")  # fmt: skip
    pid = daemon.inspect("live")["State"]["Pid"]
    daemon.kill9()
    (daemon.root / "end" / "now").touch()
    wait_until(
        lambda: len(list((daemon.exec_root / "exits").iterdir())) >= 3,
        what="the three to end without the daemon",
    )
    daemon.start()
    assert daemon.inspect("live")["State"]["Pid"] == pid
    assert daemon.inspect("ends")["State"]["ExitCode"] == 9
    assert daemon.inspect("kept")["State"]["Status"] in ("running", "restarting")
    assert daemon.request("GET", "/containers/auto/json")[0] == 404
    lines = daemon.docker("logs", "live").stdout.split()
    assert lines == [b"%d" % number for number in range(1, len(lines) + 1)]
    assert daemon.docker("exec", "live", "echo", "hi").stdout == b"hi\n"
    daemon.docker("stop", "-t", "0", "live")


def monitor_of(daemon: PrivateDaemon, name: str) -> int:
    status = Path(f"/proc/{daemon.inspect(name)['State']['Pid']}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid")))


@pytest.mark.parametrize("circumstance", ["running", "paused", "with exec", "no daemon"])
def test_a_killed_monitor_ends_its_container(daemon: PrivateDaemon, circumstance: str) -> None:
    before = HostState.read(only=daemon.tag)
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    identity = identify(daemon.inspect("box")["State"]["Pid"])
    monitor = monitor_of(daemon, "box")
    if circumstance == "paused":
        pause(daemon)
    if circumstance == "with exec":
        daemon.docker("exec", "-d", "box", "sleep", "1000")
    if circumstance == "no daemon":
        daemon.kill9()
    os.kill(monitor, signal.SIGKILL)
    if circumstance == "no daemon":
        daemon.start()
    daemon.wait_state("box", "exited")
    assert "monitor" in daemon.inspect("box")["State"]["Error"]
    assert not is_alive(identity)
    check_true(daemon, before)
