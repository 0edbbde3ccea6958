"""A full disk, symlinks that are swapped while files are copied, clients that get in the way of
one another, and many containers."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean

pytestmark = pytest.mark.e2e

_LOOKS = 10


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
    ingest = daemon.data_root / "images" / "ingest"
    wait_until(lambda: not list(ingest.iterdir()), what="the files of removed layers to go")
    for name in ("kept", "stopped", "removed"):
        daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    filler = daemon.data_root / "filler"
    fill(filler)
    assert daemon.docker("exec", "kept", "echo", "alive").stdout == b"alive\n"
    done = daemon.docker("cp", "-", "kept:/", stdin=tar_of(3_000_000), check=False)
    assert done.returncode == 1 and b"No space left on device: make room" in done.stderr
    daemon.docker("stop", "-t", "0", "stopped")
    daemon.docker("rm", "-f", "removed")
    fill(filler)
    daemon.kill9()
    daemon.start()
    assert daemon.inspect("kept")["State"]["Running"]
    assert daemon.inspect("stopped")["State"]["ExitCode"] == 137
    assert daemon.request("GET", "/containers/removed/json")[0] == 404
    filler.unlink()
    assert daemon.run("busybox", "echo", "again") == "again\n"


def fill(path: Path) -> None:
    """Takes all the room that the disk has."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


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
        for _ in range(300):
            path = "/containers/racer/archive?path=/d"
            status, answer = daemon.request("PUT", path, archive.getvalue())
            assert status in (200, 400, 404), answer
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


@pytest.mark.parametrize("verb", ["rm -f", "start", "stop -t 0", "restart -t 0"])
def test_two_clients_want_the_same(daemon: PrivateDaemon, verb: str) -> None:
    daemon.docker("create", "--name", "twice", "busybox", "sleep", "1000")
    if verb != "start":
        daemon.docker("start", "twice")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: daemon.docker(*verb.split(), "twice"), range(4)))
    daemon.docker("rm", "-f", "twice", check=False)


def test_many_clients_do_anything_to_one_container(daemon: PrivateDaemon) -> None:
    before = HostState.read(only=daemon.tag)
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20}
    posts = ["start", "stop?t=0", "kill", "restart?t=0", "pause", "unpause", "update"]
    posts += ["rename?name=mix1", "rename?name=mix2"]

    def client(number: int) -> list[tuple[str, Any]]:
        choose = random.Random(number)
        failures = []
        for _ in range(25):
            verb = choose.choice([*posts, "create", "create", "remove"])
            name = choose.choice(["mix1", "mix2"])
            if verb == "create":
                answer = daemon.request("POST", f"/containers/create?name={name}", body)
            elif verb == "remove":
                answer = daemon.request("DELETE", f"/containers/{name}?force=1")
            else:
                given = limits if verb == "update" else None
                answer = daemon.request("POST", f"/containers/{name}/{verb}", given)
            if answer[0] >= 500:
                failures.append((verb, answer))
        return failures

    with ThreadPoolExecutor(6) as pool:
        assert [found for found in pool.map(client, range(6)) if found] == []
    for name in ("mix1", "mix2"):
        daemon.request("DELETE", f"/containers/{name}?force=1")
    assert not list((daemon.data_root / "containers").iterdir())
    assert_clean(before, only=daemon.tag)


def facts_of(daemon: PrivateDaemon) -> dict[str, Any]:
    """What must be the same after any number of containers."""
    assert daemon.process is not None
    process = Path("/proc", str(daemon.process.pid))
    # Not by rglob: that fails where a directory vanishes meanwhile.
    files = [
        os.path.join(folder, name)
        for root in (daemon.data_root, daemon.exec_root)
        for folder, folders, names in os.walk(root)
        for name in (*folders, *names)
        if "layers" not in folder.split("/")
        and name != "layers"
        and not name.startswith("estiba.db")
    ]
    table = f"estiba_{daemon.bridge}"
    rules = subprocess.run(
        ["nft", "list", "table", "inet", table], capture_output=True, check=True
    ).stdout
    return {
        "descriptors": len(list((process / "fd").iterdir())),
        "files": sorted(files),
        "rules": rules,
        "children": (process / "task" / process.name / "children").read_text().split(),
    }


def settled(daemon: PrivateDaemon) -> dict[str, Any]:
    """The facts once nothing goes on in the background: files are deleted there, for one thing."""
    seen: list[dict[str, Any]] = []

    def is_still() -> bool:
        seen.append(facts_of(daemon))
        return len(seen) > _LOOKS and all(one == seen[-1] for one in seen[-_LOOKS:])

    wait_until(is_still, what="the engine to be still")
    return seen[-1]


def test_five_hundred_containers_leave_nothing(daemon: PrivateDaemon) -> None:
    """Made, some of them started, and removed, with a volume and a published port each."""
    body = {
        "Image": "busybox",
        "Cmd": ["true"],
        "Volumes": {"/data": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    }

    def life(number: int) -> None:
        status, answer = daemon.request("POST", "/containers/create", body)
        assert status == 201, answer
        path = f"/containers/{answer['Id']}"
        if number % 4 == 0:
            assert daemon.request("POST", f"{path}/start")[0] == 204
        assert daemon.request("DELETE", f"{path}?force=1&v=1")[0] == 204

    def many(number: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(life, range(number)))

    host = HostState.read(only=daemon.tag)
    many(40)
    before = settled(daemon)
    many(500)
    wait_until(lambda: facts_of(daemon) == before, what="everything to be as it was")
    assert_clean(host, only=daemon.tag)
