"""All forms of mounts, asked for by the real docker client, under both runtimes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, needs_docker
from tests.support.mounting import tmpfs

from estiba.kernel.mounts import MountFlag, mount, mounted_under

pytestmark = pytest.mark.e2e

RUNTIMES = ("crun", "runc")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that propagates, with another one in `sub`."""
    with tmpfs(tmp_path / "shared") as path:
        mount("", path, "", MountFlag.SHARED)
        (path / "late").mkdir()
        (path / "inner").mkdir()
        with tmpfs(path / "sub"):
            (path / "sub" / "late").mkdir()
            yield path


# -- propagation ---------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("mode", "to_container", "to_host", "below"),
    [
        ("private", False, False, False),
        ("rprivate", False, False, False),
        ("slave", True, False, False),
        ("rslave", True, False, True),
        ("shared", True, True, False),
        ("rshared", True, True, True),
    ],
)
def test_propagation(
    daemon: PrivateDaemon,
    shared: Path,
    runtime: str,
    mode: str,
    to_container: bool,
    to_host: bool,
    below: bool,
) -> None:
    """Mounts made later on either side show on the other one as the mode says."""
    daemon.docker(
        "run", "-d", "--name", "spread", "--runtime", runtime, "--cap-add", "SYS_ADMIN",
        "-v", f"{shared}:/dst:{mode}", "busybox", "sleep", "1000",
    )  # fmt: skip
    try:
        for place in ("late", "sub/late"):
            mount("tmpfs", shared / place, "tmpfs")
            (shared / place / "seen").touch()
        inside = daemon.docker("exec", "spread", "find", "/dst", "-name", "seen").stdout
        assert (b"/dst/late/seen" in inside) is to_container
        if mode.startswith("r"):
            assert (b"/dst/sub/late/seen" in inside) is below
        daemon.docker("exec", "spread", "mount", "-t", "tmpfs", "tmpfs", "/dst/inner")
        daemon.docker("exec", "spread", "touch", "/dst/inner/seen")
        assert (shared / "inner" / "seen").exists() is to_host
        (found,) = daemon.inspect("spread")["Mounts"]
        assert found["Propagation"] == mode
    finally:
        daemon.docker("rm", "-f", "spread")


# -- read-only, recursion ------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@needs_docker(25)
@pytest.mark.parametrize(
    ("options", "top", "sub"),
    [
        ("readonly", False, False),
        ("readonly,bind-recursive=writable", False, True),
        ("readonly,bind-recursive=readonly,bind-propagation=rprivate", False, False),
        ("readonly,bind-recursive=disabled", False, False),
        ("bind-recursive=enabled", True, True),
    ],
)
def test_read_only_and_what_is_mounted_below(
    daemon: PrivateDaemon, shared: Path, runtime: str, options: str, top: bool, sub: bool
) -> None:
    script = "touch /dst/x; echo $?; touch /dst/sub/x; echo $?"
    done = daemon.run(
        "--runtime", runtime, "--mount", f"type=bind,src={shared},dst=/dst,{options}",
        "busybox", "sh", "-c", f"({script}) 2>/dev/null",
    )  # fmt: skip
    assert done.split() == ["0" if top else "1", "0" if sub else "1"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_recursion_nothing_below_is_seen(
    daemon: PrivateDaemon, shared: Path, runtime: str
) -> None:
    mounted = f"type=bind,src={shared},dst=/dst,bind-recursive=disabled"
    assert daemon.run("--runtime", runtime, "--mount", mounted, "busybox", "ls", "/dst/sub") == ""


def test_a_read_only_file_may_be_asked_to_be_so_with_all_below(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    options = "readonly,bind-recursive=readonly,bind-propagation=rprivate"
    for runtime in RUNTIMES:
        done = daemon.docker(
            "run", "--rm", "--runtime", runtime,
            "--mount", f"type=bind,src={tmp_path}/file,dst=/file,{options}",
            "busybox", "sh", "-c", "echo y > /file", check=False,
        )  # fmt: skip
        assert b"Read-only file system" in done.stderr


# -- sources -------------------------------------------------------------------------------


def test_a_missing_source_is_made_or_refused(daemon: PrivateDaemon, tmp_path: Path) -> None:
    daemon.run("-v", f"{tmp_path}/made/deep:/dst", "busybox", "true")
    assert (tmp_path / "made" / "deep").is_dir()
    mounted = f"type=bind,src={tmp_path}/missing,dst=/dst"
    done = daemon.docker("run", "--rm", "--mount", mounted, "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"bind source path does not exist" in done.stderr
    assert not (tmp_path / "missing").exists()
    body = {
        "Image": "busybox",
        "HostConfig": {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": f"{tmp_path}/missing",
                    "Target": "/dst",
                    "BindOptions": {"CreateMountpoint": True},
                }
            ]
        },
    }
    status, answer = daemon.request("POST", "/containers/create", body)
    assert status == 201
    assert (tmp_path / "missing").is_dir()
    daemon.docker("rm", answer["Id"])


def test_sockets_and_files_are_sources(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "s"))
        for runtime in RUNTIMES:
            done = daemon.run(
                "--runtime", runtime, "-v", f"{tmp_path}/s:/run/s", "-v", f"{tmp_path}/file:/f:ro",
                "-v", f"{tmp_path}/pipe:/pipe", "busybox", "sh", "-c",
                "test -S /run/s && test -p /pipe && cat /f",
            )  # fmt: skip
            assert done == "content"


