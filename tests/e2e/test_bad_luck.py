"""A full disk, and a container that swaps symlinks while files are copied."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def small_disk(
    make_daemon: Callable[..., PrivateDaemon], tmp_path: Path
) -> Iterator[PrivateDaemon]:
    """A daemon whose data root has 40 MB."""
    daemon = make_daemon()
    daemon.data_root.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", daemon.data_root], check=True
    )
    try:
        daemon.start()
        daemon.import_busybox()
        yield daemon
        daemon.close()
    finally:
        subprocess.run(["umount", "-l", daemon.data_root], check=True)


def tar_of(size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


def test_a_full_disk_loses_nothing(small_disk: PrivateDaemon) -> None:
    daemon = small_disk
    done = daemon.docker("import", "-", "big:1", stdin=tar_of(60_000_000), check=False)
    assert b"No space left" in done.stdout + done.stderr
    assert not list((daemon.data_root / "images" / "ingest").iterdir())
    daemon.docker("run", "-d", "--name", "kept", "busybox", "sleep", "1000")
    filler = daemon.data_root / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    status, answer = daemon.request("POST", "/containers/create?name=none", {"Image": "busybox"})
    assert status == 500, answer
    filler.unlink()
    assert daemon.inspect("kept")["State"]["Running"]
    assert daemon.run("busybox", "echo", "again") == "again\n"
    daemon.restart()
    assert daemon.inspect("kept")["State"]["Running"]
    assert daemon.request("GET", "/containers/none/json")[0] == 404


def test_cp_races_a_symlink_swap(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """The container swaps a directory for a symlink to the host's path all the while."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("canary")
    swap = (
        f"mkdir -p /spot{tmp_path} /a; while :; do ln -sfn {outside} /l; rm -rf /d; mkdir /d;"
        " echo inside > /d/secret; rm -rf /d; ln -s /l /d; done"
    )
    daemon.docker("run", "-d", "--name", "racer", "busybox", "sh", "-c", swap)
    try:
        for _ in range(40):
            done = daemon.docker("cp", "racer:/d/secret", "-", check=False)
            assert b"canary" not in done.stdout
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                info = tarfile.TarInfo("evil")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
            daemon.docker("cp", "-", "racer:/d", stdin=archive.getvalue(), check=False)
        assert [entry.name for entry in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_text() == "canary"
    finally:
        daemon.docker("rm", "-f", "racer")


def test_clients_that_send_nothing_stop_nobody_else(daemon: PrivateDaemon) -> None:
    """More uploads than the engine has threads in its pool, all of them stalled."""
    daemon.docker("create", "--name", "target", "busybox", "true")
    head = b"Transfer-Encoding: chunked\r\nHost: d\r\n\r\n200\r\n"
    targets = [
        b"POST /images/load",
        b"POST /images/create?fromSrc=-&repo=stalled",
        b"PUT /containers/target/archive?path=/",
    ]
    stalled = []
    for number in range(30):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(daemon.socket))
        connection.sendall(targets[number % 3] + b" HTTP/1.1\r\n" + head + b"half of a header")
        stalled.append(connection)
    assert daemon.docker("run", "--rm", "busybox", "echo", "alive").stdout == b"alive\n"
    for connection in stalled:
        connection.close()
    wait_until(
        lambda: daemon.request("DELETE", "/containers/target")[0] == 204,
        what="the last upload to be given up",
    )
