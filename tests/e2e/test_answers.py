"""Answers of the operations on containers and execs: statuses, shapes, what changes them."""

from __future__ import annotations

import base64
import contextlib
import json
import select
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("clean")]


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


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("flags", ["", "-i", "-t"])
def test_an_attached_exec_says_why_in_dockers_words_alone(
    daemon: PrivateDaemon, runtime: str, flags: str
) -> None:
    """As dockerd does on standard output; the exit codes are those of its newer versions."""
    started(daemon, HostConfig={"Runtime": runtime})
    begin = "OCI runtime exec failed: exec failed: unable to start container process: "
    for program, code, why in (
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, 'exec: "/etc": permission denied'),
        ("", 127, 'exec: "": executable file not found in $PATH'),
    ):
        done = daemon.docker("exec", *flags.split(), "box", program, check=False)
        assert done.stdout.decode().rstrip() == f"{begin}{why}: unknown"
        assert (done.stderr, done.returncode) == (b"", code)
    done = daemon.docker("exec", "-w", "/nosuch", "box", "true", check=False)
    assert done.stdout.decode().startswith(f"{begin}chdir ") and done.returncode == 126


def test_a_program_that_ends_at_once_loses_no_output(daemon: PrivateDaemon) -> None:
    started(daemon)
    script = "echo out; echo err >&2; exit 3"
    for _ in range(20):
        done = daemon.docker("exec", "box", "sh", "-c", script, check=False)
        assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)


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
    def listed() -> list[bytes]:
        return daemon.docker("exec", "box", "pidof", "sleep").stdout.split()

    both = wait_until(lambda: len(found := listed()) == 2 and found, what="the exec's program")
    return max(int(pid) for pid in both)


# -- inspect and list ----------------------------------------------------------------------


def test_what_is_empty_is_null_or_absent_as_in_docker(daemon: PrivateDaemon) -> None:
    made(daemon)
    view = daemon.inspect("box")
    host, config = view["HostConfig"], view["Config"]
    for name in ("Binds", "CapAdd", "Devices", "ExtraHosts", "Links", "Ulimits"):
        assert host[name] is None, name
    assert host["Dns"] == host["DnsOptions"] == host["DnsSearch"] == []
    assert not {"Mounts", "Tmpfs", "Sysctls", "StorageOpt", "KernelMemory"} & host.keys()
    assert not {"ExposedPorts", "Healthcheck", "StopSignal", "Shell"} & config.keys()
    assert config["Volumes"] is None
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert "/proc/kcore" in host["MaskedPaths"]
    assert "/proc/sys" in host["ReadonlyPaths"]


def test_what_was_asked_for_comes_back(daemon: PrivateDaemon) -> None:
    mount = {"Type": "volume", "Source": "kept", "Target": "/v", "VolumeOptions": {"NoCopy": True}}
    made(
        daemon,
        Healthcheck={"Test": ["CMD", "true"], "Interval": 10**9},
        HostConfig={"Mounts": [mount], "CapAdd": ["KILL"], "MaskedPaths": [], "Privileged": False},
    )
    view = daemon.inspect("box")
    assert view["HostConfig"]["Mounts"] == [mount]
    assert view["HostConfig"]["CapAdd"] == ["KILL"]
    assert view["HostConfig"]["MaskedPaths"] == []
    assert view["Config"]["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 10**9}
    (listed,) = daemon.request("GET", "/containers/json?all=1")[1]
    source = str(daemon.data_root / "volumes" / "kept" / "_data")
    assert [point["Source"] for point in listed["Mounts"]] == [source]
    assert view["Mounts"] == listed["Mounts"]
    usage = daemon.request("GET", "/system/df?type=volume")[1]["Volumes"]
    assert {"CreatedAt", "UsageData"} <= usage[0].keys()
    daemon.request("DELETE", "/containers/box?force=1")
    daemon.request("DELETE", "/volumes/kept")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ('/containers/json?filters={"status":["odd"]}', "must be one of created, running"),
        ('/containers/json?filters={"health":["odd"]}', "must be one of none, starting"),
        ('/containers/json?filters={"is-task":["odd"]}', "is-task=odd"),
        ('/events?filters={"odd":["x"]}', "invalid filter 'odd'"),
        ('/images/json?filters={"dangling":["odd"]}', "invalid filter 'dangling=odd'"),
    ],
)
def test_filters_refused(daemon: PrivateDaemon, path: str, words: str) -> None:
    status, answer = daemon.request("GET", path)
    assert status == 400, answer
    assert words in answer["message"]


def test_one_until_is_enough_for_prune(daemon: PrivateDaemon) -> None:
    path = '/containers/prune?filters={"until":["1h","2h"]}'
    status, answer = daemon.request("POST", path)
    assert (status, answer["message"]) == (400, "more than one until filter specified")


def test_the_head_of_the_answer_to_a_load_says_that_it_is_done(daemon: PrivateDaemon) -> None:
    saved = daemon.request("GET", "/images/busybox:latest/get")[1]
    with contextlib.closing(UnixConnection(daemon.socket)) as connection:
        connection.putrequest("POST", "/images/load?quiet=1")
        connection.putheader("Content-Type", "application/x-tar")
        connection.putheader("Content-Length", str(len(saved)))
        connection.endheaders()
        connection.send(saved[:1000])
        assert daemon.request("GET", "/_ping")[0] == 200
        assert select.select([connection.sock], [], [], 0)[0] == []
        connection.send(saved[1000:])
        assert connection.getresponse().status == 200
    names = [
        name for image in daemon.request("GET", "/images/json")[1] for name in image["RepoTags"]
    ]
    assert "busybox:latest" in names


