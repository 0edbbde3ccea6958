"""kill -9 of the daemon while mounts are made and taken away: nothing stays mounted."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean

from estiba.kernel.mounts import mounted_under

pytestmark = pytest.mark.e2e

SCRIPT = "stat -c%u /mapped; ls /sub /image/bin/busybox; touch /ram/file; sleep 1000"


@pytest.fixture
def daemon(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon()
    made.start()
    made.import_busybox()
    return made


def body(source: Path) -> dict[str, Any]:
    """A container with every kind of mount that the engine itself makes on the host."""
    ram = {"type": "tmpfs", "device": "tmpfs"}
    return {
        "Image": "busybox",
        "Cmd": ["sh", "-c", SCRIPT],
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [f"{source}:/mapped:idmap"],
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "tree",
                    "Target": "/sub",
                    "VolumeOptions": {"Subpath": "a/b"},
                },
                {
                    "Type": "volume",
                    "Source": "ram",
                    "Target": "/ram",
                    "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": ram}},
                },
                {"Type": "image", "Source": "busybox", "Target": "/image"},
            ],
        },
    }


def die_in(daemon: PrivateDaemon, point: str, method: str, path: str, content: Any = None) -> None:
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        daemon.request(method, path, content)
        wait_until(lambda: daemon.request("GET", "/_ping") is None, what=f"death at {point}")
    daemon.wait_death()
    daemon.start()


@pytest.mark.parametrize(
    "point",
    [
        "create.begun", "prepare.snapshot", "create.prepared", "volumes.directory-made",
        "volumes.made", "volumes.made#2",
    ],
)  # fmt: skip
def test_killed_in_create(daemon: PrivateDaemon, tmp_path: Path, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    source = tmp_path / "source"
    source.mkdir()
    die_in(daemon, point, "POST", "/containers/create?name=box", body(source))
    assert daemon.request("GET", "/containers/json?all=1")[1] == []
    status, answer = daemon.request("POST", "/containers/create?name=box", body(source))
    assert status == 201, answer
    leave(daemon, before)


@pytest.mark.parametrize(
    "point",
    [
        "start.begun", "start.mounted", "start.connected", "pins.place-made", "pins.place-made#2",
        "start.bundle", "start.created", "start.releasing", "start.released",
    ],
)  # fmt: skip
def test_killed_in_start(daemon: PrivateDaemon, tmp_path: Path, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    source = tmp_path / "source"
    source.mkdir()
    os.chown(source, 1000, 1000)
    assert daemon.request("POST", "/containers/create?name=box", body(source))[0] == 201
    die_in(daemon, point, "POST", "/containers/box/start")
    if daemon.inspect("box")["State"]["Status"] != "running":
        assert not list(mounted_under(daemon.exec_root / "containers"))
        assert not list(mounted_under(daemon.data_root / "volumes"))
        assert daemon.request("POST", "/containers/box/start")[0] == 204
    ready = "/ram/file"
    wait_until(
        lambda: daemon.docker("exec", "box", "ls", ready, check=False).returncode == 0,
        what="the program to be ready",
    )
    assert daemon.docker("exec", "box", "stat", "-c%u", "/mapped").stdout == b"0\n"
    leave(daemon, before)


@pytest.mark.parametrize("point", ["teardown.deleted", "teardown.unmounted"])
def test_killed_at_the_end(daemon: PrivateDaemon, tmp_path: Path, point: str) -> None:
    before = HostState.read(only=daemon.tag)
    (tmp_path / "source").mkdir()
    daemon.request("POST", "/containers/create?name=box", body(tmp_path / "source"))
    assert daemon.request("POST", "/containers/box/start")[0] == 204
    die_in(daemon, point, "POST", "/containers/box/kill")
    assert daemon.inspect("box")["State"]["Status"] == "exited"
    assert not list(mounted_under(daemon.exec_root / "containers"))
    assert not list(mounted_under(daemon.data_root / "volumes"))
    leave(daemon, before)


def leave(daemon: PrivateDaemon, before: HostState) -> None:
    assert daemon.request("DELETE", "/containers/box?force=1&v=1")[0] == 204
    for name in ("tree", "ram"):
        assert daemon.request("DELETE", f"/volumes/{name}")[0] == 204
    assert not list((daemon.data_root / "volumes").iterdir())
    assert not list((daemon.exec_root / "containers").iterdir())
    assert_clean(before, only=daemon.tag)
