"""What programs written for Docker rely on: older API versions, and images in archives."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from datetime import datetime
from pathlib import Path

import docker
import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection

from estiba.kernel.cgroup import Hierarchies, Mode

pytestmark = pytest.mark.e2e


def test_old_versions_share_more(daemon: PrivateDaemon) -> None:
    old = docker.APIClient(base_url=daemon.url, version="1.39")
    try:
        made = old.create_container("busybox", "true")["Id"]
        host = old.inspect_container(made)["HostConfig"]
        cgroups = "private" if Hierarchies.detect().mode == Mode.V2 else "host"
        assert (host["IpcMode"], host["CgroupnsMode"]) == ("shareable", cgroups)
        old.remove_container(made)
    finally:
        old.close()


def test_old_versions_show_and_do_what_they_did(daemon: PrivateDaemon, tmp_path: Path) -> None:
    status, image = daemon.request("GET", "/v1.44/images/busybox/json")
    assert status == 200
    assert image["ContainerConfig"]["Volumes"] == {}
    image = daemon.request("GET", "/images/busybox/json")[1]
    assert image["ContainerConfig"]["Volumes"] == {}, "what docker-compose 1.29 reads"

    bind = {"Image": "busybox", "HostConfig": {"Binds": [f"{tmp_path}:/foo:ro"]}}
    bind["Cmd"] = ["touch", "/foo/mnt/file"]
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "mnt")], check=True)
    try:
        for version, code in (("1.43", 0), ("1.44", 1)):
            made = daemon.request("POST", f"/v{version}/containers/create", bind)[1]["Id"]
            done = daemon.docker("start", "-a", made, check=False)
            assert done.returncode == code, done.stderr
            daemon.docker("rm", made)
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)

    named = {"Image": "busybox", "HostConfig": {"Annotations": {"a": "b"}}}
    made = daemon.request("POST", "/containers/create", named)[1]["Id"]
    for version, seen in (("1.45", None), ("1.46", {"a": "b"})):
        (entry,) = daemon.request("GET", f"/v{version}/containers/json?all=1&limit=1")[1]
        assert entry["HostConfig"].get("Annotations") == seen
    daemon.docker("rm", made)


def test_old_versions_prune_named_volumes_too(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "named")
    assert daemon.request("POST", "/v1.42/volumes/prune")[1]["VolumesDeleted"] == []
    assert daemon.request("POST", "/v1.41/volumes/prune")[1]["VolumesDeleted"] == ["named"]


def test_an_import_may_be_of_another_platform(daemon: PrivateDaemon) -> None:
    path = "/images/create?fromSrc=-&repo=foreign&platform="
    tar = bytes(10240)
    for platform, words in (
        ("%20%20", "is an invalid OS component"),
        ("macos/arm64", "operating system is not supported"),
        ("nintendo64", "unknown operating system or architecture: invalid argument"),
        ("a/b/c/d", "cannot parse"),
    ):
        status, answer = daemon.request("POST", path + platform, tar)
        assert status == 400 and words in answer["message"]
    daemon.request("POST", path + "Linux/ARM64/v8", tar)
    view = daemon.request("GET", "/images/foreign/json")[1]
    assert (view["Os"], view["Architecture"], view["Variant"]) == ("linux", "arm64", "v8")
    asked = '/images/foreign/json?platform={"os":"linux","architecture":"%s"}'
    assert daemon.request("GET", asked % "arm64")[0] == 200
    status, answer = daemon.request("GET", asked % "amd64")
    assert status == 404 and "its platform (linux/arm64/v8) does not match" in answer["message"]
    asked = '/images/foreign/get?platform={"architecture":"s390x"}&platform={"architecture":"386"}'
    status, answer = daemon.request("GET", asked)
    assert status == 404 and "(linux/s390x, linux/386)" in answer["message"]
    daemon.docker("rmi", "foreign")


def test_a_saved_image_is_the_same_every_time(daemon: PrivateDaemon) -> None:
    before = f"{time.time():.6f}"
    first, second = (daemon.docker("save", "busybox").stdout for _ in range(2))
    assert first == second
    created = datetime.fromisoformat(daemon.request("GET", "/images/busybox/json")[1]["Created"])
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        for name in (manifest[0]["Config"], *manifest[0]["Layers"]):
            assert tar.getmember(name).mtime == int(created.timestamp())
    now = f"{time.time():.6f}"
    seen = daemon.docker("events", "--since", before, "--until", now, "-f", "event=save").stdout
    assert len(seen.splitlines()) == 2


def test_info_is_that_of_the_version(daemon: PrivateDaemon) -> None:
    view = daemon.request("GET", "/v1.48/info")[1]
    assert view["BridgeNfIptables"] is False and "FirewallBackend" not in view
    assert view["RuncCommit"]["Expected"] == view["RuncCommit"]["ID"]
    view = daemon.request("GET", "/v1.50/info")[1]
    assert "BridgeNfIptables" not in view and "Expected" not in view["InitCommit"]


def test_an_import_is_done_when_its_answer_begins(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "exported", "busybox")
    root = daemon.docker("export", "exported").stdout
    connection = UnixConnection(daemon.socket)
    connection.request("POST", "/images/create?fromSrc=-&repo=begun", root)
    assert connection.getresponse().status == 200
    assert daemon.request("GET", "/images/begun/json")[0] == 200
    connection.close()
    daemon.docker("rm", "exported")
    daemon.docker("rmi", "begun")
