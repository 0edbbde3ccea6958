"""kill -9 of the daemon at every step of connect, disconnect and of a change of ports.

After the next start the record says what the kernel has, the container reaches what it should,
and nothing is left that no record justifies.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Callable

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.leaks import HostState, assert_clean

pytestmark = pytest.mark.e2e

CONNECT = [
    "connect.begun",
    "network.veth-made",
    "network.veth-configured",
    "connect.joined",
    "network.ports-translated",
    "connect.published",
    "connect.told",
]
DISCONNECT = [
    "disconnect.begun",
    "network.ports-released",
    "disconnect.left",
    "disconnect.published",
    "disconnect.told",
]
SERVE = "echo hello > /tmp/index.html; httpd -p 80 -h /tmp; touch /tmp/ready; sleep 1000"
PUBLISH = ["publish.begun", "network.ports-translated", "publish.published"]


@pytest.fixture
def daemon(make_daemon: Callable[..., PrivateDaemon]) -> PrivateDaemon:
    made = make_daemon()
    made.start()
    made.import_busybox()
    return made


@pytest.fixture
def before(daemon: PrivateDaemon) -> HostState:
    """The host without the container, which then serves a published port on `bridge`."""
    state = HostState.read(only=daemon.tag)
    daemon.docker("network", "create", "a-blue")
    daemon.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--tmpfs", "/tmp",
                  "busybox", "sh", "-c", SERVE)  # fmt: skip
    wait_served(daemon)
    return state


def wait_served(daemon: PrivateDaemon) -> None:
    wait_until(
        lambda: daemon.docker("exec", "web", "ls", "/tmp/ready", check=False).returncode == 0,
        what="the server",
    )


def connect(daemon: PrivateDaemon) -> None:
    """The way out and the ports move to the new network."""
    daemon.request("POST", "/networks/a-blue/connect", {"Container": "web"})


def disconnect(daemon: PrivateDaemon) -> None:
    body = {"Container": "web"}
    daemon.request("POST", "/networks/a-blue/disconnect", body)


def publish(daemon: PrivateDaemon) -> None:
    added = {"81/tcp": [{"HostIp": "127.0.0.1"}]}
    daemon.request("POST", "/containers/web/update", {"PublishAdd": added})


def die_in(daemon: PrivateDaemon, point: str, action: Callable[[PrivateDaemon], None]) -> None:
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        action(daemon)
        raise AssertionError(f"{point} was not reached")
    daemon.wait_death()
    daemon.start()


def shown(daemon: PrivateDaemon) -> dict[str, str]:
    """Addresses by network, as the record has them."""
    found = daemon.inspect("web")["NetworkSettings"]["Networks"]
    return {name: view["IPAddress"] for name, view in found.items()}


def inside(daemon: PrivateDaemon, *command: str) -> str:
    return daemon.docker("exec", "web", *command).stdout.decode()


def check(daemon: PrivateDaemon, *expected: str) -> None:
    addresses = shown(daemon)
    assert sorted(addresses) == sorted(expected)
    lines = inside(daemon, "ip", "-4", "-o", "addr").splitlines()
    there = {line.split()[3].partition("/")[0] for line in lines} - {"127.0.0.1"}
    assert there == set(addresses.values())
    hosts = inside(daemon, "cat", "/etc/hosts").splitlines()
    name = daemon.inspect("web")["Id"][:12]
    own = {line.split()[0] for line in hosts if line.endswith(f"\t{name}") and ":" not in line}
    assert own == set(addresses.values())
    for network in ("a-blue", "bridge"):
        members = daemon.request("GET", f"/networks/{network}")[1]["Containers"]
        assert bool(members) is (network in expected)
    route = inside(daemon, "ip", "-4", "route", "show", "default").split()
    view = daemon.inspect("web")["NetworkSettings"]
    assert route[2] == view["Networks"][min(expected)]["Gateway"]
    port = view["Ports"]["80/tcp"][0]["HostPort"]
    assert fetch(port) == "hello\n"
    assert daemon.request("GET", "/events?since=1&until=2")[0] == 200


def fetch(port: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    connection.request("GET", "/index.html")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def check_end(daemon: PrivateDaemon, before: HostState) -> None:
    """Everything can go, and goes."""
    daemon.docker("rm", "-f", "web")
    daemon.docker("network", "rm", "a-blue")
    assert_clean(before, only=daemon.tag)
    table = subprocess.run(
        ["nft", "list", "table", "inet", f"estiba_{daemon.bridge}"], capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert f"{daemon.subnet}." not in table.replace(f"{daemon.subnet}.0/24", "").replace(
        f"{daemon.subnet}.1", ""
    )


@pytest.mark.parametrize("point", CONNECT)
def test_killed_in_connect(daemon: PrivateDaemon, before: HostState, point: str) -> None:
    die_in(daemon, point, connect)
    check(daemon, "bridge")
    connect(daemon)
    check(daemon, "a-blue", "bridge")
    check_end(daemon, before)


@pytest.mark.parametrize("point", DISCONNECT)
def test_killed_in_disconnect(daemon: PrivateDaemon, before: HostState, point: str) -> None:
    connect(daemon)
    check(daemon, "a-blue", "bridge")
    die_in(daemon, point, disconnect)
    check(daemon, "bridge")
    check_end(daemon, before)


@pytest.mark.parametrize("point", PUBLISH)
def test_killed_in_a_change_of_ports(daemon: PrivateDaemon, before: HostState, point: str) -> None:
    die_in(daemon, point, publish)
    check(daemon, "bridge")
    assert daemon.inspect("web")["NetworkSettings"]["Ports"].get("81/tcp") is None
    publish(daemon)
    assert daemon.inspect("web")["NetworkSettings"]["Ports"]["81/tcp"]
    check(daemon, "bridge")
    check_end(daemon, before)


@pytest.mark.parametrize("point", CONNECT)
@pytest.mark.usefixtures("before")
def test_a_connection_that_fails_is_undone(daemon: PrivateDaemon, point: str) -> None:
    daemon.restart({"ESTIBA_FAILPOINTS": f"{point}=error"})
    status, _ = daemon.request("POST", "/networks/a-blue/connect", {"Container": "web"})
    assert status == 500
    check(daemon, "bridge")
    connect(daemon)
    check(daemon, "a-blue", "bridge")
    daemon.restart()
    check(daemon, "a-blue", "bridge")


@pytest.mark.usefixtures("before")
def test_what_ended_meanwhile_is_not_connected(daemon: PrivateDaemon) -> None:
    connect(daemon)
    pid = daemon.inspect("web")["State"]["Pid"]
    daemon.restart({"ESTIBA_FAILPOINTS": "disconnect.left=kill"})
    with contextlib.suppress(OSError, http.client.HTTPException):
        disconnect(daemon)
    daemon.wait_death()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    daemon.start()
    assert daemon.inspect("web")["State"]["Status"] == "exited"
    assert list(shown(daemon)) == ["bridge"]
    daemon.docker("start", "web")
    wait_served(daemon)
    check(daemon, "bridge")
