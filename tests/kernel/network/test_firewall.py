"""Who reaches whom, with real packets of both families between real namespaces."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    NEIGHBOUR_ADDRESS,
    NEIGHBOUR_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Host,
    run,
)

from estiba.network.record import NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel

DGRAM = socket.SOCK_DGRAM
WEB = [PortRequest(container_port=80, host_port="8080")]
LOCAL = [
    PortRequest(container_port=80, host_port="8080", host_ip="127.0.0.1"),
    PortRequest(container_port=80, host_port="8080", host_ip="::1"),
]


def dual(host: Host, name: str = "dual", **wanted: object) -> str:
    """A network of both families."""
    spec = NetworkSpec(name=name, enable_ipv6=True, **wanted)  # type: ignore[arg-type]
    host.networks.create(spec)
    return name


def serve(host: Host, container: str, port: int = 80, kind: int = socket.SOCK_STREAM) -> Path:
    here = host.networks.sandbox_path(container)
    host.serve(here, port, kind, "0.0.0.0")
    host.serve(here, port, kind, "::")
    return here


def route_to(neighbour: Path, host: Host, *subnets: str) -> None:
    """The neighbour sends packets for these subnets to the host."""
    for subnet in subnets:
        via = HOST_ADDRESS6 if ":" in subnet else HOST_ADDRESS
        host.command(neighbour, "ip", "route", "add", subnet, "via", via)


def subnets_of(host: Host, network: str) -> list[str]:
    return [pool.subnet for pool in host.networks.network(network).pools]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, DGRAM])
def test_a_port_published_in_both_families(host: Host, kind: int) -> None:
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    port = PortRequest(container_port=80, host_port="8080", protocol=protocol)
    web = host.attach("web", dual(host), ports=[port])
    gateways = {host.networks.network("dual").pools[n].gateway for n in (0, 1)}
    here = serve(host, "web", kind=kind)
    assert host.ask(host.outside, HOST_ADDRESS, 8080, kind) == OUTSIDE_ADDRESS
    assert host.ask(host.outside, HOST_ADDRESS6, 8080, kind) == OUTSIDE_ADDRESS6
    assert host.ask(None, HOST_ADDRESS, 8080, kind) == HOST_ADDRESS
    assert host.ask(None, HOST_ADDRESS6, 8080, kind) == HOST_ADDRESS6
    assert host.ask(None, "127.0.0.1", 8080, kind) in gateways
    assert host.ask(None, "::1", 8080, kind) in gateways
    # From itself and from a neighbour by the host's address.
    host.attach("client", "dual")
    client = host.networks.sandbox_path("client")
    for address in HOST_ADDRESS, HOST_ADDRESS6:
        assert host.ask(client, address, 8080, kind) in gateways
        assert host.ask(here, address, 8080, kind) in gateways
    assert host.ask(client, web.ip_address, 80, kind)
    assert host.ask(client, web.ipv6_address, 80, kind)


def test_containers_leave_with_the_hosts_address(host: Host) -> None:
    host.attach("client", dual(host))
    here = host.networks.sandbox_path("client")
    for address in "0.0.0.0", "::":
        host.serve(host.outside, 7000, address=address)
    assert host.ask(here, OUTSIDE_ADDRESS, 7000) == HOST_ADDRESS
    assert host.ask(here, OUTSIDE_ADDRESS6, 7000) == HOST_ADDRESS6


def test_a_neighbour_that_routes_to_containers_reaches_nothing_unpublished(host: Host) -> None:
    neighbour = host.neighbour()
    web = host.attach("web", dual(host), ports=LOCAL)
    serve(host, "web")
    serve(host, "web", 81)
    route_to(neighbour, host, *subnets_of(host, "dual"))
    for port in 80, 81, 8080:
        assert host.is_blocked(neighbour, web.ip_address, port)
        assert host.is_blocked(neighbour, web.ipv6_address, port)
    # Ports published at loopback are the host's alone, whatever a neighbour does.
    assert host.is_blocked(neighbour, HOST_ADDRESS, 8080)
    assert host.is_blocked(neighbour, HOST_ADDRESS6, 8080)
    host.command(neighbour, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    host.command(neighbour, "ip", "route", "add", "127.0.0.1", "via", HOST_ADDRESS)
    assert host.is_blocked(neighbour, "127.0.0.1", 8080)
    assert host.ask(None, "127.0.0.1", 8080)
    assert host.ask(None, "::1", 8080)


def test_nobody_reaches_the_hosts_loopback_through_the_stand_in(host: Host) -> None:
    neighbour = host.neighbour()
    host.attach("client", dual(host), ports=WEB)
    client = host.networks.sandbox_path("client")
    host.serve(None, 7001, address="::1")
    host.serve(None, 7001, address="127.0.0.1")
    stand_in = "fd65:7374:6962:61::1"
    route_to(neighbour, host, stand_in)
    for place in neighbour, client:
        assert host.is_blocked(place, stand_in, 7001)
        assert host.is_blocked(place, stand_in, 8080)
    command = "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via "
    gateway = host.networks.network("dual").pools[0].gateway
    host.command(client, "sh", "-c", command + gateway)
    assert host.is_blocked(client, "127.0.0.1", 7001)
    assert host.ask(None, "::1", 7001) == "::1", "what is not published stays as it is"


def test_networks_are_apart_by_published_ports_alone_they_meet(host: Host) -> None:
    red = host.attach("red", dual(host, "red"), ports=WEB)
    serve(host, "red")
    serve(host, "red", 81)
    host.attach("blue", dual(host, "blue"))
    blue = host.networks.sandbox_path("blue")
    for address in red.ip_address, red.ipv6_address:
        assert host.is_blocked(blue, address, 80)
        assert host.is_blocked(blue, address, 81)
    for address in HOST_ADDRESS, HOST_ADDRESS6:
        assert host.ask(blue, address, 8080)
        assert host.is_blocked(blue, address, 81)


def test_an_internal_network_has_no_way_out_even_for_root(host: Host) -> None:
    """A container that may change its routes gets no further than the bridge."""
    host.attach("inner", dual(host, internal=True))
    host.attach("web", dual(host, "web"), ports=WEB)
    serve(host, "web")
    inner = host.networks.sandbox_path("inner")
    pools = host.networks.network("dual").pools
    for pool in pools:
        host.serve(None, 7002, address=pool.gateway)
        host.command(inner, "ip", "route", "add", "default", "via", pool.gateway)
    for address in "0.0.0.0", "::":
        host.serve(host.outside, 7000, address=address)
    for address in OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6:
        assert host.is_blocked(inner, address, 7000)
    for address in HOST_ADDRESS, HOST_ADDRESS6:
        host.serve(None, 7003, address=address)
        assert host.is_blocked(inner, address, 7003)
        assert host.is_blocked(inner, address, 8080)
    for pool in pools:
        assert host.ask(inner, pool.gateway, 7002)


def test_gateway_modes(host: Host) -> None:
    neighbour = host.neighbour()
    modes = {f"com.docker.network.bridge.gateway_mode_ipv{n}": "routed" for n in (4, 6)}
    web = host.attach("web", dual(host, "routed", options=modes), ports=WEB)
    here = serve(host, "web")
    serve(host, "web", 81)
    route_to(neighbour, host, *subnets_of(host, "routed"))
    for address in web.ip_address, web.ipv6_address:
        assert host.ask(neighbour, address, 80)
        assert host.is_blocked(neighbour, address, 81)
    host.serve(neighbour, 7000)
    host.serve(neighbour, 7000, address="::")
    assert host.ask(here, NEIGHBOUR_ADDRESS, 7000) == web.ip_address
    assert host.ask(here, NEIGHBOUR_ADDRESS6, 7000) == web.ipv6_address


def test_changes_cost_elements_and_no_rebuild(host: Host) -> None:
    """The rules keep their handles, whatever comes and goes."""

    def handles() -> list[str]:
        text = run("nft", "-a", "list", "table", "inet", "estiba_estiba9")
        text += run("nft", "-a", "list", "table", "bridge", "estiba_estiba9")
        rules = [line for line in text.splitlines() if "# handle" in line]
        return [line for line in rules if "elements" not in line]

    before = handles()
    for number in range(3):
        dual(host, f"net{number}", internal=number == 1)
        host.attach(f"c{number}", f"net{number}", ports=WEB if number == 0 else [])
    assert handles() == before
    for number in range(3):
        host.networks.close_sandbox(f"c{number}")
        host.networks.remove(f"net{number}")
    host.networks.drain()
    assert handles() == before
    rest = run("nft", "list", "table", "inet", "estiba_estiba9")
    assert "8080" not in rest and "br-" not in rest
    assert "elements" not in run("nft", "list", "table", "bridge", "estiba_estiba9")


def test_many_ports_at_once(host: Host) -> None:
    """More elements than go straight to the kernel."""
    ports = [PortRequest(container_port=n, host_port=str(n)) for n in range(7000, 7200)]
    host.attach("web", "bridge", ports=ports)
    host.serve(host.networks.sandbox_path("web"), 7199)
    assert host.ask(host.outside, HOST_ADDRESS, 7199) == OUTSIDE_ADDRESS
    host.networks.close_sandbox("web")
    assert "7199" not in run("nft", "list", "table", "inet", "estiba_estiba9")
