"""Published ports, asked for from every side of the host."""

from __future__ import annotations

import errno
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host

from estiba.kernel.netns import run_in_netns
from estiba.kernel.nft import Nft
from estiba.model.errors import Conflict, FailedPrecondition, InvalidArgument
from estiba.network.record import Endpoint, PortRequest

pytestmark = pytest.mark.kernel


def request(port: int, host_port: str = "", protocol: str = "tcp", ip: str = "") -> PortRequest:
    return PortRequest(container_port=port, protocol=protocol, host_ip=ip, host_port=host_port)


def sandbox(host: Host, container_id: str) -> Path:
    return host.networks.sandbox_path(container_id)


def host_port(endpoint: Endpoint, key: str) -> int:
    return int(endpoint.ports[key][0].host_port)


@pytest.fixture
def web(host: Host) -> Endpoint:
    endpoint = host.attach("web", ports=[request(80, "8080"), request(53, "5353", "udp")])
    host.serve(sandbox(host, "web"), 80)
    host.serve(sandbox(host, "web"), 53, socket.SOCK_DGRAM)
    return endpoint


def test_the_host_reaches_it_at_loopback(host: Host, web: Endpoint) -> None:
    assert host.ask(None, "127.0.0.1", 8080) == web.gateway
    assert host.ask(None, "127.0.0.1", 5353, socket.SOCK_DGRAM) == web.gateway


def test_the_host_reaches_it_at_its_own_addresses(host: Host, web: Endpoint) -> None:
    assert host.ask(None, HOST_ADDRESS, 8080) == HOST_ADDRESS
    assert host.ask(None, web.gateway, 8080) == web.gateway


def test_outside_reaches_it_with_the_true_address(host: Host, web: Endpoint) -> None:
    assert host.ask(host.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS
    assert host.ask(host.outside, HOST_ADDRESS, 5353, socket.SOCK_DGRAM) == OUTSIDE_ADDRESS


def test_another_container_reaches_it(host: Host, web: Endpoint) -> None:
    other = host.attach("other")
    for address in (HOST_ADDRESS, web.gateway):
        assert host.ask(sandbox(host, "other"), address, 8080) == web.gateway
    assert host.ask(sandbox(host, "other"), HOST_ADDRESS, 5353, socket.SOCK_DGRAM) == web.gateway
    assert host.ask(sandbox(host, "other"), web.ip_address, 80) == other.ip_address


def test_a_container_reaches_itself(host: Host, web: Endpoint) -> None:
    assert host.ask(sandbox(host, "web"), HOST_ADDRESS, 8080) == web.gateway
    assert host.ask(sandbox(host, "web"), web.gateway, 8080) == web.gateway


def test_ports_of_a_live_endpoint_change(host: Host, web: Endpoint) -> None:
    host.serve(sandbox(host, "web"), 81)
    with socket.create_connection(("127.0.0.1", 8080)) as client:
        wanted = [request(80, "8080"), request(81, "5353"), request(81)]
        changed = host.networks.republish("web", web, wanted)
        client.send(b"who am I?")
        assert client.recv(100).decode() == web.gateway, "what stays is not interrupted"
    free = int(changed.ports["81/tcp"][1].host_port)
    for port in (8080, 5353, free):
        assert host.ask(None, "127.0.0.1", port) == web.gateway
    assert "53/udp" not in changed.ports
    # A host port may go from one of the container's to another.
    moved = host.networks.republish("web", changed, [request(81, "8080")])
    assert moved.ports.keys() == {"81/tcp"}
    assert host.ask(None, "127.0.0.1", 8080) == web.gateway
    assert host.is_blocked(None, "127.0.0.1", free)
    assert host.networks.endpoints(web.network_id) == [moved]


def test_ports_that_cannot_be_had_change_nothing(host: Host, web: Endpoint) -> None:
    host.attach("other", ports=[request(80, "8090")])
    with pytest.raises(Conflict, match="port is already allocated"):
        host.networks.republish("web", web, [request(80, "8099"), request(80, "8090")])
    assert host.ask(None, "127.0.0.1", 8080) == web.gateway
    assert host.ask(None, "127.0.0.1", 5353, socket.SOCK_DGRAM) == web.gateway
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8099))


def test_unpublished_ports_are_closed_to_the_outside(host: Host, web: Endpoint) -> None:
    host.serve(sandbox(host, "web"), 81)
    assert host.is_blocked(host.outside, HOST_ADDRESS, 81)
    route_to_bridge(host)
    assert host.is_blocked(host.outside, web.ip_address, 80)
    assert host.is_blocked(host.outside, web.ip_address, 81)


