"""Volumes with limits, keys, copies and backups, through the commands and containers."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState
from tests.support.registries import GenuineRegistry, genuine_registry
from tests.support.registry import OwnRegistry

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]


def estiba(
    daemon: PrivateDaemon, *arguments: str, stdin: bytes = b"", check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "estiba.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        env=daemon.client_environment(),
        timeout=120,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"estiba {arguments}: {done.stderr.decode()}"
    return done


def loops(daemon: PrivateDaemon) -> frozenset[str]:
    return HostState.read(only=str(daemon.root)).loops


def view(daemon: PrivateDaemon, name: str) -> dict[str, object]:
    status, answer = daemon.request("GET", f"/volumes/{name}")
    assert status == 200, answer
    return dict(answer)


def test_a_full_volume_in_a_container(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "size=16m", "small")
    script = "dd if=/dev/zero of=/v/big bs=1M count=40; echo ended; df -m /v | tail -1; ls /v"
    done = daemon.docker("run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", script)
    assert b"No space left on device" in done.stderr
    assert b"ended" in done.stdout
    assert done.stdout.endswith(b"big\n")
    wait_until(lambda: not loops(daemon), what="the disk to go")
    assert view(daemon, "small")["Status"]["Size"] == 16 << 20
    (usage,) = [
        one["UsageData"]["Size"]
        for one in daemon.request("GET", "/system/df?type=volume")[1]["Volumes"]
        if one["Name"] == "small"
    ]
    assert 8 << 20 < usage <= 16 << 20


@pytest.mark.parametrize("options", [("size=16m", "encrypted"), ("encrypted=gocryptfs",)])
def test_users_come_and_go_and_so_does_the_engine(
    daemon: PrivateDaemon, options: tuple[str, ...]
) -> None:
    def used() -> int:
        """How many loop devices and servers there are for it."""
        state = HostState.read(only=str(daemon.root))
        return len(state.loops) + len([one for one in state.processes if "gocryptfs" in one])

    flags = [word for option in options for word in ("--opt", option)]
    daemon.docker("volume", "create", *flags, "shared")
    for name in ("one", "two"):
        daemon.docker("run", "-d", "--name", name, "-v", "shared:/v", "busybox", "sleep", "1000")
    daemon.docker("exec", "one", "sh", "-c", "echo kept > /v/file")
    assert used() == 1
    daemon.docker("stop", "-t", "0", "one")
    daemon.kill9()
    daemon.start()
    assert daemon.docker("exec", "two", "cat", "/v/file").stdout == b"kept\n"
    daemon.docker("start", "one")
    assert daemon.docker("exec", "one", "cat", "/v/file").stdout == b"kept\n"
    daemon.docker("cp", "one:/v/file", "-")
    daemon.docker("stop", "-t", "0", "one", "two")
    wait_until(lambda: not used(), what="the disk to go")
    daemon.kill9()
    daemon.start()
    wait_until(lambda: not used(), what="the disk to go")
    daemon.docker("start", "two")
    daemon.kill9()
    daemon.start()
    assert used() == 1


def test_a_container_that_ends_while_the_engine_is_away(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "encrypted=gocryptfs", "vault")
    daemon.docker("run", "-d", "--name", "one", "-v", "vault:/v", "busybox", "sh", "-c",
                  "echo kept > /v/file; sleep 1000")  # fmt: skip
    wait_until(lambda: daemon.docker("exec", "one", "cat", "/v/file", check=False).stdout,
               what="the file")  # fmt: skip
    pid = daemon.inspect("one")["State"]["Pid"]
    daemon.kill9()
    os.kill(pid, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the container to end")
    daemon.start()
    state = HostState.read(only=str(daemon.root))
    assert not [line for line in state.mounts if "vault" in line]
    wait_until(
        lambda: (
            not [p for p in HostState.read(only=str(daemon.root)).processes if "gocryptfs" in p]
        ),
        what="gocryptfs to end",
    )
    assert daemon.run("-v", "vault:/v", "busybox", "cat", "/v/file") == "kept\n"


@pytest.mark.parametrize(
    "point",
    [
        "volumes.key-added",
        "volumes.disk-attached#2",
        "volumes.disk-mounted#2",
        "volumes.data-mounted",
    ],
)
def test_the_engine_is_killed_while_a_container_starts(daemon: PrivateDaemon, point: str) -> None:
    """The first mount is that of the making, the second that of the start."""
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    daemon.request("POST", "/volumes/create",
                   {"Name": "vault", "DriverOpts": {"size": "16m", "encrypted": ""}})  # fmt: skip
    daemon.docker("run", "--name", "two", "-v", "vault:/v", "busybox", "touch", "/v/f", check=False)
    daemon.wait_death()
    daemon.start()
    state = HostState.read(only=str(daemon.root))
    assert not [line for line in state.mounts if "vault" in line]
    wait_until(lambda: not loops(daemon), what="the disk to go")
    assert daemon.run("-v", "vault:/v", "busybox", "sh", "-c", "touch /v/g; ls /v").endswith("g\n")


def test_an_image_fills_an_encrypted_volume(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """And what is in it is not to be found below the data root."""
    marker = secrets.token_hex(16)
    daemon.docker("run", "--name", "base", "busybox", "sh", "-c", f"mkdir /d; echo {marker} > /d/f")
    daemon.docker("commit", "base", "filled")
    daemon.docker("run", "--rm", "--mount",
                  "type=volume,source=v2,destination=/d,volume-opt=size=16m,volume-opt=encrypted=1",
                  "filled", "true")  # fmt: skip
    assert daemon.run("-v", "v2:/v", "busybox", "cat", "/v/f") == f"{marker}\n"
    found = subprocess.run(
        ["grep", "-rlF", marker, daemon.data_root / "volumes"], capture_output=True, check=False
    )
    assert found.stdout == b""


def test_a_wrong_key_stops_the_start_and_nothing_else(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    daemon.docker("volume", "create", "--opt", "encrypted", "--opt", "size=16m",
                  "--opt", f"key-file={key}", "vault")  # fmt: skip
    daemon.run("-v", "vault:/v", "busybox", "sh", "-c", "echo kept > /v/file")
    right = key.read_bytes()
    key.write_bytes(secrets.token_bytes(64))
    done = daemon.docker("run", "--rm", "-v", "vault:/v", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"the key is not the one that the volume was made with" in done.stderr
    wait_until(lambda: not loops(daemon), what="the disk to go")
    key.write_bytes(right)
    assert daemon.run("-v", "vault:/v", "busybox", "cat", "/v/file") == "kept\n"
    inspected = daemon.docker("volume", "inspect", "vault").stdout
    assert right not in inspected
    assert right.hex().encode() not in inspected + daemon.log.read_bytes()


def test_many_users_at_once(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "size=16m", "--opt", "encrypted", "shared")
    daemon.docker("create", "--name", "still", "-v", "shared:/v", "busybox", "true")

    def use(number: int) -> str:
        script = f"echo {number} > /v/{number}; cat /v/{number}"
        out = daemon.run("-v", "shared:/v", "busybox", "sh", "-c", script)
        archived = daemon.docker("cp", f"still:/v/{number}", "-").stdout
        with tarfile.open(fileobj=io.BytesIO(archived)) as tar:
            found = tar.extractfile(str(number))
            assert found is not None
            assert found.read().decode() == out
        return out

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(use, range(18))) == [f"{number}\n" for number in range(18)]
    wait_until(lambda: not loops(daemon), what="the disk to go")


def test_copies(daemon: PrivateDaemon) -> None:
    daemon.run("-v", "data:/v", "busybox", "sh", "-c", "echo one > /v/file")
    assert estiba(daemon, "volume", "snapshot", "data", "first").stdout == b"first\n"
    daemon.docker("run", "-d", "--name", "user", "-v", "data:/v", "busybox", "sleep", "1000")
    daemon.docker("exec", "user", "sh", "-c", "echo two > /v/file")
    done = estiba(daemon, "volume", "clone", "data", "copy", "--label", "a=b")
    assert done.stdout == b"copy\n"
    assert b"WARNING: volume data is in use by user" in done.stderr
    done = estiba(daemon, "volume", "clone", "--pause", "-o", "size=16m", "data", "limited")
    assert done.stderr == b""
    assert daemon.inspect("user")["State"]["Status"] == "running"
    assert view(daemon, "copy")["Labels"] == {"a": "b"}
    assert view(daemon, "limited")["Options"] == {"size": "16m"}
    for name in ("copy", "limited"):
        assert daemon.run("-v", f"{name}:/v", "busybox", "cat", "/v/file") == "two\n"
    done = estiba(daemon, "volume", "rollback", "data", "first", check=False)
    assert done.returncode == 1
    assert b"in use now" in done.stderr
    done = estiba(daemon, "volume", "rename", "data", "other", check=False)
    assert b"containers know it by its name" in done.stderr
    daemon.docker("rm", "-f", "user")
    estiba(daemon, "volume", "rollback", "data", "first")
    estiba(daemon, "volume", "rename", "data", "renamed")
    assert daemon.run("-v", "renamed:/v", "busybox", "cat", "/v/file") == "one\n"
    assert estiba(daemon, "volume", "snapshots", "-q", "renamed").stdout == b"first\n"
    table = estiba(daemon, "volume", "snapshots", "renamed").stdout.splitlines()
    assert table[0].split() == [b"TAG", b"CREATED", b"SIZE"]
    assert table[1].split()[0] == b"first"
    assert estiba(daemon, "volume", "snapshot-rm", "renamed", "first").stdout == b"first\n"
    assert estiba(daemon, "volume", "snapshots", "-q", "renamed").stdout == b""
    done = estiba(daemon, "volume", "snapshot-rm", "renamed", "first", check=False)
    assert b"volume renamed has no snapshot 'first'" in done.stderr
    assert done.returncode == 1


def test_backups_to_files(daemon: PrivateDaemon, tmp_path: Path) -> None:
    daemon.run("-v", "data:/v", "busybox", "sh", "-c", "echo one > /v/file; chown 7:8 /v/file")
    file = tmp_path / "data.tar.zst"
    estiba(daemon, "volume", "backup", "data", str(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.tar.zst"]
    piped = estiba(daemon, "volume", "backup", "data", "-").stdout
    assert estiba(daemon, "volume", "restore", "again", str(file)).stdout == b"again\n"
    estiba(daemon, "volume", "restore", "-q", "-o", "size=16m", "sized", "-", stdin=piped)
    for name in ("again", "sized"):
        listed = daemon.run("-v", f"{name}:/v", "busybox", "sh", "-c", "cd /v; ls -n; cat file")
        assert "7" in listed.split()
        assert listed.endswith("one\n")
    done = estiba(daemon, "volume", "restore", "again", str(file), check=False)
    assert b"volume again exists already" in done.stderr
    done = estiba(daemon, "volume", "restore", "bad", "-", stdin=piped[:-20], check=False)
    assert b"cut off" in done.stderr
    assert daemon.request("GET", "/volumes/bad")[0] == 404
    done = estiba(daemon, "volume", "backup", "none", str(tmp_path / "x"), check=False)
    assert b"no such volume" in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_encrypted_volume_is_not_saved_by_mistake(daemon: PrivateDaemon, tmp_path: Path) -> None:
    done = estiba(daemon, "volume", "create", "--opt", "encrypted", "--opt", "size=16m", "vault")
    assert done.stdout == b"vault\n"
    assert f"in file {daemon.data_root}/keys/vault-".encode() in done.stderr
    file = tmp_path / "file"
    done = estiba(daemon, "volume", "backup", "vault", str(file), check=False)
    assert b"say so with --plain" in done.stderr
    assert not file.exists()
    estiba(daemon, "volume", "backup", "--plain", "vault", str(file))
    estiba(daemon, "volume", "restore", "--plain-options", "open", str(file))
    assert view(daemon, "open")["Options"] is None


@pytest.mark.parametrize("kind", ["own", "genuine"])
def test_backups_in_a_registry(daemon: PrivateDaemon, tmp_path: Path, kind: str) -> None:
    if kind == "genuine" and not GenuineRegistry.is_installed():
        pytest.skip("docker-registry is not installed")
    daemon.run("-v", "data:/v", "busybox", "sh", "-c",
               "echo one > /v/file; dd if=/dev/urandom of=/v/big bs=1M count=20 2>&1")  # fmt: skip
    made = OwnRegistry(tmp_path / "own") if kind == "own" else genuine_registry(tmp_path)
    with made as registry:
        reference = f"oci://127.0.0.1:{registry.port}/backups/data:1"
        told = estiba(daemon, "volume", "backup", "data", reference).stdout
        assert b"1: digest: sha256:" in told
        told = estiba(daemon, "volume", "restore", "again", reference).stdout
        assert b"Restored volume again" in told
        both = daemon.run("-v", "data:/a", "-v", "again:/b", "busybox", "sh", "-c",
                          "cat /b/file; cmp /a/big /b/big && echo same")  # fmt: skip
        assert both == "one\nsame\n"
        done = estiba(daemon, "volume", "restore", "x1", reference.replace(":1", ":2"), check=False)
        assert done.returncode == 1
        assert daemon.request("GET", "/volumes/x1")[0] == 404
    done = estiba(daemon, "volume", "backup", "data", reference, check=False)
    assert done.returncode == 1


def test_events_and_completion(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "data")
    estiba(daemon, "volume", "snapshot", "data", "first")
    estiba(daemon, "volume", "clone", "data", "copy")
    estiba(daemon, "volume", "rename", "copy", "moved")
    estiba(daemon, "volume", "rollback", "data", "first")
    filters = urllib.parse.quote('{"type":["volume"]}')
    path = f"/events?since=1&until={time.time():.6f}&filters={filters}"
    content = daemon.request("GET", path, headers={"Accept": "text/plain"})[1]
    told = [json.loads(line) for line in content.splitlines()]
    found = [(one["Action"], one["Actor"]["ID"]) for one in told]
    for pair in (
        ("snapshot", "data"),
        ("clone", "copy"),
        ("rename", "moved"),
        ("rollback", "data"),
    ):
        assert pair in found
    (renamed,) = [
        one for one in told if one["Action"] == "rename" and one["Actor"]["ID"] == "moved"
    ]
    assert renamed["Actor"]["Attributes"]["oldName"] == "copy"
    words = ("volume", "rollback", "data", "")
    assert estiba(daemon, "__complete", *words).stdout == b"first\n"
    assert estiba(daemon, "__complete", "volume", "clone", "").stdout == b"data\nmoved\n"
