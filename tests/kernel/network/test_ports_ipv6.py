"""Published ports of both families; who has a port that is refused; SCTP on the wire."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
)

from estiba.kernel.netns import run_in_netns
from estiba.model.errors import Conflict, FailedPrecondition
from estiba.network.record import Endpoint, NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel


def request(port: int, host_port: str = "", protocol: str = "tcp", ip: str = "") -> PortRequest:
    return PortRequest(container_port=port, protocol=protocol, host_ip=ip, host_port=host_port)


def places(endpoint: Endpoint, key: str = "80/tcp") -> list[str]:
    return [f"{one.host_ip} {one.host_port}" for one in endpoint.ports.get(key, [])]


@pytest.fixture
def six(host: Host) -> Host:
    """A host with a network `six` of both families, and one `only6`."""
    host.networks.create(NetworkSpec(name="six", enable_ipv6=True))
    host.networks.create(NetworkSpec(name="only6", enable_ipv4=False, enable_ipv6=True))
    return host


def serve(host: Host, container_id: str, kind: int = socket.SOCK_STREAM, port: int = 80) -> None:
    for address in ("0.0.0.0", "::"):
        host.serve(host.networks.sandbox_path(container_id), port, kind, address)


def test_without_a_host_address_both_families_are_published(six: Host) -> None:
    web = six.attach("web", network="six", ports=[request(80, "8080")])
    assert places(web) == ["0.0.0.0 8080", ":: 8080"]
    serve(six, "web")
    assert six.ask(six.outside, HOST_ADDRESS6, 8080) == OUTSIDE_ADDRESS6
    assert six.ask(six.outside, HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS
    for address in ("127.0.0.1", "::1", HOST_ADDRESS6):
        assert six.ask(None, address, 8080), address
    other = six.attach("other", network="six")
    here = six.networks.sandbox_path("other")
    assert six.ask(here, HOST_ADDRESS6, 8080)
    assert six.ask(here, web.ipv6_address, 80) == other.ipv6_address
    assert six.ask(six.networks.sandbox_path("web"), HOST_ADDRESS6, 8080), "itself"


def test_a_container_of_one_family_has_the_ports_of_that_family(six: Host) -> None:
    assert places(six.attach("four", ports=[request(80, "8081")])) == ["0.0.0.0 8081"]
    only = six.attach("only6", network="only6", ports=[request(80, "8082")])
    assert places(only) == [":: 8082"]
    serve(six, "only6")
    assert six.ask(six.outside, HOST_ADDRESS6, 8082) == OUTSIDE_ADDRESS6
    assert six.is_blocked(None, HOST_ADDRESS, 8082)
    for name, network, address in (("x", "bridge", "::"), ("y", "only6", "0.0.0.0")):
        with pytest.raises(FailedPrecondition, match="are not translated between"):
            six.attach(name, network=network, ports=[request(80, "8083", ip=address)])


def test_an_ipv6_address_of_the_host(six: Host) -> None:
    web = six.attach("web", network="six", ports=[request(80, "8084", ip=HOST_ADDRESS6)])
    assert places(web) == [f"{HOST_ADDRESS6} 8084"]
    serve(six, "web")
    assert six.ask(six.outside, HOST_ADDRESS6, 8084) == OUTSIDE_ADDRESS6
    assert six.is_blocked(None, "::1", 8084)
    assert six.is_blocked(None, HOST_ADDRESS, 8084)


def test_an_ephemeral_port_is_the_same_in_both_families(six: Host) -> None:
    web = six.attach("web", network="six", ports=[request(80), request(81)])
    (four, six_) = web.ports["80/tcp"]
    assert four.host_port == six_.host_port != web.ports["81/tcp"][0].host_port
    six.networks.disconnect("web", web)
    wish = PortRequest(container_port=80, preferred=int(four.host_port))
    assert six.attach("web", network="six", ports=[wish]).ports["80/tcp"] == [four, six_]


def test_ports_of_both_families_change_while_flows_go_on(six: Host) -> None:
    web = six.attach("web", network="six", ports=[request(80, "8085"), request(81)])
    serve(six, "web")

    def connect() -> socket.socket:
        return socket.create_connection((HOST_ADDRESS6, 8085), 5)

    with run_in_netns(six.outside, connect) as client:
        changed = six.networks.republish("web", web, [request(80, "8085"), request(80, "8086")])
        client.settimeout(5)
        client.send(b"who am I?")
        assert client.recv(100).decode() == OUTSIDE_ADDRESS6
    assert places(changed) == ["0.0.0.0 8085", ":: 8085", "0.0.0.0 8086", ":: 8086"]
    assert six.ask(six.outside, HOST_ADDRESS6, 8086) == OUTSIDE_ADDRESS6
    networks = six.again()
    networks.restore([changed])
    assert six.ask(six.outside, HOST_ADDRESS6, 8086) == OUTSIDE_ADDRESS6
    with pytest.raises(Conflict, match="container name-web has it"):
        six.attach("other", network="six", ports=[request(80, "8086")])


def test_a_udp_flow_of_ipv6_follows_the_port(six: Host) -> None:
    def open_socket() -> socket.socket:
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect((HOST_ADDRESS6, 5354))
        return client

    client = run_in_netns(six.outside, open_socket)
    for name in ("one", "two"):
        endpoint = six.attach(name, network="six", ports=[request(53, "5354", "udp")])
        serve(six, name, socket.SOCK_DGRAM, 53)
        six.networks.drain()
        client.send(b"hello")
        assert client.recv(100).decode() == OUTSIDE_ADDRESS6
        six.networks.disconnect(name, endpoint)
    client.close()


def test_a_refusal_names_who_has_the_port(six: Host) -> None:
    six.attach("one", ports=[request(80, "8087")])
    with pytest.raises(Conflict, match="port is already allocated: container name-one has it"):
        six.attach("two", ports=[request(80, "8087")])
    six.networks.rename("one", "first")
    with pytest.raises(Conflict, match="container first has it"):
        six.attach("two", network="six", ports=[request(80, "8087")])
    server = socket.create_server(("::", 8088), family=socket.AF_INET6)
    with server, pytest.raises(Conflict) as caught:
        six.attach("two", network="six", ports=[request(80, "8088")])
    assert "[::]:8088 failed" in str(caught.value)
    assert str(caught.value).endswith(f"(process {os.getpid()}) has it")
    with socket.create_server(("127.0.0.1", 8088)):
        pass


# -- SCTP: this kernel translates it and has no sockets for it ---------------------------------


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def sctp(source: int, destination: int, tag: int, chunk: int) -> bytes:
    """An INIT (1) or INIT ACK (2), without parameters."""
    header = struct.pack("!HHI", source, destination, tag)
    body = struct.pack("!BBHIIHHI", chunk, 0, 20, 0x01020304, 65535, 1, 1, 7)
    return header + struct.pack("<I", crc32c(header + bytes(4) + body)) + body


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_sctp_on_the_wire(six: Host, family: int) -> None:
    endpoint = six.attach("sctp", network="six", ports=[request(38, "8089", "sctp")])
    is_ipv6 = family == socket.AF_INET6
    host, outside = (
        (HOST_ADDRESS6, OUTSIDE_ADDRESS6) if is_ipv6 else (HOST_ADDRESS, OUTSIDE_ADDRESS)
    )

    def raw() -> socket.socket:
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        made.settimeout(5)
        return made

    def receive(where: socket.socket) -> tuple[bytes, str]:
        data, peer = where.recvfrom(2000)
        return (data if is_ipv6 else data[20:]), peer[0]

    client = run_in_netns(six.outside, raw)
    server = run_in_netns(six.networks.sandbox_path("sctp"), raw)
    with client, server:
        client.sendto(sctp(5000, 8089, 0, 1), (host, 0))
        packet, peer = receive(server)
        assert (struct.unpack_from("!HH", packet), peer) == ((5000, 38), outside)
        server.sendto(sctp(38, 5000, 0x01020304, 2), (outside, 0))
        packet, peer = receive(client)
        assert (struct.unpack_from("!HH", packet), peer) == ((8089, 5000), host)
        checksum = struct.unpack_from("<I", packet, 8)[0]
        assert checksum == crc32c(packet[:8] + bytes(4) + packet[12:])
    assert endpoint.ports["38/sctp"]
