"""Containers that join and leave networks, by the stock client, docker-py and the API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection
from tests.support.leaks import HostState, assert_clean

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def clean(daemon: PrivateDaemon) -> Iterator[None]:
    """No container and no network of a test outlives it."""
    before = HostState.read(only=daemon.tag)
    yield
    for container in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    daemon.request("POST", "/networks/prune")
    assert_clean(before, only=daemon.tag)


def network(daemon: PrivateDaemon, name: str, *flags: str) -> str:
    return daemon.docker("network", "create", *flags, name).stdout.decode().strip()


def run(daemon: PrivateDaemon, name: str, *flags: str) -> dict[str, Any]:
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return daemon.inspect(name)


def inside(daemon: PrivateDaemon, name: str, *command: str) -> str:
    return daemon.docker("exec", name, *command).stdout.decode()


def interfaces(daemon: PrivateDaemon, name: str) -> dict[str, str]:
    """IPv4 addresses by interface, as the container sees them."""
    found = {}
    for line in inside(daemon, name, "ip", "-4", "-o", "addr").splitlines():
        words = line.split()
        found[words[1]] = words[3].partition("/")[0]
    return found


def gateway(daemon: PrivateDaemon, name: str) -> str:
    words = inside(daemon, name, "ip", "-4", "route", "show", "default").split()
    return words[2] if words else ""


def networks(daemon: PrivateDaemon, name: str) -> dict[str, Any]:
    return dict(daemon.inspect(name)["NetworkSettings"]["Networks"])


def connect(daemon: PrivateDaemon, name: str, container: str, **settings: Any) -> tuple[int, Any]:
    body = {"Container": container, "EndpointConfig": settings}
    return daemon.request("POST", f"/networks/{name}/connect", body)


def disconnect(
    daemon: PrivateDaemon, name: str, container: str, *, force: bool = False
) -> tuple[int, Any]:
    body = {"Container": container, "Force": force}
    return daemon.request("POST", f"/networks/{name}/disconnect", body)


def test_a_container_that_runs_joins_and_leaves(daemon: PrivateDaemon) -> None:
    network(daemon, "blue", "--subnet", "10.171.1.0/24")
    run(daemon, "web")
    alone = interfaces(daemon, "web")
    daemon.docker("network", "connect", "--ip", "10.171.1.77", "--alias", "shop", "blue", "web")
    assert interfaces(daemon, "web") == {**alone, "eth1": "10.171.1.77"}
    view = networks(daemon, "web")["blue"]
    assert view["IPAddress"] == "10.171.1.77" and view["Aliases"] == ["shop"]
    assert view["DNSNames"] == ["web", "shop", daemon.inspect("web")["Id"][:12]]
    members = daemon.request("GET", "/networks/blue")[1]["Containers"]
    assert [one["IPv4Address"] for one in members.values()] == ["10.171.1.77/24"]
    assert f"10.171.1.77\t{daemon.inspect('web')['Id'][:12]}" in inside(
        daemon, "web", "cat", "/etc/hosts"
    )
    daemon.docker("network", "disconnect", "blue", "web")
    assert interfaces(daemon, "web") == alone
    assert "10.171.1.77" not in inside(daemon, "web", "cat", "/etc/hosts")
    assert list(networks(daemon, "web")) == ["bridge"]
    assert [one for one in events(daemon, "web") if one[0] == "network"] == [
        ("network", "connect", "bridge"),
        ("network", "connect", "blue"),
        ("network", "disconnect", "blue"),
    ]


def events(daemon: PrivateDaemon, container: str) -> list[tuple[str, str, str]]:
    """Kind, action and name of what happened to a container, or to networks for its sake."""
    container_id = daemon.inspect(container)["Id"]
    connection = UnixConnection(daemon.socket)
    connection.request("GET", f"/events?since=1&until={time.time():.6f}")
    lines = connection.getresponse().read().splitlines()
    connection.close()
    found = [json.loads(line) for line in lines]
    return [
        (one["Type"], one["Action"], one["Actor"]["Attributes"].get("name", ""))
        for one in found
        if container_id in (one["Actor"]["ID"], one["Actor"]["Attributes"].get("container"))
    ]


def test_what_is_there_in_etc_hosts_stays(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    run(daemon, "web", "--add-host", "db:192.0.2.9")
    inside(daemon, "web", "sh", "-c", "echo '192.0.2.7 mine' >> /etc/hosts")
    before = inside(daemon, "web", "cat", "/etc/hosts")
    daemon.docker("network", "connect", "blue", "web")
    assert inside(daemon, "web", "cat", "/etc/hosts").startswith(before)
    daemon.docker("network", "disconnect", "blue", "web")
    assert inside(daemon, "web", "cat", "/etc/hosts") == before
