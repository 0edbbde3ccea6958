"""Answers of the operations on containers and execs: statuses, shapes, what changes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def clean(daemon: PrivateDaemon) -> Iterator[None]:
    yield
    for view in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{view['Id']}?force=1&v=1")


def made(daemon: PrivateDaemon, name: str = "box", **body: Any) -> str:
    whole = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopTimeout": 0, **body}
    status, answer = daemon.request("POST", f"/containers/create?name={name}", whole)
    assert status == 201, answer
    return str(answer["Id"])


def started(daemon: PrivateDaemon, name: str = "box", **body: Any) -> str:
    container_id = made(daemon, name, **body)
    status, answer = daemon.request("POST", f"/containers/{name}/start")
    assert status == 204, answer
    return container_id


# -- execs ---------------------------------------------------------------------------------


def exec_made(daemon: PrivateDaemon, *command: str, **body: Any) -> str:
    status, answer = daemon.request("POST", "/containers/box/exec", {"Cmd": command, **body})
    assert status == 201, answer
    return str(answer["Id"])


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_detached_exec_says_why_it_did_not_start(daemon: PrivateDaemon, runtime: str) -> None:
    started(daemon, HostConfig={"Runtime": runtime})
    for command, options, code, why in (
        ("nosuch", {}, 127, "executable file not found"),
        ("/etc", {}, 126, "permission denied"),
        ("true", {"WorkingDir": "/nosuch"}, None, "o such file or directory"),
    ):
        exec_id = exec_made(daemon, command, **options)
        status, answer = daemon.request("POST", f"/exec/{exec_id}/start", {"Detach": True})
        assert status == 400, (command, answer)
        assert why in answer["message"]
        view = daemon.request("GET", f"/exec/{exec_id}/json")[1]
        assert not view["Running"]
        assert code is None or view["ExitCode"] == code
    exec_id = exec_made(daemon, "true")
    assert daemon.request("POST", f"/exec/{exec_id}/start", {"Detach": True})[0] == 200


def test_an_exec_without_its_standard_error_still_says_why(daemon: PrivateDaemon) -> None:
    started(daemon)
    exec_id = exec_made(daemon, "nosuch", AttachStdout=True)
    content = daemon.request("POST", f"/exec/{exec_id}/start", {})[1]
    assert b"executable file not found" in content


def test_inspect_shows_an_exec_as_it_was_made(daemon: PrivateDaemon) -> None:
    started(daemon)
    exec_id = exec_made(
        daemon, "sleep", "1000", AttachStdout=True, AttachStdin=True, DetachKeys="ctrl-a"
    )
    assert daemon.inspect("box")["ExecIDs"] == [exec_id], "before its start too"
    assert daemon.request("POST", f"/exec/{exec_id}/start", {"Detach": True})[0] == 200
    view = daemon.request("GET", f"/exec/{exec_id}/json")[1]
    assert (view["Running"], view["ExitCode"], view["CanRemove"]) == (True, None, False)
    assert (view["OpenStdin"], view["OpenStdout"], view["OpenStderr"]) == (True, True, False)
    assert base64.b64decode(view["DetachKeys"]) == b"\x01"
    status, answer = daemon.request("POST", f"/exec/{exec_id}/start", {"Detach": True})
    assert (status, "already running" in answer["message"]) == (409, True)
    assert daemon.request("POST", f"/exec/{exec_id}/resize?h=10&w=20")[0] == 200, "no terminal"
    assert daemon.docker("exec", "box", "kill", "-9", str(_pid_inside(daemon))).returncode == 0
    wait_until(
        lambda: daemon.request("GET", f"/exec/{exec_id}/json")[1]["ExitCode"] == 137,
        what="the exec's end",
    )
    assert daemon.inspect("box")["ExecIDs"] is None


def _pid_inside(daemon: PrivateDaemon) -> int:
    listed = daemon.docker("exec", "box", "pidof", "sleep").stdout.split()
    return max(int(pid) for pid in listed)
