"""Containers that may not talk (icc=false), by real packets, with br_netfilter and without."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, HOST_ADDRESS6, Host
from tests.kernel.network.probes import fixed, ping
from tests.kernel.network.test_firewall import WEB, dual
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.network.firewall.rules import LinkRule
from estiba.network.record import Endpoint, NetworkSpec, PortRequest

pytestmark = pytest.mark.kernel

NO_ICC = {"com.docker.network.bridge.enable_icc": "false"}
UNPROTECTED = {f"com.docker.network.bridge.gateway_mode_ipv{n}": "nat-unprotected" for n in (4, 6)}
UDP = socket.SOCK_DGRAM
DNS = PortRequest(container_port=53, host_port="5353", protocol="udp")


@pytest.fixture(params=[True, False], ids=["bridged-is-filtered", "bridged-is-not-filtered"])
def filtered(request: pytest.FixtureRequest, host: Host) -> bool:
    for name in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):
        name.write_text(str(int(request.param)))
    return bool(request.param)


def everywhere(host: Host, where: Path, port: int, kind: int = socket.SOCK_STREAM) -> None:
    for address in "0.0.0.0", "::":
        host.serve(where, port, kind, address)


def is_silent(host: Host, where: Path, address: str, port: int) -> bool:
    with pytest.raises(OSError):
        host.ask(where, address, port, UDP, timeout_s=0.4)
    return host.is_blocked(where, address, port)


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("more", [{}, {"estiba.anti-spoofing": "false"}, UNPROTECTED])
def test_only_published_ports_are_reached(host: Host, more: dict[str, str]) -> None:
    web = host.attach("web", dual(host, options=NO_ICC | more), ports=[*WEB, DNS])
    host.attach("client", "dual")
    server, client = map(host.networks.sandbox_path, ("web", "client"))
    for kind, ports in (socket.SOCK_STREAM, (80, 81)), (UDP, (53, 81)):
        for port in ports:
            everywhere(host, server, port, kind)
    for address in web.ip_address, web.ipv6_address:
        assert is_silent(host, client, address, 80)
        assert is_silent(host, client, address, 81)
    assert not ping(client, web.ip_address, 1)
    for address in HOST_ADDRESS, HOST_ADDRESS6, web.gateway, web.ipv6_gateway:
        assert host.ask(client, address, 8080)
        assert host.ask(client, address, 5353, UDP)
        assert host.ask(server, address, 8080), "itself"
    detour = ["nsenter", f"--net={client}", "ip", "route", "add", web.ip_address]
    subprocess.run([*detour, "via", web.gateway], check=True)
    assert is_silent(host, client, web.ip_address, 80)


def link(host: Host) -> tuple[Endpoint, Endpoint]:
    host.networks.create(NetworkSpec(name="apart", options=NO_ICC))
    client, web = host.attach("client", "apart"), host.attach("web", "apart")
    return client, web


def opened(client: Endpoint, web: Endpoint) -> list[LinkRule]:
    ends = IPv4Address(client.ip_address), IPv4Address(web.ip_address)
    return [LinkRule(*ends, protocol, 80) for protocol in ("tcp", "udp")]


@pytest.mark.usefixtures("filtered")
def test_a_link_opens_its_ports_and_no_way_back(host: Host) -> None:
    client, web = link(host)
    other = host.attach("other", "apart")
    boxes = {each: host.networks.sandbox_path(each) for each in ("client", "web", "other")}
    for where in boxes.values():
        for port in 80, 81:
            host.serve(where, port)
            host.serve(where, port, UDP)

    def check() -> None:
        assert host.ask(boxes["client"], web.ip_address, 80) == client.ip_address
        assert host.ask(boxes["client"], web.ip_address, 80, UDP) == client.ip_address
        assert is_silent(host, boxes["client"], web.ip_address, 81)
        assert is_silent(host, boxes["other"], web.ip_address, 80)
        assert is_silent(host, boxes["client"], other.ip_address, 80)
        assert is_silent(host, boxes["web"], client.ip_address, 80)
        assert not connects(boxes["other"], 8000, web.ip_address, 80)

    host.networks.allow("client", opened(client, web))
    check()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: host.networks.firewall.table in tables("bridge"), what="the tables")
    check()
    host.again()
    host.networks.restore([client, web, other])
    assert is_silent(host, boxes["client"], web.ip_address, 80)
    host.networks.allow("client", opened(client, web))
    check()
    host.networks.allow("client", [])
    assert is_silent(host, boxes["client"], web.ip_address, 80)


def connects(where: Path, own_port: int, address: str, port: int) -> bool:
    def call() -> bool:
        with socket.socket() as client:
            client.bind(("0.0.0.0", own_port))
            client.settimeout(0.4)
            return client.connect_ex((address, port)) == 0

    return run_in_netns(where, call)


def test_who_gets_the_address_of_a_linked_container_is_not_linked(host: Host) -> None:
    client, web = link(host)
    host.networks.allow("client", opened(client, web))
    here = host.networks.sandbox_path("client")
    host.serve(host.networks.sandbox_path("web"), 80)
    assert host.ask(here, web.ip_address, 80)
    host.networks.disconnect("web", web)
    heir = host.attach("heir", "apart", settings=fixed(web.ip_address))
    host.serve(host.networks.sandbox_path("heir"), 80)
    assert host.is_blocked(here, heir.ip_address, 80)
    host.networks.allow("client", opened(client, heir))
    assert host.ask(here, heir.ip_address, 80)
    assert host.networks.firewall.links() == opened(client, heir)


@pytest.mark.usefixtures("filtered")
def test_who_is_linked_to_begins_nothing_from_the_linked_port(host: Host) -> None:
    client, web = link(host)
    host.networks.allow("client", opened(client, web))
    host.serve(host.networks.sandbox_path("client"), 9000)
    assert not connects(host.networks.sandbox_path("web"), 80, client.ip_address, 9000)


def test_a_link_is_no_way_in_for_who_pretends_to_be_the_linked_one(host: Host) -> None:
    """A machine outside that routes to the container, with the other's address as its source."""
    client, web = link(host)
    host.networks.allow("client", opened(client, web))
    for name in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        name.write_text("0")
    host.command(host.outside, "ip", "route", "add", web.ip_address, "via", HOST_ADDRESS)
    host.command(host.outside, "ip", "addr", "add", f"{client.ip_address}/32", "dev", "lo")

    def listen() -> socket.socket:
        server = socket.socket(socket.AF_INET, UDP)
        server.bind(("0.0.0.0", 80))
        server.settimeout(0.4)
        return server

    def pretend() -> None:
        with socket.socket(socket.AF_INET, UDP) as liar:
            liar.bind((client.ip_address, 0))
            liar.sendto(b"x", (web.ip_address, 80))

    with run_in_netns(host.networks.sandbox_path("web"), listen) as server:
        run_in_netns(host.outside, pretend)
        with pytest.raises(TimeoutError):
            server.recv(1)
        server.settimeout(5)
        run_in_netns(host.networks.sandbox_path("client"), lambda: pretend_not(client, web))
        assert server.recv(1) == b"y"


