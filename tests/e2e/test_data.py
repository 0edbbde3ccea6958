"""Volumes and files of containers: what is mounted while, and what nobody may reach."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, needs_docker, wait_until

pytestmark = pytest.mark.e2e


def data_of(daemon: PrivateDaemon, volume: str) -> Path:
    return Path(daemon.request("GET", f"/volumes/{volume}")[1]["Mountpoint"])


def test_a_volume_with_options_is_mounted_while_a_container_is_up(daemon: PrivateDaemon) -> None:
    daemon.docker(
        "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "ram"
    )
    path = data_of(daemon, "ram")
    for name in ("first", "second"):
        daemon.docker("create", "--name", name, "-v", "ram:/ram", "busybox", "sleep", "1000")
        assert not os.path.ismount(path)
    daemon.docker("start", "first", "second")
    daemon.docker("exec", "first", "touch", "/ram/shared")
    assert daemon.docker("exec", "second", "ls", "/ram").stdout == b"shared\n"
    daemon.docker("stop", "-t", "0", "first")
    assert os.path.ismount(path)
    daemon.kill9()
    daemon.start()
    assert daemon.docker("exec", "second", "ls", "/ram").stdout == b"shared\n"
    daemon.docker("stop", "-t", "0", "second")
    assert not os.path.ismount(path)
    daemon.docker("rm", "first", "second")
    daemon.docker("volume", "rm", "ram")


@needs_docker(26)
def test_a_subpath_cannot_be_led_out_of_its_volume(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """Another user of the volume puts a symlink where the subpath was, at any time."""
    (tmp_path / "secret").write_text("of the host")
    daemon.docker("volume", "create", "tree")
    data = data_of(daemon, "tree")
    (data / "inside").mkdir()
    (data / "inside" / "mine").touch()
    mount = "type=volume,source=tree,destination=/sub,volume-subpath=inside"
    daemon.docker("create", "--name", "sub", "--mount", mount, "busybox", "ls", "/sub")
    assert daemon.docker("start", "-a", "sub").stdout == b"mine\n"
    (data / "inside").rename(data / "aside")
    (data / "inside").symlink_to(tmp_path)
    done = daemon.docker("start", "-a", "sub", check=False)
    assert b"secret" not in done.stdout
    copied = daemon.docker("cp", "sub:/sub/secret", "-", check=False)
    assert b"of the host" not in copied.stdout
    assert b"cannot access path" in done.stderr, "a symlink to nowhere in there is not followed"
    (data / "inside").unlink()
    os.chown(data, 7, 8)
    done = daemon.docker("start", "-a", "sub")
    assert done.stdout == b"", "a subpath that is missing is made"
    made = (data / "inside").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (7, 8, 0o755)
    daemon.docker("rm", "-f", "sub")
    daemon.docker("volume", "rm", "tree")
    assert (tmp_path / "secret").exists()


def test_a_start_waits_for_files_on_their_way_in(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "slow", "busybox", "sleep", "1000")
    upload = subprocess.Popen(
        ["docker", "-H", daemon.url, "cp", "-", "slow:/"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert upload.stdin is not None
    tar = subprocess.run(["tar", "-cC", "/etc", "hostname"], check=True, capture_output=True)
    upload.stdin.write(tar.stdout[:600])
    upload.stdin.flush()
    views = daemon.data_root / "snapshots" / "views"
    wait_until(lambda: any(views.iterdir()), what="the upload to begin")
    start = subprocess.Popen(["docker", "-H", daemon.url, "start", "slow"])
    upload.stdin.write(tar.stdout[600:])
    upload.stdin.close()
    assert upload.wait(30) == 0
    assert start.wait(30) == 0
    assert daemon.docker("exec", "slow", "cat", "/hostname").stdout
    assert not any(views.iterdir())
    daemon.docker("rm", "-f", "slow")


def test_a_container_starts_while_it_is_exported(daemon: PrivateDaemon) -> None:
    daemon.docker("create", "--name", "still", "busybox", "sleep", "1000")
    export = subprocess.Popen(
        ["docker", "-H", daemon.url, "export", "still"], stdout=subprocess.PIPE
    )
    assert export.stdout is not None
    first = export.stdout.read(1)
    daemon.docker("start", "still")
    size = len(first) + len(export.stdout.read())
    assert export.wait(30) == 0
    assert size > 500_000
    daemon.docker("rm", "-f", "still")


def test_copies_of_one_at_rest_see_its_mounts(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """Volumes, binds of one file and the engine's own files, as while it runs."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("first\n")
    (tmp_path / "tree" / "link").symlink_to("file")
    (tmp_path / "one").write_text("one\n")
    binds = ("-v", f"{tmp_path}/one:/one", "-v", f"{tmp_path}/tree:/tree", "-v", "/data")
    daemon.docker("run", "--name", "rest", *binds, "busybox", "touch", "/data/mine")
    out = tmp_path / "out"
    out.mkdir()
    for path in ("/data", "/one", "/etc/hosts"):
        daemon.docker("cp", f"rest:{path}", str(out))
    assert (out / "data" / "mine").exists()
    assert (out / "one").read_text() == "one\n"
    hosts = Path(daemon.inspect("rest")["HostsPath"]).read_text()
    assert "localhost" in hosts and (out / "hosts").read_text() == hosts
    daemon.docker("cp", str(tmp_path / "one"), "rest:/tree/link")
    assert (tmp_path / "tree" / "link").is_symlink()
    assert (tmp_path / "tree" / "file").read_text() == "one\n"
    daemon.docker("rm", "-v", "rest")


def test_a_volume_whose_files_are_gone_can_be_removed(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "gone")
    data = data_of(daemon, "gone")
    data.rmdir()
    data.parent.rmdir()
    daemon.docker("volume", "rm", "gone")
    assert "gone" not in daemon.docker("volume", "ls", "-q").stdout.decode().split()


@pytest.mark.parametrize(("path", "first"), [("/", "/"), ("/.", "./"), ("/bin", "bin/")])
def test_the_whole_root_is_copied(
    daemon: PrivateDaemon, tmp_path: Path, path: str, first: str
) -> None:
    daemon.docker("create", "--name", "all", "busybox")
    content = daemon.request("GET", f"/containers/all/archive?path={path}")[1]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert len(names) > 100 and all(name.startswith(first) for name in names[1:])
    place = tmp_path / "new"
    daemon.docker("cp", f"all:{path}", str(place))
    assert any(place.rglob("sh"))
    daemon.docker("rm", "all")


def test_host_gateway_is_what_the_daemon_says(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path
) -> None:
    daemon = make_daemon("--host-gateway-ip", "192.0.2.9", "--default-ipc-mode", "shareable")
    daemon.start()
    daemon.import_busybox()
    assert daemon.run("--add-host", "me:host-gateway", "busybox", "grep", "me", "/etc/hosts") == (
        "192.0.2.9\tme\n"
    )
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN grep me /etc/hosts > /out\n")
    build = ["docker", "build", "--add-host", "me:host-gateway", "-t", "told", str(tmp_path)]
    environment = {**daemon.client_environment(), "DOCKER_BUILDKIT": "0"}
    subprocess.run(build, env=environment, capture_output=True, check=True)
    assert "192.0.2.9" in daemon.run("told", "cat", "/out")
    daemon.docker("create", "--name", "modes", "busybox")
    assert daemon.inspect("modes")["HostConfig"]["IpcMode"] == "shareable"
