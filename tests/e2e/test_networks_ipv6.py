"""IPv6 and macvlan by the stock client: what is asked for, shown, used, and kept over crashes."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, needs_docker, wait_until
from tests.support.leaks import HostState, assert_clean

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def clean(daemon: PrivateDaemon) -> Iterator[None]:
    """No container and no network outlives a test, and the host forwards as before."""
    before = HostState.read(only=daemon.tag)
    settings = [Path("/proc/sys/net/ipv6/conf/all/forwarding")]
    settings += Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra")
    values = {}
    for path in settings:
        # Other tests' links come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            values[path] = path.read_text()
    yield
    for container in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    daemon.request("POST", "/networks/prune")
    for path, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            if path.read_text() != value:
                path.write_text(value)
    wait_until(lambda: _is_clean(before, daemon), what="links to be gone")
    assert_clean(before, only=daemon.tag)


def _is_clean(before: HostState, daemon: PrivateDaemon) -> bool:
    try:
        assert_clean(before, only=daemon.tag)
    except AssertionError:
        return False
    return True


@pytest.fixture
def prefix() -> str:
    """A /48 that nobody else on this host has."""
    first, second = (1 + secrets.randbelow(0xFFFF) for _ in range(2))
    return f"fd{secrets.token_hex(1)}:{first:x}:{second:x}"


def run(daemon: PrivateDaemon, name: str, *flags: str, command: str = "sleep 1000") -> None:
    words = ["--stop-signal", "KILL", "busybox", "sh", "-c", command]
    daemon.docker("run", "-d", "--name", name, *flags, *words)


def on(daemon: PrivateDaemon, name: str, network: str) -> dict[str, Any]:
    return dict(daemon.inspect(name)["NetworkSettings"]["Networks"][network])


def pings(daemon: PrivateDaemon, name: str, address: str, family: str = "") -> bool:
    family = family or ("-6" if ":" in address else "-4")
    words = ["exec", name, "ping", family, "-c1", "-W2", address]
    return daemon.docker(*words, check=False).returncode == 0


def ask(address: str, port: int) -> bytes:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_a_network_of_both_families(daemon: PrivateDaemon, prefix: str) -> None:
    subnet = f"{prefix}::/64"
    daemon.docker("network", "create", "--ipv6", "--subnet", subnet, "six")
    status, shown = daemon.request("GET", "/networks/six")
    assert status == 200 and shown["EnableIPv6"] and shown["EnableIPv4"]
    assert [config["Subnet"] for config in shown["IPAM"]["Config"]][1] == subnet
    serve = "while :; do echo hello | nc -l -p 80; done"
    run(daemon, "web", "--network", "six", "--ip6", f"{prefix}::9", "-p", "80", command=serve)
    run(daemon, "client", "--network", "six")
    web = on(daemon, "web", "six")
    assert web["GlobalIPv6Address"] == f"{prefix}::9"
    assert (web["GlobalIPv6PrefixLen"], web["IPv6Gateway"]) == (64, f"{prefix}::1")
    for address in (web["GlobalIPv6Address"], web["IPAddress"], web["IPv6Gateway"]):
        assert pings(daemon, "client", address), address
    ports = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"]
    assert [each["HostIp"] for each in ports] == ["0.0.0.0", "::"]
    port = int(ports[0]["HostPort"])
    for address in ("127.0.0.1", "::1"):
        wait_until(lambda a=address: ask(a, port) == b"hello\n", what=f"an answer at {address}")
    daemon.kill9()
    daemon.start()
    assert on(daemon, "web", "six")["GlobalIPv6Address"] == f"{prefix}::9"
    wait_until(lambda: ask("::1", port) == b"hello\n", what="an answer after the restart")
    daemon.docker("restart", "-t0", "web")
    assert daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"] == ports
    refused = daemon.docker(
        "run", "--rm", "--network", "six", "--ip6", f"{prefix}::9", "busybox", "true", check=False
    )
    assert b"Address already in use" in refused.stderr and b"container web has it" in refused.stderr


@needs_docker(28)
def test_ipv6_alone(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "--ipv6", "--ipv4=false", "only6")
    status, shown = daemon.request("GET", "/networks/only6")
    assert status == 200 and not shown["EnableIPv4"]
    assert [config["Subnet"][:2] for config in shown["IPAM"]["Config"]] == ["fd"]
    for name in ("one", "two"):
        run(daemon, name, "--network", "only6")
    two = on(daemon, "two", "only6")
    assert two["IPAddress"] == ""
    assert pings(daemon, "one", two["GlobalIPv6Address"])
    assert pings(daemon, "one", "two", "-6"), "by its name"


def test_a_running_container_comes_to_ipv6_and_leaves(daemon: PrivateDaemon, prefix: str) -> None:
    daemon.docker("network", "create", "--ipv6", "--subnet", f"{prefix}::/64", "six")
    run(daemon, "one")
    routes = ["exec", "one", "ip", "-6", "route", "show", "default"]
    assert daemon.docker(*routes).stdout == b""
    daemon.docker("network", "connect", "--ip6", f"{prefix}::77", "six", "one")
    assert f"via {prefix}::1 dev eth1" in daemon.docker(*routes).stdout.decode()
    assert pings(daemon, "one", f"{prefix}::1")
    daemon.docker("network", "disconnect", "six", "one")
    assert daemon.docker(*routes).stdout == b""
    assert b"eth0" in daemon.docker("exec", "one", "ip", "-4", "route").stdout


def test_macvlan_without_a_parent(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "-d", "macvlan", "alone")
    for name in ("one", "two"):
        run(daemon, name, "--network", "alone")
    two = on(daemon, "two", "alone")
    assert pings(daemon, "one", two["IPAddress"])
    assert two["Gateway"] == ""
    daemon.kill9()
    daemon.start()
    daemon.docker("stop", "-t0", "two")
    daemon.docker("start", "two")
    assert on(daemon, "two", "alone")["IPAddress"] == two["IPAddress"]
    assert pings(daemon, "one", two["IPAddress"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subnet", "10.0.0.1/8"], "it should be 10.0.0.0/8"),
        (["--subnet", "nonsense"], "invalid CIDR"),
        (["-d", "macvlan", "-o", "parent=nowhere"], "parent interface was not found on the host"),
        (["-d", "macvlan", "-o", "macvlan_mode=x"], "requested macvlan mode 'x' is not valid"),
        (["-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated"], "internal network"),
    ],
)
def test_what_makes_no_sense_is_said(daemon: PrivateDaemon, words: list[str], said: str) -> None:
    done = daemon.docker("network", "create", *words, "bad", check=False)
    assert done.returncode == 1
    assert said in done.stderr.decode()
