"""Name servers outside, and containers that ask, on the private host."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from estiba.kernel.netns import run_in_netns
from estiba.network.resolv import INTERNAL_SERVER

Answer = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Outsider:
    """A name server on UDP and TCP, in whatever namespace; says what `answer` says."""

    def __init__(self, where: Path | None, address: str, answer: Answer) -> None:
        self.asked: list[dns.message.Message] = []
        self.peers: list[tuple[str, int]] = []
        self.kinds: list[str] = []
        self._answer = answer
        self._stop, self._stopper = socket.socketpair()

        def bind() -> tuple[socket.socket, socket.socket]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind((address, 53))
            tcp = socket.socket(family, socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, 53))
            tcp.listen(64)
            return udp, tcp

        self._udp, self._tcp = bind() if where is None else run_in_netns(where, bind)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopper.send(b"x")
        self._thread.join()
        for each in (self._udp, self._tcp, self._stop, self._stopper):
            each.close()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._tcp, self._stop], [], [])
            if self._stop in ready:
                return
            if self._udp in ready:
                data, peer = self._udp.recvfrom(65535)
                reply = self._say(data, peer, "udp")
                if reply is not None:
                    self._udp.sendto(reply, peer)
            if self._tcp in ready:
                client, peer = self._tcp.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(5)
                    (length,) = struct.unpack("!H", client.recv(2, socket.MSG_WAITALL))
                    reply = self._say(client.recv(length, socket.MSG_WAITALL), peer, "tcp")
                    if reply is not None:
                        client.sendall(struct.pack("!H", len(reply)) + reply)

    def _say(self, data: bytes, peer: tuple[str, int], kind: str) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        self.asked.append(query)
        self.peers.append((peer[0], peer[1]))
        self.kinds.append(kind)
        reply = self._answer(query)
        return reply.to_wire() if isinstance(reply, dns.message.Message) else reply


def says(*lines: str, rcode: str = "NOERROR") -> Answer:
    """Answers every question with these records, whatever its name."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(dns.rcode.from_text(rcode))
        for line in lines:
            owner, ttl, kind, data = line.split(" ", 3)
            name = query.question[0].name if owner == "@" else owner
            reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
        return reply

    return answer


def ask(
    sandbox: Path,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    wait_s: float = 8.0,
    query: dns.message.Message | None = None,
) -> dns.message.Message:
    """What the container is told at 127.0.0.11:53, by a client of another make."""
    message = query or dns.message.make_query(name, kind)

    def inside() -> dns.message.Message:
        way = dns.query.tcp if tcp else dns.query.udp
        return way(message, INTERNAL_SERVER, timeout=wait_s)

    return run_in_netns(sandbox, inside)


def told(sandbox: Path, name: str, kind: str = "A", **more: object) -> str:
    """As one line: the data of all records, or the code."""
    reply = ask(sandbox, name, kind, **more)  # type: ignore[arg-type]
    if reply.rcode():
        return dns.rcode.to_text(reply.rcode())
    found = [record.to_text() for rrset in reply.answer for record in rrset]
    return " ".join(sorted(found)) or "nothing"
