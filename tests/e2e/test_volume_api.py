"""What clients may send to the routes of volumes that are our own, and leave in the middle."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]


def make(daemon: PrivateDaemon, name: str, **options: str) -> Path:
    body = {"Name": name, "DriverOpts": options}
    status, answer = daemon.request("POST", "/volumes/create", body)
    assert status == 201, answer
    return Path(answer["Mountpoint"])


def quoted(value: Any) -> str:
    return urllib.parse.quote(json.dumps(value))


REFUSED = [
    ("POST", "/volumes/data/clone", 400, "the parameter name must be given"),
    ("POST", "/volumes/none/clone?name=copy", 404, "get none: no such volume"),
    ("POST", "/volumes/data/clone?name=..%2Fup", 400, "invalid characters"),
    ("POST", "/volumes/data/clone?name=data", 409, "a name of its own"),
    ("POST", "/volumes/data/clone?name=other", 409, "exists already"),
    ("POST", "/volumes/data/clone?name=copy&options=x", 400, "not JSON"),
    ("POST", "/volumes/data/clone?name=copy&options=[1]", 400, "object of strings"),
    (
        "POST",
        f"/volumes/data/clone?name=copy&options={quoted({'a': 1})}",
        400,
        "object of strings",
    ),
    (
        "POST",
        f"/volumes/data/clone?name=copy&options={quoted({'evil': ''})}",
        400,
        "invalid option",
    ),
    ("POST", "/volumes/data/rename?name=other", 409, "exists already"),
    ("POST", "/volumes/data/rename", 400, "must be given"),
    ("POST", "/volumes/data/rename?name=.hidden", 400, "invalid characters"),
    ("POST", "/volumes/data/resize?size=1g", 409, "has no limit"),
    ("POST", "/volumes/none/snapshots", 404, "no such volume"),
    ("POST", "/volumes/data/snapshots?tag=a%2Fb", 400, "invalid tag"),
    ("GET", "/volumes/none/snapshots", 404, "no such volume"),
    ("POST", "/volumes/data/snapshots/none/restore", 404, "has no snapshot"),
    ("POST", "/volumes/data/snapshots/..%2F_data/restore", 404, ""),
    ("DELETE", "/volumes/data/snapshots/..", 404, "has no snapshot"),
    ("GET", "/volumes/none/backup", 404, "no such volume"),
    ("POST", "/volumes/none/backup/push?ref=localhost:1/x", 404, "no such volume"),
    ("POST", "/volumes/data/backup/push?ref=UPPER", 400, "invalid reference"),
    ("POST", "/volumes/data/backup/push", 400, "must be given"),
    ("POST", "/volumes/new/restore/pull", 400, "must be given"),
    ("POST", "/volumes/new/restore", 400, "no backup of a volume"),
]


@pytest.mark.parametrize(("method", "path", "status", "words"), REFUSED)
def test_what_is_refused(
    daemon: PrivateDaemon, method: str, path: str, status: int, words: str
) -> None:
    for name in ("data", "other"):
        make(daemon, name)
    found, answer = daemon.request(method, path)
    assert found == status, answer
    assert words in answer["message"]
    views = daemon.request("GET", "/volumes")[1]["Volumes"]
    assert sorted(view["Name"] for view in views) == ["data", "other"]


def test_a_body_that_means_harm(daemon: PrivateDaemon) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, data in (("volume.json", b'{"format":1,"name":"x"}'), ("data/../../up", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    kind = {"Content-Type": "application/x-tar"}
    status, answer = daemon.request("POST", "/volumes/new/restore", whole.getvalue(), kind)
    assert (status, "leads out" in answer["message"]) == (400, True)
    assert [path.name for path in (daemon.data_root / "volumes").iterdir()] == []


def talk(daemon: PrivateDaemon, request: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(daemon.socket))
    connection.sendall(request)
    return connection


def test_a_reader_that_leaves_lets_go_of_the_volume(daemon: PrivateDaemon) -> None:
    make(daemon, "data", size="64m")
    daemon.run("-v", "data:/v", "busybox", "dd", "if=/dev/urandom", "of=/v/f", "bs=1M", "count=40")
    reader = talk(daemon, b"GET /volumes/data/backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reader.recv(100).startswith(b"HTTP/1.1 200")
    status, answer = daemon.request("DELETE", "/volumes/data")
    assert (status, "being copied now" in answer["message"]) == (409, True)
    reader.close()
    wait_until(
        lambda: not HostState.read(only=str(daemon.root)).loops, what="the volume to be let go"
    )
    assert daemon.request("DELETE", "/volumes/data")[0] == 204


def test_a_reader_who_is_slow_keeps_nobody_paused(daemon: PrivateDaemon) -> None:
    """And the backup has what there was while they stood still."""
    make(daemon, "data")
    script = "dd if=/dev/urandom of=/v/f bs=1M count=40; exec sleep 1000"
    daemon.docker("run", "-d", "--name", "user", "-v", "data:/v", "busybox", "sh", "-c", script)
    wait_until(
        lambda: daemon.docker("top", "user").stdout.endswith(b"sleep 1000\n"), what="the file"
    )
    reader = talk(daemon, b"GET /volumes/data/backup?pause=1 HTTP/1.0\r\nHost: x\r\n\r\n")
    head = reader.recv(100)
    assert head.startswith(b"HTTP/1.1 200"), head
    assert daemon.inspect("user")["State"]["Status"] == "running"
    events = [json.loads(line)["Action"] for line in daemon.events("user").splitlines()]
    assert events[-2:] == ["pause", "unpause"]
    daemon.docker("exec", "user", "sh", "-c", "echo later > /v/later; rm /v/f")
    with reader.makefile("rb") as rest:
        body = (head + rest.read()).partition(b"\r\n\r\n")[2]
    status, answer = daemon.request("POST", "/volumes/new/restore", body)
    assert status == 201, answer
    restored = Path(answer["Mountpoint"])
    assert [path.name for path in restored.iterdir()] == ["f"]
    assert (restored / "f").stat().st_size == 40 << 20
    daemon.docker("rm", "-f", "user")


def test_a_paused_backup_that_fails_or_dies_leaves_nobody_paused(daemon: PrivateDaemon) -> None:
    make(daemon, "data")
    try:
        daemon.restart({"ESTIBA_FAILPOINTS": "volumes.spooling=error"})
        daemon.docker("run", "-d", "--name", "user", "-v", "data:/v", "busybox", "sleep", "1000")
        status, answer = daemon.request("GET", "/volumes/data/backup?pause=1")
        assert status == 500, answer
        assert daemon.inspect("user")["State"]["Status"] == "running"
        daemon.restart({"ESTIBA_FAILPOINTS": "volumes.spooling=kill"})
        reader = talk(daemon, b"GET /volumes/data/backup?pause=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        daemon.wait_death()
        reader.close()
    finally:
        daemon.stop()
        daemon.start()
    daemon.wait_state("user", "running")
    assert list((daemon.data_root / "tmp").iterdir()) == []
    assert daemon.request("GET", "/volumes/data/backup?pause=1")[0] == 200
    daemon.docker("rm", "-f", "user")


def test_a_sender_that_leaves_makes_no_volume(daemon: PrivateDaemon) -> None:
    head = (
        b"POST /volumes/new/restore HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-tar\r\nContent-Length: 100000\r\n\r\n"
    )
    sender = talk(daemon, head + bytes(512))
    others = []
    thread = threading.Thread(target=lambda: others.append(make(daemon, "beside")))
    thread.start()
    thread.join()
    assert others, "nobody else waits for it"
    sender.close()
    folder = daemon.data_root / "volumes"
    wait_until(lambda: [path.name for path in folder.iterdir()] == ["beside"], what="the sweep")
    assert daemon.request("GET", "/volumes/new")[0] == 404
