"""Encrypted volumes on a data root whose own file system offers fscrypt."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

from estiba.kernel import fscrypt
from estiba.kernel.loop import attached, is_attached
from estiba.kernel.mounts import mount, unmount

pytestmark = pytest.mark.e2e

NAME = "a-name-that-tells"


@pytest.fixture
def daemon(tmp_path: Path, make_daemon: Callable[..., PrivateDaemon]) -> Iterator[PrivateDaemon]:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "encrypt", image], check=True)
    made = make_daemon()
    made.data_root.mkdir()
    with attached(image) as device:
        mount(str(device), made.data_root, "ext4")
    try:
        made.start()
        made.import_busybox()
        yield made
        made.close()
    finally:
        unmount(made.data_root)
    wait_until(lambda: not is_attached(image), what="the disk to go")


def identifier(daemon: PrivateDaemon, volume: str) -> bytes:
    fd = fscrypt.open_place(daemon.data_root / "volumes" / volume / "_tree")
    try:
        found = fscrypt.policy_of(fd)
    finally:
        os.close(fd)
    assert found
    return found


def has_key(daemon: PrivateDaemon, key: bytes) -> bool:
    fd = fscrypt.open_place(daemon.data_root)
    try:
        return fscrypt.has_key(fd, key)
    finally:
        os.close(fd)


def names_below(root: Path) -> list[str]:
    return [name for _, folders, files in os.walk(root) for name in folders + files]


def test_the_key_is_there_while_a_container_is_up(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "encrypted", "vault")
    status = daemon.request("GET", "/volumes/vault")[1]["Status"]
    assert status["Encryption"] == "fscrypt"
    key = identifier(daemon, "vault")
    assert not has_key(daemon, key)
    for name in ("one", "two"):
        daemon.docker("run", "-d", "--name", name, "-v", "vault:/v", "busybox", "sleep", "1000")
    # By STDIN: the command itself is in the state, and not secret.
    marker = secrets.token_hex(16).encode()
    script = f"mkdir /v/d; cat > /v/d/{NAME}"
    daemon.docker("exec", "-i", "one", "sh", "-c", script, stdin=marker * 1000)
    assert has_key(daemon, key)
    daemon.docker("stop", "-t", "0", "one")
    daemon.kill9()
    daemon.start()
    assert has_key(daemon, key)
    assert daemon.docker("exec", "two", "cat", f"/v/d/{NAME}").stdout == marker * 1000
    daemon.docker("exec", "-d", "two", "sh", "-c", f"exec 3</v/d/{NAME}; sleep 1000")
    daemon.docker("stop", "-t", "0", "two")
    wait_until(lambda: not has_key(daemon, key), what="the kernel to forget the key")
    assert NAME not in names_below(daemon.data_root / "volumes")
    subprocess.run(["sync", "-f", daemon.data_root], check=True)
    assert marker not in (daemon.root.parent / "disk").read_bytes()
    assert daemon.run("-v", "vault:/v", "busybox", "cat", f"/v/d/{NAME}") == marker.decode() * 1000
    assert not has_key(daemon, key)


def test_a_container_that_ends_while_the_engine_is_away(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "encrypted", "vault")
    daemon.docker("run", "-d", "--name", "one", "-v", "vault:/v", "busybox", "sleep", "1000")
    key = identifier(daemon, "vault")
    pid = daemon.inspect("one")["State"]["Pid"]
    daemon.kill9()
    os.kill(pid, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the container to end")
    daemon.start()
    wait_until(lambda: not has_key(daemon, key), what="the kernel to forget the key")


def test_snapshots_and_clones_are_encrypted_too(daemon: PrivateDaemon) -> None:
    daemon.docker("volume", "create", "--opt", "encrypted", "vault")
    daemon.run("-v", "vault:/v", "busybox", "touch", f"/v/{NAME}")
    assert daemon.request("POST", "/volumes/vault/snapshots?tag=first")[0] == 201
    assert daemon.request("POST", "/volumes/vault/clone?name=copy")[0] == 201
    assert identifier(daemon, "copy") != identifier(daemon, "vault")
    assert NAME not in names_below(daemon.data_root / "volumes")
    assert daemon.run("-v", "copy:/v", "busybox", "ls", "/v") == f"{NAME}\n"
    daemon.run("-v", "vault:/v", "busybox", "rm", f"/v/{NAME}")
    assert daemon.request("POST", "/volumes/vault/snapshots/first/restore")[0] == 204
    assert daemon.run("-v", "vault:/v", "busybox", "ls", "/v") == f"{NAME}\n"
    for name in ("vault", "copy"):
        assert not has_key(daemon, identifier(daemon, name))
        daemon.docker("volume", "rm", name)
