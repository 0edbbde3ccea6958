"""Networks and addresses of a plugin in a process of its own, through the stock docker client."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, wait_until
from tests.support.plugins import PluginProcess

pytestmark = pytest.mark.e2e


@dataclass
class World:
    daemon: PrivateDaemon
    plugin: PluginProcess
    subnet: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("plugged")
    folder, tag = root / "plugins", f"p{secrets.token_hex(2)}"
    subnet = f"10.{150 + secrets.randbelow(40)}"
    (root / "daemon").mkdir()
    daemon = PrivateDaemon(root / "daemon", "--plugin-socket-dir", str(folder))
    plugin = PluginProcess("network", folder / "blue.sock", root / "blue", tag=tag, subnet=subnet)
    plugin.start()
    daemon.start()
    daemon.import_busybox()
    try:
        yield World(daemon, plugin, subnet)
    finally:
        plugin.kill()
        plugin.start()
        plugin.behave()
        daemon.close()
        state = plugin.state()
        plugin.kill()
    assert not any(state.values()), f"the plugin still has {state}"
    assert not [name for _, name in socket.if_nameindex() if name.startswith(tag)]


@pytest.fixture
def network(world: World) -> Iterator[str]:
    world.daemon.docker(
        "network", "create", "-d", "blue", "--subnet", f"{world.subnet}.9.0/24",
        "--ipam-driver", "blue", "--ipam-opt", "rack=7", "-o", "colour=red", "net",
    )  # fmt: skip
    yield "net"
    world.plugin.behave()
    # Those of a test that failed.
    for container in world.daemon.docker("ps", "-aq").stdout.decode().split():
        world.daemon.docker("rm", "-f", container)
    world.daemon.docker("network", "rm", "net")


def inspect(daemon: PrivateDaemon, kind: str, name: str) -> dict[str, Any]:
    return dict(json.loads(daemon.docker(kind, "inspect", name).stdout)[0])


def test_containers_run_on_a_network_of_a_plugin(world: World, network: str) -> None:
    daemon = world.daemon
    view = inspect(daemon, "network", network)
    assert (view["Driver"], view["IPAM"]["Driver"]) == ("blue", "blue")
    assert view["IPAM"]["Options"] == {"rack": "7"}
    assert view["Options"] == {"colour": "red"}
    (pool,) = view["IPAM"]["Config"]
    assert pool["Subnet"].startswith(world.subnet)
    daemon.docker("run", "-d", "--name", "one", "--network", network, "busybox", "sleep", "1000")
    daemon.docker("run", "-d", "--name", "two", "--network", network, "busybox", "sleep", "1000")
    settings = inspect(daemon, "container", "one")["NetworkSettings"]["Networks"][network]
    assert settings["IPAddress"].endswith(".50")
    gateway = f"{world.subnet}.9.1"
    assert settings["Gateway"] == gateway
    assert settings["MacAddress"].startswith("02:aa:")
    daemon.docker("exec", "two", "ping", "-c", "1", "-W", "3", settings["IPAddress"])
    daemon.docker("exec", "two", "ping", "-c", "1", "-W", "3", gateway)
    assert len(inspect(daemon, "network", network)["Containers"]) == 2
    done = daemon.docker("network", "rm", network, check=False)
    assert b"active endpoints" in done.stderr
    assert "blue" in daemon.docker("info", "--format", "{{.Plugins.Network}}").stdout.decode()
    daemon.docker("rm", "-f", "one", "two")
    assert world.plugin.state()["endpoints"] == {}


def test_running_containers_join_and_leave(world: World, network: str) -> None:
    daemon = world.daemon
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    address = inspect(daemon, "network", network)["IPAM"]["Config"][0]["Subnet"]
    wished = address.replace(".0/24", ".77")
    daemon.docker("network", "connect", "--ip", wished, network, "box")
    shown = daemon.docker("exec", "box", "ip", "-4", "addr", "show", "eth1").stdout.decode()
    assert f"{wished}/24" in shown
    daemon.docker("network", "disconnect", network, "box")
    assert b"eth1" not in daemon.docker("exec", "box", "ip", "link").stdout
    assert world.plugin.state()["endpoints"] == {}
    daemon.docker("rm", "-f", "box")


def test_ports_are_the_plugins(world: World, network: str) -> None:
    daemon = world.daemon
    daemon.docker("run", "-d", "--name", "web", "--network", network, "-p", "127.0.0.1:18080:80",
                  "busybox", "sleep", "1000")  # fmt: skip
    assert daemon.docker("port", "web").stdout == b"80/tcp -> 127.0.0.1:18080\n"
    asked = world.plugin.calls("NetworkDriver.ProgramExternalConnectivity")[-1]["Options"]
    assert asked["com.docker.network.portmap"][0]["HostPort"] == 18080
    daemon.docker("rm", "-f", "web")


def test_the_engine_dies_and_the_plugin_dies(world: World, network: str) -> None:
    daemon = world.daemon
    daemon.docker("run", "-d", "--name", "box", "--network", network, "busybox", "sleep", "1000")
    before = inspect(daemon, "container", "box")["NetworkSettings"]["Networks"][network]
    daemon.kill9()
    world.plugin.kill()
    daemon.start()
    after = inspect(daemon, "container", "box")["NetworkSettings"]["Networks"][network]
    assert after["IPAddress"] == before["IPAddress"]
    daemon.docker("run", "--rm", "busybox", "true")
    done = daemon.docker("run", "--rm", "--network", network, "busybox", "true", check=False)
    assert done.returncode == 125
    world.plugin.start()
    daemon.docker("run", "--rm", "--network", network, "busybox", "true")
    daemon.docker("rm", "-f", "box")
    wait_until(lambda: world.plugin.state()["endpoints"] == {}, what="no endpoint")


@pytest.mark.parametrize("point", ["plugin-endpoint-made", "plugin-joined", "plugin-link-moved"])
def test_the_engine_killed_while_a_container_joins(world: World, network: str, point: str) -> None:
    daemon = world.daemon
    daemon.docker("create", "--name", "box", "--network", network, "busybox", "sleep", "1000")
    daemon.restart({"ESTIBA_FAILPOINTS": f"network.{point}=kill"})
    daemon.docker("start", "box", check=False)
    daemon.wait_death()
    assert len(world.plugin.state()["endpoints"]) == 1
    daemon.start()
    assert world.plugin.state()["endpoints"] == {}
    daemon.docker("start", "box")
    daemon.docker("rm", "-f", "box")
    assert world.plugin.state()["endpoints"] == {}


def test_what_the_plugin_refuses_is_told(world: World, network: str) -> None:
    daemon = world.daemon
    world.plugin.behave(CreateEndpoint="the cable is too short", CreateNetwork="no more room")
    done = daemon.docker("run", "--rm", "--network", network, "busybox", "true", check=False)
    assert b"the cable is too short" in done.stderr
    done = daemon.docker("network", "create", "-d", "blue", "other", check=False)
    assert b"no more room" in done.stderr
    assert daemon.docker("network", "ls", "-q", "-f", "name=other").stdout == b""
    done = daemon.docker("network", "create", "-d", "nobody", "other", check=False)
    assert b'plugin "nobody" not found' in done.stderr
    daemon.docker("network", "ls")
