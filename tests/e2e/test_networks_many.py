"""Many ports and many containers: no process a port, nothing left, everyone found by name."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e

_PORTS = 100
_CONTAINERS = 200
_CLIENTS = 4


def _processes() -> set[str]:
    """Command lines of everything that runs; of kernel threads nothing."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found.add((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_ports_cost_no_process(daemon: PrivateDaemon) -> None:
    daemon.docker("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
    published = [f"-p127.0.0.1::{9000 + number}" for number in range(_PORTS)]
    script = f"for p in $(seq 9000 {9000 + _PORTS - 1}); do nc -ll -p $p -e echo $p & done; wait"
    daemon.docker("run", "-d", "--name", "ports", *published, "busybox", "sh", "-c", script)
    ids = {name: daemon.inspect(name)["Id"] for name in ("plain", "ports")}

    def counts() -> list[int]:
        return [sum(identity in line for line in _processes()) for identity in ids.values()]

    # The runtime's, which has become the program, has its own name a moment longer.
    wait_until(lambda: counts() == [1, 1], what="a monitor each to be all that is left")
    assert not any("proxy" in line and daemon.tag in line for line in _processes())
    for key, bindings in daemon.inspect("ports")["NetworkSettings"]["Ports"].items():
        port = int(bindings[0]["HostPort"])

        def answer(port: int = port) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                return connection.recv(100)

        wait_until(lambda a=answer: _quiet(a), what=f"the program behind {key}")
        assert answer() == key.partition("/")[0].encode() + b"\n"
    daemon.docker("rm", "-f", "plain", "ports")


def _quiet(answer) -> bytes:  # type: ignore[no-untyped-def]
    try:
        return answer()
    except OSError:
        return b""


def test_a_network_of_many(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "--subnet", "10.199.0.0/22", "crowd")
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "StopSignal": "KILL",
        "HostConfig": {"NetworkMode": "crowd"},
    }

    def begin(number: int) -> None:
        name = f"/containers/create?name=crowd{number}"
        status, made = daemon.request("POST", name, body)
        assert status == 201, made
        status, said = daemon.request("POST", f"/containers/{made['Id']}/start")
        assert status == 204, said

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(begin, range(_CONTAINERS)))
    status, network = daemon.request("GET", "/networks/crowd")
    assert status == 200
    addresses = {each["Name"]: each["IPv4Address"] for each in network["Containers"].values()}
    assert len(addresses) == len(set(addresses.values())) == _CONTAINERS
    for asking, asked in ((0, _CONTAINERS - 1), (_CONTAINERS - 1, 0), (57, 133)):
        address = addresses[f"crowd{asked}"].partition("/")[0]
        done = daemon.docker("exec", f"crowd{asking}", "ping", "-c1", "-w5", f"crowd{asked}")
        assert address.encode() in done.stdout

    def end(number: int) -> None:
        status, said = daemon.request("DELETE", f"/containers/crowd{number}?force=1")
        assert status == 204, said

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(end, range(_CONTAINERS)))
    daemon.docker("network", "rm", "crowd")