def test_loopback_only_is_loopback_only(host: Host) -> None:
    host.attach("local", ports=[request(80, "8081", ip="127.0.0.1")])
    host.serve(sandbox(host, "local"), 80)
    host.serve(None, 9999)
    assert host.ask(None, "127.0.0.1", 8081)
    assert host.is_blocked(host.outside, HOST_ADDRESS, 8081)
    route_loopback_outside(host)
    assert host.is_blocked(host.outside, "127.0.0.1", 8081)
    assert host.is_blocked(host.outside, "127.0.0.1", 9999)


def test_a_host_address_is_kept_to(host: Host) -> None:
    endpoint = host.attach("one", ports=[request(80, "8082", ip=HOST_ADDRESS)])
    host.serve(sandbox(host, "one"), 80)
    assert host.ask(host.outside, HOST_ADDRESS, 8082) == OUTSIDE_ADDRESS
    assert host.is_blocked(None, "127.0.0.1", 8082)
    assert endpoint.ports["80/tcp"][0].host_ip == HOST_ADDRESS


def test_two_containers_share_a_port_at_two_addresses(host: Host) -> None:
    one = host.attach("one", ports=[request(80, "8083", ip=HOST_ADDRESS)])
    two = host.attach("two", ports=[request(80, "8083", ip="127.0.0.1")])
    host.serve(sandbox(host, "one"), 80)
    assert one.ports["80/tcp"][0].host_port == two.ports["80/tcp"][0].host_port
    assert host.ask(host.outside, HOST_ADDRESS, 8083)


def test_ephemeral_ports_and_ranges(host: Host) -> None:
    first = host.attach("first", ports=[request(80), request(81, "8100-8102")])
    second = host.attach("second", ports=[request(80), request(81, "8100-8102")])
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert low <= host_port(first, "80/tcp") <= high
    assert host_port(first, "80/tcp") != host_port(second, "80/tcp")
    assert [host_port(one, "81/tcp") for one in (first, second)] == [8100, 8101]
    host.serve(sandbox(host, "second"), 81)
    assert host.ask(None, "127.0.0.1", 8101)


def test_a_preferred_port_is_given_again_unless_it_is_taken(host: Host) -> None:
    wish = PortRequest(container_port=80, preferred=8110)
    assert host_port(host.attach("one", ports=[wish]), "80/tcp") == 8110
    assert host_port(host.attach("two", ports=[wish]), "80/tcp") != 8110


def test_sctp_is_translated_without_a_socket(host: Host) -> None:
    endpoint = host.attach("sctp", ports=[request(80, "8084", "sctp"), request(81, "", "sctp")])
    assert host_port(endpoint, "80/sctp") == 8084
    assert host_port(endpoint, "81/sctp") >= 49153
    with pytest.raises(Conflict, match="port is already allocated"):
        host.attach("other", ports=[request(80, "8084", "sctp")])


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_another_container_is_refused(host: Host, protocol: str) -> None:
    host.attach("one", ports=[request(80, "8085", protocol)])
    with pytest.raises(Conflict, match=r"Bind for 0\.0\.0\.0:8085 failed: port is already alloc"):
        host.attach("two", ports=[request(80, "8085", protocol)])
    assert [one.container_id for one in host.networks.endpoints(bridge_id(host))] == ["one"]


def test_a_port_of_a_program_is_refused_and_nothing_is_left(host: Host) -> None:
    with socket.create_server(("0.0.0.0", 8086)):
        with pytest.raises(Conflict, match="failed: port is already allocated"):
            host.attach("web", ports=[request(79, "8087"), request(80, "8086")])
        assert "8087" not in published(host)
    endpoint = host.attach("web", ports=[request(79, "8087"), request(80, "8086")])
    assert endpoint.ip_address


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_program_takes_a_published_port(host: Host, web: Endpoint, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError) as caught:
            other.bind(("0.0.0.0", 8080 if kind == socket.SOCK_STREAM else 5353))
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_in_time_wait_can_be_published(host: Host) -> None:
    with socket.create_server(("0.0.0.0", 8088)) as server:
        client = socket.create_connection(("127.0.0.1", 8088))
        accepted, _ = server.accept()
        accepted.close()
        client.recv(1)
        client.close()
    assert host.attach("web", ports=[request(80, "8088")]).ports