def test_a_source_that_vanishes_before_the_start(daemon: PrivateDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mounted = f"type=bind,src={source},dst=/dst"
    daemon.docker("create", "--name", "vanish", "--mount", mounted, "busybox", "true")
    source.rmdir()
    done = daemon.docker("start", "vanish", check=False)
    assert b"bind source path does not exist" in done.stderr
    assert daemon.inspect("vanish")["State"]["Status"] == "created"
    source.mkdir()
    daemon.docker("start", "-a", "vanish")
    daemon.docker("rm", "vanish")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-v", "/tmp:/"), "destination can't be '/'"),
        (("-v", "/tmp:/proc"), "/proc cannot be mounted"),
        (("-v", "/tmp:/proc/self"), "cannot be mounted because it is inside /proc"),
        (("-v", "/tmp:/a", "-v", "/var:/a"), "Duplicate mount point: /a"),
        (("-v", "/tmp:/a", "--tmpfs", "/a"), "Duplicate mount point: /a"),
        (("-v", "/tmp:/a", "--mount", "type=volume,dst=/a/"), "Duplicate mount point: /a"),
        (("-v", "../x:/a"), ""),
        (("-v", "a/b:/a"), "includes invalid characters for a local volume name"),
        (("-v", "/tmp:a"), "mount path must be absolute"),
        (("-v", "/tmp:/a:nonsense"), "invalid mode: nonsense"),
        (("-v", "vol:/a:rshared"), "must not be specified"),
        (("--tmpfs", "/a:lowerdir=x"), "invalid tmpfs option"),
    ],
)
def test_mounts_that_are_refused(
    daemon: PrivateDaemon, arguments: tuple[str, ...], why: str
) -> None:
    done = daemon.docker("create", *arguments, "busybox", "true", check=not why)
    if why:
        assert done.returncode != 0
        assert why in done.stderr.decode()
    else:
        daemon.docker("rm", done.stdout.decode().strip())
        Path("../x").rmdir()


