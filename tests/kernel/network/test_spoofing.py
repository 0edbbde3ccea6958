"""A container with CAP_NET_RAW sends frames that are not its own: neighbours see none of them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from tests.kernel.network.private_host import HOST_ADDRESS, Host

from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointSettings
from estiba.network.record import Endpoint, NetworkSpec

pytestmark = pytest.mark.kernel

ETH_IP, ETH_ARP, ETH_IP6, ETH_VLAN, ETH_ALL = 0x0800, 0x0806, 0x86DD, 0x8100, 3
BROADCAST = "ff:ff:ff:ff:ff:ff"
STRANGER = "02:00:00:00:99:99"
ALL_NODES = IPv6Address("ff02::1")


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(source: str, kind: int, payload: bytes, target: str = BROADCAST) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def arp(sender_mac: str, sender: str, target: str, operation: int) -> bytes:
    head = struct.pack("!HHBBH", 1, ETH_IP, 6, 4, operation)
    sender_ip, target_ip = IPv4Address(sender).packed, IPv4Address(target).packed
    return head + mac(sender_mac) + sender_ip + mac(BROADCAST) + target_ip


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source_port: int, target_port: int) -> bytes:
    return struct.pack("!HHHH", source_port, target_port, 12, 0) + b"mark"


def ipv6(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    addresses = IPv6Address(source).packed + IPv6Address(target).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + addresses + payload


def icmpv6(source: str, target: str, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0) + body
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    pseudo += struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return ipv6(source, target, 58, message)


@dataclass
class Stage:
    """A bad container, and a victim that listens to its interface."""

    host: Host
    bad: Endpoint
    victim: Endpoint

    def send(self, *frames: bytes) -> None:
        def go() -> None:
            # The kernel keeps the order of what one processor sends, not that of two.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
                link.bind((self.bad.interface, 0))
                for each in frames:
                    link.send(each)

        run_in_netns(self.host.networks.sandbox_path("bad"), go)

    @contextmanager
    def listening(self) -> Iterator[Callable[[], list[bytes]]]:
        """Gives a function for what has come from the bad container's side so far.

        A last frame that must pass tells that all before it have been decided.
        """
        where = self.host.networks.sandbox_path("victim")

        def listen() -> socket.socket:
            link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
            link.bind((self.victim.interface, 0))
            link.settimeout(5)
            return link

        link = run_in_netns(where, listen)
        end = frame(
            self.bad.mac_address,
            ETH_IP,
            ipv4(self.bad.ip_address, self.victim.ip_address, 17, udp(9, 4242)),
            self.victim.mac_address,
        )

        def heard() -> list[bytes]:
            self.send(end)
            found: list[bytes] = []
            while (got := link.recv(2000)) != end:
                found.append(got)
            return found

        with link:
            yield heard

    def passes(self, sent: bytes) -> bool:
        with self.listening() as heard:
            self.send(sent)
            return sent in heard()


@pytest.fixture
def stage(host: Host) -> Stage:
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    return Stage(host, host.attach("bad", "dual"), host.attach("victim", "dual"))


def test_its_own_frames_pass(stage: Stage) -> None:
    me, victim = stage.bad, stage.victim
    here, there = me.mac_address, victim.mac_address
    local = str(_link_local(here))
    own = [
        frame(here, ETH_ARP, arp(here, me.ip_address, victim.ip_address, 1)),
        frame(here, ETH_ARP, arp(here, me.ip_address, me.ip_address, 1)),
        frame(here, ETH_ARP, arp(here, me.ip_address, me.ip_address, 2)),
        frame(here, ETH_ARP, arp(here, "0.0.0.0", "10.9.9.9", 1)),
        frame(here, ETH_IP, ipv4(me.ip_address, victim.ip_address, 17, udp(1, 2)), there),
        frame(here, ETH_IP6, ipv6(me.ipv6_address, victim.ipv6_address, 17, udp(1, 2)), there),
        frame(here, ETH_IP6, advertisement(me.ipv6_address, me.ipv6_address)),
        frame(here, ETH_IP6, solicitation(me.ipv6_address, victim.ipv6_address)),
        frame(here, ETH_IP6, solicitation(local, victim.ipv6_address)),
        frame(here, ETH_IP6, solicitation("::", me.ipv6_address)),
    ]
    for each in own:
        assert stage.passes(each), each.hex()


def lies(stage: Stage) -> dict[str, bytes]:
    me, victim = stage.bad, stage.victim
    here, there = me.mac_address, victim.mac_address
    local = str(_link_local(here))
    lie = arp(here, me.gateway, victim.ip_address, 2)
    return {
        "another's MAC": frame(
            there, ETH_IP, ipv4(me.ip_address, victim.ip_address, 17, udp(1, 2)), there
        ),
        "an unknown MAC": frame(STRANGER, ETH_ARP, arp(here, me.ip_address, victim.ip_address, 1)),
        "another's address": frame(
            here, ETH_IP, ipv4("203.0.113.9", victim.ip_address, 17, udp(1, 2)), there
        ),
        "the gateway's address": frame(
            here, ETH_IP, ipv4(me.gateway, victim.ip_address, 17, udp(1, 2)), there
        ),
        "the gateway by ARP": frame(here, ETH_ARP, lie),
        "the victim by ARP": frame(
            here, ETH_ARP, arp(here, victim.ip_address, victim.ip_address, 1)
        ),
        "another's MAC within ARP": frame(
            here, ETH_ARP, arp(STRANGER, me.ip_address, victim.ip_address, 2)
        ),
        "an ARP answer without a sender": frame(
            here, ETH_ARP, arp(here, "0.0.0.0", victim.ip_address, 2)
        ),
        "another's IPv6 address": frame(
            here, ETH_IP6, ipv6("2001:db8::9", victim.ipv6_address, 17, udp(1, 2)), there
        ),
        "another's link-local address": frame(
            here, ETH_IP6, ipv6("fe80::1", victim.ipv6_address, 17, udp(1, 2)), there
        ),
        "the gateway by neighbour discovery": frame(
            here, ETH_IP6, advertisement(me.ipv6_address, me.ipv6_gateway)
        ),
        "somebody's detection of duplicates": frame(
            here, ETH_IP6, solicitation("::", victim.ipv6_address)
        ),
        "a router advertisement": frame(
            here, ETH_IP6, icmpv6(local, "ff02::1", 134, bytes(8) + b"\x03\x04\x40\xc0" + bytes(28))
        ),
        "an IPv6 redirect": frame(
            here, ETH_IP6, icmpv6(local, victim.ipv6_address, 137, bytes(32)), there
        ),
        "a redirect": frame(
            here, ETH_IP, ipv4(me.ip_address, victim.ip_address, 1, b"\x05\1" + bytes(34)), there
        ),
        "a DHCP server's answer": frame(
            here, ETH_IP, ipv4(me.ip_address, "255.255.255.255", 17, udp(67, 68))
        ),
        "a DHCPv6 server's answer": frame(
            here, ETH_IP6, ipv6(local, victim.ipv6_address, 17, udp(547, 546)), there
        ),
        "a VLAN's frame": frame(
            here, ETH_VLAN, b"\0\1\x08\x06" + arp(here, me.gateway, "0.0.0.0", 2)
        ),
        "a bridge's protocol": frame(
            here, 0x0026, b"\x42\x42\x03" + bytes(35), "01:80:c2:00:00:00"
        ),
    }


def test_what_is_not_its_own_is_dropped(stage: Stage) -> None:
    for name, each in lies(stage).items():
        assert not stage.passes(each), name


def test_a_victim_keeps_its_neighbours(stage: Stage) -> None:
    """The table of addresses of a victim is what an attack is after."""
    me, victim = stage.bad, stage.victim
    where = stage.host.networks.sandbox_path("victim")
    for address in me.gateway, me.ipv6_gateway:
        stage.host.command(where, "ping", "-c1", "-W2", address)
    before = stage.host.command(where, "ip", "neigh", "show", me.gateway).split()[4]
    with stage.listening() as heard:
        stage.send(
            frame(me.mac_address, ETH_ARP, arp(me.mac_address, me.gateway, victim.ip_address, 2)),
            frame(me.mac_address, ETH_IP6, advertisement(me.ipv6_address, me.ipv6_gateway)),
        )
        heard()
    for address in me.gateway, me.ipv6_gateway:
        table = stage.host.command(where, "ip", "neigh", "show", address)
        assert me.mac_address not in table and before in table


@pytest.mark.parametrize("last", [0x00, 0x02, 0x03, 0x0E, 0x0F])
def test_frames_to_the_bridge_itself_get_past_nothing(stage: Stage, last: int) -> None:
    """Linux takes in what is sent to reserved groups (802.1D) past the way of other frames: with
    it a container would learn the bridge another's MAC, or reach the host as nobody in particular.
    """
    me, victim = stage.bad, stage.victim
    group = f"01:80:c2:00:00:{last:02x}"
    stage.host.command(stage.host.networks.sandbox_path("victim"), "ping", "-c1", "-W2", me.gateway)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST_ADDRESS, 4343))
        server.settimeout(0.3)
        lie = ipv4("203.0.113.9", HOST_ADDRESS, 17, udp(9, 4343))
        with stage.listening() as heard:
            stage.send(
                frame(victim.mac_address, 0x88CC, bytes(46), group),
                frame(me.mac_address, ETH_IP, lie, group),
            )
            heard()
        with pytest.raises(TimeoutError):
            server.recv(100)
    learnt = stage.host.command(None, "bridge", "fdb", "show", "dev", victim.host_interface)
    assert victim.mac_address in learnt
    stolen = stage.host.command(None, "bridge", "fdb", "show", "dev", me.host_interface)
    assert victim.mac_address not in stolen


def test_a_network_may_do_without(host: Host) -> None:
    """Nested bridges, virtual addresses: `--opt estiba.anti-spoofing=false`."""
    option = {"estiba.anti-spoofing": "false"}
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True, options=option))
    stage = Stage(host, host.attach("bad", "dual"), host.attach("victim", "dual"))
    told = lies(stage)
    stolen = told.pop("another's MAC")
    told.pop("a VLAN's frame")  # Packet sockets take the tag off.
    for name, each in told.items():
        assert stage.passes(each), name
    with pytest.raises(TimeoutError):
        stage.passes(stolen)  # The bridge takes the victim for the thief from now on.


def test_an_address_that_was_asked_for_is_its_own(host: Host) -> None:
    host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    settings = EndpointSettings(mac_address="02:42:ac:11:00:99")
    stage = Stage(
        host, host.attach("bad", "dual", settings=settings), host.attach("victim", "dual")
    )
    sent = ipv4(stage.bad.ip_address, stage.victim.ip_address, 17, udp(1, 2))
    assert stage.passes(frame("02:42:ac:11:00:99", ETH_IP, sent, stage.victim.mac_address))
    assert stage.host.command(
        Path(host.networks.sandbox_path("bad")), "ping", "-c1", "-W2", stage.victim.ipv6_address
    )


def advertisement(source: str, target: str) -> bytes:
    option = b"\x02\x01" + mac(STRANGER)
    return icmpv6(source, str(ALL_NODES), 136, IPv6Address(target).packed + option)


def solicitation(source: str, target: str) -> bytes:
    return icmpv6(source, str(ALL_NODES), 135, IPv6Address(target).packed)


def _link_local(text: str) -> IPv6Address:
    octets = mac(text)
    interface = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    found = ip_address(b"\xfe\x80" + bytes(6) + interface)
    assert isinstance(found, IPv6Address)
    return found