def test_ipv6_addresses_are_refused_in_words(host: Host) -> None:
    with pytest.raises(FailedPrecondition, match="publish it on an IPv4 address"):
        host.attach("six", ports=[request(80, "8089", ip="::1")])


def test_an_address_that_the_host_has_not(host: Host) -> None:
    with pytest.raises(InvalidArgument, match=r"the host has no address 203\.0\.113\.9"):
        host.attach("away", ports=[request(80, "8090", ip="203.0.113.9")])


def test_disconnecting_frees_port_and_rule(host: Host, web: Endpoint) -> None:
    host.networks.disconnect("web", web)
    host.networks.disconnect("web", web)
    assert "8080" not in published(host)
    with socket.create_server(("0.0.0.0", 8080)):
        pass
    assert host.attach("again", ports=[request(80, "8080")]).ports


def test_a_flushed_ruleset_is_written_anew(host: Host, web: Endpoint) -> None:
    nft = Nft()
    nft.run("flush ruleset")
    nft.close()
    host.attach("other", ports=[request(80, "8091")])
    assert host.ask(None, "127.0.0.1", 8080)


def test_a_restarted_engine_keeps_ports_and_addresses(host: Host, web: Endpoint) -> None:
    networks = host.again()
    assert host.ask(None, "127.0.0.1", 8080)
    networks.restore([web])
    assert host.ask(host.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS
    with pytest.raises(Conflict):
        host.attach("thief", ports=[request(80, "8080")])
    assert host.attach("next").ip_address != web.ip_address
    networks.disconnect("web", web)
    assert "8080" not in published(host)


def test_a_dead_container_is_swept(host: Host, web: Endpoint) -> None:
    live = host.attach("live")
    networks = host.again()
    networks.restore([live])
    assert "8080" not in published(host)
    networks.sweep(["live"])
    networks.drain()
    assert not networks.sandbox_path("web").exists()
    assert networks.sandbox_path("live").exists()
    assert networks.interface_statistics("live")["eth0"].rx_packets >= 0
    host.serve(sandbox(host, "live"), 80)
    assert host.ask(None, live.ip_address, 80)


def test_a_udp_flow_follows_the_port_to_another_container(host: Host) -> None:
    def open_socket() -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect((HOST_ADDRESS, 5354))
        return client

    client = run_in_netns(host.outside, open_socket)
    client.send(b"before anybody listens")
    with pytest.raises(ConnectionRefusedError):
        client.recv(1)
    for name in ("one", "two"):
        endpoint = host.attach(name, ports=[request(53, "5354", "udp")])
        host.serve(sandbox(host, name), 53, socket.SOCK_DGRAM)
        host.networks.drain()
        client.send(b"hello")
        assert client.recv(100).decode() == OUTSIDE_ADDRESS
        host.networks.disconnect(name, endpoint)
    client.close()


def test_forty_at_once(host: Host) -> None:
    def attach(number: int) -> Endpoint:
        return host.attach(f"c{number}", ports=[request(80)])

    with ThreadPoolExecutor(16) as pool:
        endpoints = list(pool.map(attach, range(40)))
    assert len({one.ip_address for one in endpoints}) == 40
    assert len({host_port(one, "80/tcp") for one in endpoints}) == 40


def bridge_id(host: Host) -> str:
    return host.networks.network("bridge").id


def published(host: Host) -> str:
    nft = Nft()
    table = nft.list_json("list table inet estiba_estiba9")
    nft.close()
    return str([entry["map"] for entry in table if "map" in entry])


def route_to_bridge(host: Host) -> None:
    """A neighbour that sends packets for the containers' subnet straight to the host."""
    add_route(host.outside, host.networks.network("bridge").pools[0].subnet)


def route_loopback_outside(host: Host) -> None:
    """A neighbour that sends packets for 127.0.0.1 to the host."""

    def inside() -> None:
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")

    run_in_netns(host.outside, inside)
    enter = ["nsenter", f"--net={host.outside}", "ip"]
    subprocess.run([*enter, "addr", "del", "127.0.0.1/8", "dev", "lo"], check=True)
    subprocess.run([*enter, "route", "del", "local", "127.0.0.0/8", "table", "local"], check=False)
    add_route(host.outside, "127.0.0.0/8")


def add_route(where: Path, subnet: str) -> None:
    subprocess.run(
        ["nsenter", f"--net={where}", "ip", "route", "add", subnet, "via", HOST_ADDRESS],
        check=True,
    )