def test_tmpfs_with_all_options(daemon: PrivateDaemon) -> None:
    for runtime in RUNTIMES:
        done = daemon.run(
            "--runtime", runtime, "--tmpfs", "/a:size=1m,mode=1770,uid=5,exec,nr_inodes=100",
            "--mount", "type=tmpfs,dst=/b,tmpfs-size=2m,tmpfs-mode=0700",
            "busybox", "sh", "-c", "stat -c '%a %u' /a /b; grep -E ' /(a|b) ' /proc/mounts",
        )  # fmt: skip
        first, second, *lines = done.splitlines()
        assert (first, second) == ("1770 5", "700 0")
        options = {line.split()[1]: set(line.split()[3].split(",")) for line in lines}
        assert {"size=1024k", "nr_inodes=100", "nosuid", "nodev"} <= options["/a"]
        assert "noexec" not in options["/a"]
        assert {"size=2048k", "noexec"} <= options["/b"]


# -- volumes -------------------------------------------------------------------------------


def test_volumes_from_several_containers(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """Of one that runs and of one that is stopped; the later wins, and ro holds."""
    (tmp_path / "host").write_text("h")
    daemon.docker("run", "--name", "one", "-v", "/a", "-v", f"{tmp_path}:/b", "busybox",
                  "touch", "/a/first")  # fmt: skip
    daemon.docker("run", "-d", "--name", "two", "-v", "/a", "busybox", "sh", "-c",
                  "touch /a/second; sleep 1000")  # fmt: skip
    assert daemon.run("--volumes-from", "one", "busybox", "ls", "/a", "/b/host").split() == [
        "/b/host", "/a:", "first",
    ]  # fmt: skip
    both = ("--volumes-from", "one", "--volumes-from", "two:ro")
    assert "second" in daemon.run(*both, "busybox", "ls", "/a")
    done = daemon.docker("run", "--rm", *both, "busybox", "touch", "/a/x", check=False)
    assert b"Read-only file system" in done.stderr
    daemon.docker("rm", "-fv", "one", "two")


def test_a_volume_is_filled_once_and_not_with_nocopy(daemon: PrivateDaemon) -> None:
    assert "passwd" in daemon.run("-v", "filled:/etc", "busybox", "ls", "/etc")
    assert daemon.run("-v", "bare:/etc:nocopy", "busybox", "ls", "/etc").split() == [
        "hostname", "hosts", "resolv.conf",
    ]  # fmt: skip
    mounted = "type=volume,src=bare2,dst=/etc,volume-nocopy"
    assert "passwd" not in daemon.run("--mount", mounted, "busybox", "ls", "/etc")
    daemon.docker("volume", "rm", "filled", "bare", "bare2")


@pytest.mark.parametrize("volume", ["/etc/passwd", "named:/etc/passwd"])
def test_a_volume_over_a_file_is_refused(daemon: PrivateDaemon, volume: str) -> None:
    """Found at the creation, before there is a volume, whoever asked for it."""
    before = daemon.docker("volume", "ls", "-q").stdout
    done = daemon.docker("create", "-v", volume, "busybox", check=False)
    assert b"cannot mount volume over existing file, file exists /etc/passwd: " in done.stderr
    daemon.docker("create", "--name", "box", "busybox")
    daemon.docker("commit", "-c", f"VOLUME {volume.rpartition(':')[2]}", "box", "over")
    done = daemon.docker("create", "over", check=False)
    assert b"cannot mount volume over existing file, file exists /etc/passwd: " in done.stderr
    assert daemon.docker("volume", "ls", "-q").stdout == before
    # Who knows better mounts a file.
    assert "root" in daemon.run("-v", "/etc/group:/etc/passwd", "over", "cat", "/etc/passwd")
    daemon.docker("rm", "box")
    daemon.docker("rmi", "over")


@needs_docker(26)
def test_a_subpath_never_leaves_the_volume_whoever_swaps_it(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    """200 starts while another user of the volume swaps directory and symlink all the time."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "canary").touch()
    daemon.docker("volume", "create", "raced")
    data = Path(daemon.request("GET", "/volumes/raced")[1]["Mountpoint"])
    (data / "real").mkdir()
    (data / "real" / "mine").touch()
    (data / "evil").symlink_to(tmp_path / "secret")
    up = os.path.relpath(tmp_path / "secret", data)
    (data / "climbing").symlink_to(up)
    mounted = "type=volume,src=raced,dst=/sub,volume-subpath=here/in"
    (data / "here").symlink_to("real")
    daemon.docker("create", "--name", "racer", "--mount", mounted, "busybox", "ls", "-a", "/sub")
    stop, seen = threading.Event(), set()

    def swap() -> None:
        while not stop.is_set():
            for target in ("real", os.fspath(tmp_path / "secret"), up, "evil", "climbing"):
                (data / "new").symlink_to(target)
                (data / "new").rename(data / "here")

    thread = threading.Thread(target=swap)
    thread.start()
    started = 0
    try:
        for _ in range(200):
            status, _answer = daemon.request("POST", "/containers/racer/start")
            if status == 204:
                started += 1
                daemon.request("POST", "/containers/racer/wait")
    finally:
        stop.set()
        thread.join()
    seen.update(daemon.docker("logs", "racer").stdout.split())
    assert started
    assert seen <= {b".", b".."}
    assert list((tmp_path / "secret").iterdir()) == [tmp_path / "secret" / "canary"]
    daemon.docker("rm", "racer")
    daemon.docker("volume", "rm", "raced")


# -- images --------------------------------------------------------------------------------


@needs_docker(28)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_is_mounted_read_only_and_kept(daemon: PrivateDaemon, runtime: str) -> None:
    daemon.docker("run", "--name", "maker", "busybox", "sh", "-c",
                  "mkdir /deep; echo content > /deep/file; rm /etc/passwd")  # fmt: skip
    daemon.docker("commit", "maker", "layers:latest")
    daemon.docker("rm", "maker")
    mounted = ("--mount", "type=image,src=layers,dst=/img")
    script = "cat /img/deep/file; ls /img/etc; touch /img/x"
    done = daemon.docker("run", "--rm", "--runtime", runtime, *mounted, "busybox", "sh", "-c",
                         script, check=False)  # fmt: skip
    assert done.stdout.startswith(b"content\n")
    assert b"passwd" not in done.stdout
    assert b"Read-only file system" in done.stderr
    below = ("--mount", "type=image,src=layers,dst=/img,image-subpath=deep")
    daemon.docker("create", "--name", "user", "--runtime", runtime, *below, "busybox", "ls", "/img")
    (view,) = daemon.inspect("user")["Mounts"]
    assert (view["Type"], view["Name"], view["RW"]) == ("image", "layers", False)
    refused = daemon.docker("rmi", "layers", check=False)
    assert b"is using its referenced image" in refused.stderr
    daemon.docker("rmi", "-f", "layers")
    daemon.docker("image", "prune", "-af")
    daemon.restart()
    assert daemon.docker("start", "-a", "user").stdout == b"file\n"
    copied = daemon.docker("cp", "user:/img/file", "-").stdout
    assert b"content" in copied
    into = daemon.docker("cp", "-", "user:/img", stdin=copied, check=False)
    assert b"read-only" in into.stderr
    daemon.docker("rm", "user")
    assert not [p for p in mounted_under(daemon.exec_root) if "image-" in p.name]
    missing = ("--mount", "type=image,src=layers,dst=/img")
    done = daemon.docker("run", "--rm", *missing, "busybox", "true", check=False)
    assert b"No such image: layers" in done.stderr
    below = ("--mount", "type=image,src=busybox,dst=/img,image-subpath=nowhere")
    done = daemon.docker("run", "--rm", *below, "busybox", "true", check=False)
    assert b"cannot access path" in done.stderr


def test_nobody_is_warned_of_a_propagation_that_he_did_not_ask_for(daemon: PrivateDaemon) -> None:
    over = str(daemon.root)
    made = daemon.docker("create", "--name", "over", "-v", f"{over}:/host:ro", "busybox")
    assert made.stderr == b""
    assert daemon.inspect("over")["Mounts"][0]["Propagation"] == "rslave"
    daemon.docker("rm", "over")