# -- events --------------------------------------------------------------------------------


def test_a_run_s_events_come_in_docker_s_order(daemon: PrivateDaemon) -> None:
    began = str(daemon.request("GET", "/info")[1]["SystemTime"])
    started(daemon, HostConfig={"Binds": ["events:/v"]})
    assert daemon.request("GET", "/containers/box/top")[0] == 200
    daemon.request("POST", "/containers/box/stop?t=0")
    daemon.request("DELETE", "/containers/box")
    daemon.request("DELETE", "/volumes/events")
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    content = daemon.request("GET", f"/events?since={began}&until={until}")[1]
    lines = content.splitlines() if isinstance(content, bytes) else [json.dumps(content)]
    events = [json.loads(line) for line in lines]
    assert [f"{event['Type']} {event['Action']}" for event in events] == [
        "volume create",
        "container create",
        "volume mount",
        "network connect",
        "container start",
        "container top",
        "container kill",
        "container kill",
        "network disconnect",
        "volume unmount",
        "container die",
        "container stop",
        "container destroy",
        "volume destroy",
    ]
    assert events[2]["Actor"]["Attributes"]["destination"] == "/v"
    assert events[2]["Actor"]["Attributes"]["read/write"] == "true"


# -- update --------------------------------------------------------------------------------


def test_an_update_says_what_it_did_not_change(daemon: PrivateDaemon) -> None:
    started(daemon, HostConfig={"NanoCpus": 10**9})
    body = {"CpuShares": 300, "KernelMemory": 1 << 26, "Ulimits": [{"Name": "core", "Soft": 1}]}
    status, answer = daemon.request("POST", "/containers/box/update", body)
    assert status == 200, answer
    assert sorted(text.split()[0] for text in answer["Warnings"]) == ["Kernel", "Ulimits"]
    host = daemon.inspect("box")["HostConfig"]
    assert (host["CpuShares"], host["Ulimits"]) == (300, None)
    status, answer = daemon.request("POST", "/containers/box/update", {"CpuQuota": 50_000})
    assert (status, "NanoCPUs has already been set" in answer["message"]) == (409, True)


# -- create --------------------------------------------------------------------------------


def test_requests_for_nothing(daemon: PrivateDaemon) -> None:
    for body in (None, {}):
        status, answer = daemon.request("POST", "/containers/create", body)
        assert status == 400
        assert answer["message"] == "config cannot be empty in order to create a container"
    assert daemon.request("POST", "/commit", {})[0] == 400


def test_settings_of_an_interface(daemon: PrivateDaemon) -> None:
    options = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}
    started(
        daemon,
        NetworkingConfig={"EndpointsConfig": {"bridge": {"DriverOpts": options}}},
    )
    read = daemon.docker("exec", "box", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians")
    assert read.stdout == b"1\n"


def test_a_mount_that_cannot_propagate_is_said(daemon: PrivateDaemon, tmp_path: Path) -> None:
    private, shared = tmp_path / "private", tmp_path / "shared"
    with contextlib.ExitStack() as stack:
        for path in (private, shared):
            path.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
            stack.callback(subprocess.run, ["umount", "-l", path], check=False)
            subprocess.run(["mount", f"--make-{path.name}", path], check=True)
        binds = [f"{private}:/a:rslave", f"{shared}:/b:rslave", f"{private}:/c:rprivate"]
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": binds}}
        answer = daemon.request("POST", "/containers/create?name=box", body)[1]
        (warning,) = answer["Warnings"]
        assert "it is not a shared or slave mount" in warning
        assert str(private) in warning
        assert daemon.request("POST", "/containers/box/start")[0] == 204
        (shared / "late").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shared / "late"], check=True)
        stack.callback(subprocess.run, ["umount", "-l", shared / "late"], check=False)
        (shared / "late" / "seen").touch()
        assert daemon.docker("exec", "box", "ls", "/b/late").stdout == b"seen\n"
        daemon.request("DELETE", "/containers/box?force=1")


def test_a_login_asks_the_registry(daemon: PrivateDaemon) -> None:
    body = {"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}
    status, answer = daemon.request("POST", "/auth", body)
    assert (status, "refused" in answer["message"]) == (500, True)
    assert daemon.request("POST", "/auth", {"username": 5})[0] == 400


def test_a_prune_is_one_event_of_its_kind(daemon: PrivateDaemon) -> None:
    began = daemon.request("GET", "/info")[1]["SystemTime"]
    kinds = {"containers": "container", "networks": "network", "images": "image"}
    kinds |= {"volumes": "volume", "build": "builder"}
    for path in kinds:
        assert daemon.request("POST", f"/{path}/prune")[0] == 200
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    path = f'/events?since={began}&until={until}&filters={{"event":["prune"]}}'
    status, lines = daemon.request("GET", path)
    events = [json.loads(line) for line in lines.splitlines()]
    assert status == 200 and [event["Type"] for event in events] == list(kinds.values())
    assert all(int(event["Actor"]["Attributes"]["reclaimed"]) >= 0 for event in events)
