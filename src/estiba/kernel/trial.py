"""Asks the kernel what nftables rules say of a packet, in a network namespace made for it.

One end of a pair sends the frame, the other, which bears the name that the rules know, receives
it: the hooks of prerouting see it as they would see a real one. Nothing of it is left.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from estiba.kernel import rtnetlink
from estiba.kernel.libc import check, libc
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.nft import Nft
from estiba.model.errors import Internal

_CLONE_NEWNET = 0x40000000
_SENDER = "trial-sender"
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_DEADLINE_S = 1.0

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection; both addresses of one family. A ping has no port."""

    interface: str
    source: Address
    target: Address
    protocol: str
    port: int = 0


def passes(rules: str, chain: str, packet: Packet) -> bool:
    """Whether `chain` lets the packet pass; `rules` are sets and chains as within a table.

    Raises Internal when nftables refuses them, or OSError.
    """
    outcome: list[bool] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            check(libc.unshare(_CLONE_NEWNET), "unshare the network namespace")
            outcome.append(_try(rules, chain, packet))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="trial")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _try(rules: str, chain: str, packet: Packet) -> bool:
    with NetlinkSocket() as handle:
        handle.execute(
            rtnetlink.add_bridge("trial", mac="02:00:00:00:00:03", mtu=1500),
        )
        master = rtnetlink.get_link(handle, "trial").index
        home = open(f"/proc/self/task/{threading.get_native_id()}/ns/net", "rb")  # noqa: SIM115
        with home:
            handle.execute(
                rtnetlink.add_veth(
                    _SENDER,
                    master=master,
                    mtu=1500,
                    peer=packet.interface,
                    peer_mac=_MACS[0],
                    peer_netns_fd=home.fileno(),
                ),
                rtnetlink.set_link(_SENDER, up=True),
                rtnetlink.set_link(packet.interface, up=True),
            )
    nft = Nft()
    try:
        # The links themselves speak too, when they come up.
        word = "ip" if packet.source.version == 4 else "ip6"
        ours = f'iifname "{packet.interface}" {word} saddr {packet.source}'
        nft.run(_TABLE.format(rules=rules, chain=chain, ours=ours))
        return _verdict(nft, packet)
    finally:
        nft.close()


def _verdict(nft: Nft, packet: Packet) -> bool:
    """A link that has just come up loses what is sent at once: it is sent until it is seen."""
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end:
        _send(packet)
        if _counts(nft).get("seen"):
            # Another processor may be at it still.
            return bool(_counts(nft).get("passed"))
    raise Internal("a packet that was sent for a trial was not seen")


def _counts(nft: Nft) -> dict[str, int]:
    entries = nft.list_json("list counters table inet trial")
    return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in entries}


def _send(packet: Packet) -> None:
    kind = 0x0800 if packet.source.version == 4 else 0x86DD
    ends = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in _MACS)
    frame = ends + struct.pack("!H", kind) + _network(packet)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((_SENDER, 0))
        sender.send(frame)


def _network(packet: Packet) -> bytes:
    number = _NUMBERS.get(packet.protocol, 1 if packet.source.version == 4 else 58)
    body = _transport(packet, number)
    ends = packet.source.packed + packet.target.packed
    if packet.source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), number, 64) + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, 64, number, 0) + ends
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + body


def _transport(packet: Packet, number: int) -> bytes:
    """With a right sum: a wrong one makes a packet invalid for connection tracking."""
    port = 40000
    if number == 6:
        body = struct.pack("!HHIIBBHHH", port, packet.port, 1, 0, 0x50, 2, 64240, 0, 0)
        at = 16
    elif number == 17:
        body, at = struct.pack("!HHHH", port, packet.port, 9, 0) + b"?", 6
    elif number == 132:
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
        head = struct.pack("!HHI", port, packet.port, 0)
        return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk
    else:
        body, at = struct.pack("!BBHHH", 8 if number == 1 else 128, 0, 0, 1, 1), 2
    covered = body
    if number != 1:
        ends = packet.source.packed + packet.target.packed
        covered = ends + struct.pack("!II", len(body), number) + body
    return body[:at] + struct.pack("!H", _sum(covered)) + body[at + 2 :]


def _sum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return ~value & 0xFFFFFFFF


_TABLE = """\
table inet trial {{
  counter seen {{ }}
  counter passed {{ }}
{rules}
  chain before {{
    type filter hook prerouting priority dstnat - 1; policy accept;
    {ours} jump {chain}
  }}
  chain after {{
    type filter hook prerouting priority dstnat + 1; policy accept;
    {ours} counter name passed
  }}
  chain first {{
    type filter hook prerouting priority raw; policy accept;
    {ours} counter name seen
  }}
}}
"""
