"""Containers that join and leave networks, by the stock client, docker-py and the API."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import PrivateDaemon, UnixConnection, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("emptied")]


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


def test_a_link_is_gone_when_the_answer_says_so(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    pid = run(daemon, "web")["State"]["Pid"]
    links = Path(f"/proc/{pid}/net/dev")
    for _ in range(5):
        assert connect(daemon, "blue", "web")[0] == 200
        assert "eth1:" in links.read_text()
        assert disconnect(daemon, "blue", "web")[0] == 200
        assert "eth1:" not in links.read_text()


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


def test_the_way_out_and_the_ports_go_together(daemon: PrivateDaemon) -> None:
    """Names decide which network is the way out, unless priorities do."""
    for name, subnet in (("a-first", "10.171.2.0/24"), ("z-last", "10.171.3.0/24")):
        network(daemon, name, "--subnet", subnet)
    run(daemon, "web", "-p", "127.0.0.1::80", "--network", "z-last")
    inside(daemon, "web", "sh", "-c", "echo hello > /tmp/index.html; httpd -p 80 -h /tmp")
    port = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert gateway(daemon, "web") == "10.171.3.1" and fetch(port) == "hello\n"
    connect(daemon, "a-first", "web")
    assert gateway(daemon, "web") == "10.171.2.1" and fetch(port) == "hello\n"
    connect(daemon, "bridge", "web", GwPriority=1)
    assert gateway(daemon, "web") == f"{daemon.subnet}.1" and fetch(port) == "hello\n"
    disconnect(daemon, "bridge", "web")
    assert gateway(daemon, "web") == "10.171.2.1" and fetch(port) == "hello\n"
    disconnect(daemon, "a-first", "web")
    disconnect(daemon, "z-last", "web")
    assert list(interfaces(daemon, "web")) == ["lo"]
    assert gateway(daemon, "web") == ""
    assert daemon.inspect("web")["NetworkSettings"]["Ports"].get("80/tcp") is None
    assert connect(daemon, "bridge", "web")[0] == 200
    port = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert fetch(port) == "hello\n"


def fetch(port: str | int) -> str:
    done = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    done.request("GET", "/index.html")
    text = done.getresponse().read().decode()
    done.close()
    return text


@pytest.mark.parametrize("state", ["created", "running", "paused", "exited"])
def test_whatever_the_state(daemon: PrivateDaemon, state: str) -> None:
    network(daemon, "blue", "--subnet", "10.171.4.0/24")
    daemon.docker("create", "--name", "web", "busybox", "sleep", "1000")
    if state != "created":
        daemon.docker("start", "web")
    if state == "paused":
        daemon.docker("pause", "web")
    if state == "exited":
        daemon.docker("kill", "web")
    assert connect(daemon, "blue", "web", IPAMConfig={"IPv4Address": "10.171.4.9"})[0] == 200
    assert disconnect(daemon, "bridge", "web")[0] == 200
    if state == "paused":
        daemon.docker("unpause", "web")
    daemon.docker("start", "web")
    assert list(networks(daemon, "web")) == ["blue"]
    assert "10.171.4.9" in interfaces(daemon, "web").values()
    assert disconnect(daemon, "blue", "web")[0] == 200
    assert networks(daemon, "web") == {}
    daemon.docker("restart", "-t", "0", "web")
    assert list(interfaces(daemon, "web")) == ["lo"]


REFUSED: list[tuple[str, str, int, str]] = [
    ("blue", "nobody", 404, "No such container: nobody"),
    ("nowhere", "web", 404, "network nowhere not found"),
    ("bridge", "web", 403, "endpoint with name web already exists in network bridge"),
    ("host", "web", 400, "cannot connect container to host network"),
    ("none", "web", 400, "one of the networks in private (none) mode"),
    ("blue", "lonely", 400, "one of the networks in private (none) mode"),
    ("blue", "hosted", 400, "container sharing network namespace with another container or host"),
    ("blue", "sharing", 400, "container sharing network namespace with another container or host"),
    ("template", "web", 403, "configuration-only network"),
]


def test_what_may_not_be_connected(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    network(daemon, "template", "--config-only")
    run(daemon, "web")
    for name, mode in (("lonely", "none"), ("hosted", "host"), ("sharing", "container:web")):
        run(daemon, name, "--network", mode)
    for name, container, status, words in REFUSED:
        answer = connect(daemon, name, container)
        assert answer[0] == status and words in answer[1]["message"], (name, container, answer)
    fixed = {"IPAMConfig": {"IPv4Address": "10.171.5.5"}}
    status, answer = connect(daemon, "blue", "web", **fixed)
    assert status == 400 and "networks with user configured subnets" in answer["message"]
    status, answer = connect(daemon, "bridge", "lonely", Aliases=["a"])
    assert status == 400 and "network-scoped alias is supported only" in answer["message"]
    for name, container, status, words in (
        ("blue", "web", 500, "is not connected to network blue"),
        ("host", "hosted", 400, "cannot disconnect container from host network"),
        ("nowhere", "web", 404, "network nowhere not found"),
        ("blue", "nobody", 404, "No such container: nobody"),
    ):
        answer = disconnect(daemon, name, container)
        assert answer[0] == status and words in answer[1]["message"], (name, container, answer)
    assert disconnect(daemon, "blue", "nobody", force=True)[0] == 404
    assert disconnect(daemon, "none", "lonely")[0] == 200
    assert connect(daemon, "blue", "lonely")[0] == 200
    assert list(networks(daemon, "lonely")) == ["blue"]


def test_nothing_starts_on_a_template(daemon: PrivateDaemon) -> None:
    network(daemon, "template", "--config-only")
    daemon.docker("create", "--name", "web", "--network", "template", "busybox", "sleep", "1000")
    status, answer = daemon.request("POST", "/containers/web/start")
    assert status == 403 and "on configuration-only network" in answer["message"]
    assert daemon.inspect("web")["State"]["Status"] == "created"
    daemon.docker("network", "rm", "template")


def test_a_network_that_was_removed_is_left_by_its_name(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    daemon.docker("create", "--name", "web", "--network", "blue", "busybox", "sleep", "1000")
    daemon.docker("network", "rm", "blue")
    status, answer = daemon.request("POST", "/containers/web/start")
    assert status == 404 and "network blue not found" in answer["message"]
    daemon.docker("network", "disconnect", "-f", "blue", "web")
    daemon.docker("network", "connect", "bridge", "web")
    daemon.docker("start", "web")


def test_addresses_and_ports_stay(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    run(daemon, "web", "--network", "blue", "-p", "80", "-p", "53/udp")
    run(daemon, "next", "--network", "blue")
    connect(daemon, "bridge", "web")

    def facts() -> Any:
        view = daemon.inspect("web")["NetworkSettings"]
        places = {
            name: (net["IPAddress"], net["MacAddress"]) for name, net in view["Networks"].items()
        }
        return view["Ports"], places

    before = facts()
    daemon.docker("restart", "-t", "0", "web")
    assert facts() == before
    daemon.docker("kill", "web")
    stopped = daemon.inspect("web")["NetworkSettings"]
    assert stopped["Ports"] == {} and stopped["Networks"]["blue"]["IPAddress"] == ""
    assert stopped["Networks"]["blue"]["NetworkID"] and stopped["Networks"]["blue"]["DNSNames"]
    run(daemon, "more", "--network", "blue")
    daemon.docker("start", "web")
    assert facts() == before
    daemon.restart()
    assert facts() == before
    daemon.docker("kill", "web")
    daemon.restart()
    daemon.docker("start", "web")
    assert facts() == before


def test_a_stopped_containers_ports_are_not_taken_from_others(daemon: PrivateDaemon) -> None:
    run(daemon, "old", "-p", "127.0.0.1:18473:80")
    daemon.docker("kill", "old")
    run(daemon, "new", "-p", "127.0.0.1:18473:80")
    inside(daemon, "new", "sh", "-c", "echo new > /tmp/index.html; httpd -p 80 -h /tmp")
    daemon.docker("rm", "old")
    assert fetch(18473) == "new\n"


def test_many_networks_at_creation(daemon: PrivateDaemon) -> None:
    network(daemon, "blue", "--subnet", "10.171.6.0/24", "--ipv6", "--subnet", "fd00:171:6::/64")
    network(daemon, "green", "--subnet", "10.171.7.0/24")
    run(
        daemon, "web",
        "--network", "name=blue,ip=10.171.6.66,ip6=fd00:171:6::66,mac-address=02:42:0a:ab:06:42,"
        "link-local-ip=169.254.7.7,alias=one,alias=two,"
        "driver-opt=com.docker.network.endpoint.ifname=lan7,"
        '"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"',
        "--network", "name=green,gw-priority=5",
    )  # fmt: skip
    found = inside(daemon, "web", "ip", "-o", "addr", "show", "lan7")
    for address in ("10.171.6.66/24", "fd00:171:6::66/64", "169.254.7.7/16"):
        assert address in found
    assert "02:42:0a:ab:06:42" in inside(daemon, "web", "ip", "link", "show", "lan7")
    assert inside(daemon, "web", "cat", "/proc/sys/net/ipv4/conf/lan7/log_martians") == "1\n"
    assert gateway(daemon, "web") == "10.171.7.1"
    view = networks(daemon, "web")
    assert view["blue"]["GlobalIPv6Address"] == "fd00:171:6::66"
    assert view["blue"]["IPAMConfig"] == {
        "IPv4Address": "10.171.6.66", "IPv6Address": "fd00:171:6::66",
        "LinkLocalIPs": ["169.254.7.7"],
    }  # fmt: skip
    short = daemon.inspect("web")["Id"][:12]
    assert view["blue"]["DNSNames"] == ["web", "one", "two", short]
    assert view["green"]["GwPriority"] == 5
    hosts = inside(daemon, "web", "cat", "/etc/hosts")
    assert f"10.171.6.66\t{short}" in hosts and f"fd00:171:6::66\t{short}" in hosts
    daemon.docker("rename", "web", "shop")
    assert networks(daemon, "shop")["blue"]["DNSNames"] == ["shop", "one", "two", short]
    daemon.docker("kill", "shop")
    daemon.docker("rename", "shop", "kiosk")
    assert networks(daemon, "kiosk")["blue"]["DNSNames"] == ["kiosk", "one", "two", short]


def test_old_clients_give_one_network_and_one_mac_address(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "MacAddress": "02:42:0a:ab:08:08",
        "HostConfig": {"NetworkMode": "blue"},
        "NetworkingConfig": {"EndpointsConfig": {"blue": {"Aliases": ["a"]}, "bridge": {}}},
    }
    status, answer = daemon.request("POST", "/v1.43/containers/create", body)
    assert status == 400 and "multiple network endpoints" in answer["message"]
    del body["NetworkingConfig"]["EndpointsConfig"]["bridge"]  # type: ignore[index]
    for version, warned in (("1.43", False), ("1.44", True)):
        status, answer = daemon.request("POST", f"/v{version}/containers/create?name=web", body)
        assert status == 201, answer
        assert any("MacAddress" in text for text in answer["Warnings"]) is warned
        old = daemon.request("GET", "/v1.43/containers/web/json")[1]
        assert old["NetworkSettings"]["Networks"]["blue"]["Aliases"] == ["a"]
        daemon.docker("start", "web")
        assert networks(daemon, "web")["blue"]["MacAddress"] == "02:42:0a:ab:08:08"
        old = daemon.request("GET", "/v1.43/containers/web/json")[1]
        assert old["Config"]["MacAddress"] == "02:42:0a:ab:08:08"
        assert old["NetworkSettings"]["Networks"]["blue"]["Aliases"] == ["a", answer["Id"][:12]]
        assert daemon.inspect("web")["Config"]["MacAddress"] == "02:42:0a:ab:08:08"
        daemon.request("DELETE", "/containers/web?force=1")


def test_two_clients_at_once(daemon: PrivateDaemon) -> None:
    """Whoever comes first, each answer is one that Docker gives, and all agree in the end."""
    for name in ("blue", "green"):
        network(daemon, name)
    run(daemon, "web")
    answers: list[tuple[int, Any]] = []

    def play(name: str) -> None:
        for _ in range(10):
            answers.append(connect(daemon, name, "web"))
            answers.append(disconnect(daemon, name, "web"))

    threads = [threading.Thread(target=play, args=(name,)) for name in ("blue", "green", "blue")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} <= {200, 403, 500}
    assert [
        answer
        for status, answer in answers
        if status == 500 and "is not connected" not in str(answer)
    ] == []
    assert list(networks(daemon, "web")) == ["bridge"]
    assert sorted(interfaces(daemon, "web")) == ["eth0", "lo"]


def test_a_hundred_times_over(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    run(daemon, "web", "-p", "127.0.0.1::80")
    process = daemon.process
    assert process is not None
    before = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    for _ in range(100):
        assert connect(daemon, "blue", "web")[0] == 200
        assert disconnect(daemon, "blue", "web")[0] == 200
    wait_until(
        lambda: len(list(Path(f"/proc/{process.pid}/fd").iterdir())) <= before + 8,
        what="descriptors to be closed",
    )
    assert sorted(interfaces(daemon, "web")) == ["eth0", "lo"]
    assert inside(daemon, "web", "cat", "/etc/hosts").count(daemon.inspect("web")["Id"][:12]) == 1


def test_a_client_that_hangs_up_ends_its_wait_alone(daemon: PrivateDaemon) -> None:
    network(daemon, "blue")
    run(daemon, "web")
    body = json.dumps({"Container": "web"}).encode()
    head = f"POST /networks/blue/connect HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    wait_until(lambda: "blue" in networks(daemon, "web"), what="the connection")
    assert len(interfaces(daemon, "web")) == 3


def test_hosts_files_that_somebody_swapped(daemon: PrivateDaemon) -> None:
    """The container's own file is written, wherever names in its file system lead."""
    network(daemon, "blue")
    run(daemon, "web", "--privileged", "-v", f"{daemon.root}:/host")
    victim = daemon.root / "victim"
    victim.write_text("precious\n")
    inside(
        daemon, "web", "sh", "-c", "umount /etc/hosts; rm /etc/hosts; ln -s /host/victim /etc/hosts"
    )
    assert connect(daemon, "blue", "web")[0] == 200
    assert victim.read_text() == "precious\n"
    own = Path(daemon.inspect("web")["HostsPath"])
    own.unlink()
    own.symlink_to(victim)
    assert connect(daemon, "bridge", "web")[0] == 403
    assert disconnect(daemon, "blue", "web")[0] == 200, "it goes on without"
    assert victim.read_text() == "precious\n"