def pretend_not(client: Endpoint, web: Endpoint) -> None:
    with socket.socket(socket.AF_INET, UDP) as honest:
        honest.bind((client.ip_address, 0))
        honest.sendto(b"y", (web.ip_address, 80))


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("guarded", ["true", "false"])
def test_to_all_and_of_unknown_kinds(host: Host, guarded: str) -> None:
    options = NO_ICC | {"estiba.anti-spoofing": guarded}
    host.networks.create(NetworkSpec(name="apart", options=options))
    one, two = host.attach("one", "apart"), host.attach("two", "apart")
    here, there = map(host.networks.sandbox_path, ("one", "two"))
    frames = run_in_netns(there, sniffer)
    mac = bytes.fromhex(one.mac_address.replace(":", ""))

    def shout() -> None:
        # The kernel keeps the order of what one processor sends, not that of two.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(b"\xff" * 6 + mac + b"\x88\xb5" + bytes(46))
        with socket.socket(socket.AF_INET, UDP) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            plain.sendto(b"?", ("255.255.255.255", 9))
            plain.sendto(b"?", ("224.0.0.251", 5353))
        # Asks for the neighbour, which comes through, after all the others.
        with socket.socket(socket.AF_INET, UDP) as plain:
            plain.sendto(b"?", (two.ip_address, 9))

    run_in_netns(here, shout)
    seen = []
    with frames:
        while not seen or seen[-1] != 0x0806:
            frame = frames.recv(2000)
            if frame[6:12] == mac:
                seen.append(int.from_bytes(frame[12:14], "big"))
    assert [kind for kind in seen if kind != 0x86DD] == [0x0806]


def sniffer() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("eth0", 3))
    raw.settimeout(5)
    return raw


def tables(family: str) -> str:
    command = ["nft", "list", "tables", family]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
