"""`explain` never lies: what it says of random networks is what packets do.

Policies, lists, networks, published ports and questions are drawn from a seed; servers answer on
a few ports of every namespace, and each question is asked of `explain` and of the kernel.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from tests.kernel.network.guarded_host import PATIENT_S, GuardedHost
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS
from tests.support.daemon import wait_until

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import run_in_netns
from estiba.network.firewall.rules import LinkRule
from estiba.network.policy.explain import Explanation, explain
from estiba.network.policy.members import Facts
from estiba.network.policy.world import resolve, split_target
from estiba.network.record import Endpoint, PortRequest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

PORTS = (80, 443, 5432)
QUIET_S = 0.35
CASES = 40
_INPUT = "type filter hook input priority filter; policy drop;"


Question = tuple[str, Path | None, str, str, int]
"""Who asks, in which namespace, which address, by which protocol, on which port."""


class Answering:
    """One thread that answers on all sockets of all namespaces."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, "stop")
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listen(self, where: Path | None) -> None:
        def open_all() -> list[socket.socket]:
            return [_bound(port, kind) for port in PORTS
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]  # fmt: skip

        found = open_all() if where is None else run_in_netns(where, open_all)
        for each in found:
            self._selector.register(each, selectors.EVENT_READ, each.type)
        self._sockets += found

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._sockets, self._wake, self._woken):
            each.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data == "stop":
                    return
                assert isinstance(key.fileobj, socket.socket)
                if key.data == socket.SOCK_STREAM:
                    client, _ = key.fileobj.accept()
                    client.close()
                else:
                    _echo(key.fileobj)


def _echo(server: socket.socket) -> None:
    """From the very address that was asked: hosts have several."""
    data, found, _, peer = server.recvmsg(100, 200)
    asked = [value for _, kind, value in found if kind == socket.IPV6_PKTINFO]
    with contextlib.suppress(OSError):
        pktinfo = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, asked[0][:16] + bytes(4))]
        server.sendmsg([data], pktinfo, 0, peer)


def _bound(port: int, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        made.listen(50)
    return made


def _asks(address: str, protocol: str, port: int, wait_s: float) -> Callable[[], bool]:
    def ask() -> bool:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as client:
            client.settimeout(wait_s)
            try:
                client.connect((address, port))
                if kind == socket.SOCK_DGRAM:
                    client.send(b"?")
                    client.recv(10)
            except OSError:
                return False
        return True

    return ask


def ping(where: Path | None, address: str, wait_s: int) -> bool:
    inside = [] if where is None else ["nsenter", f"--net={where}"]
    program = "ping6" if ":" in address else "ping"
    command = [*inside, "busybox", program, "-c1", f"-W{wait_s}", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _target(address: str, protocol: str, port: int) -> str:
    if protocol == "icmp":
        return address
    return f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"


def said(host: GuardedHost, source: str, target: str) -> Explanation:
    world = host.world()
    who, service = split_target(target)
    return explain(world, resolve(world, source), resolve(world, who), service)


class Scene:
    """Networks and containers, drawn by `seed`."""

    def __init__(self, host: GuardedHost, seed: int) -> None:
        self.host = host
        self.draw = random.Random(seed)
        self.endpoints: list[Endpoint] = []
        self.published: list[tuple[str, int, str]] = []
        self.nets = {
            "app": {"enable_ipv6": True},
            "free": {},
            "quiet": {"options": {"com.docker.network.bridge.enable_icc": "false"}},
            "inner": {"internal": True},
        }

    def make(self) -> None:
        draw = self.draw
        for name, options in self.nets.items():
            wanted = dict(options)
            if draw.random() < 0.3:
                wanted["options"] = {**wanted.get("options", {}), "estiba.egress": self.egress()}  # type: ignore[dict-item]
            self.host.make(name, **wanted)
        for number in range(6):
            name = f"c{number}"
            labels = {"tier": draw.choice(("web", "data"))}
            egress = self.egress() if draw.random() < 0.4 else ""
            self.host.facts[name] = Facts(labels, egress)
            mine = draw.sample(list(self.nets), draw.choice((1, 1, 2)))
            for net in mine:
                self.endpoints.append(self.host.join(name, net, ports=self.ports(number, net)))
        if draw.random() < 0.5:
            self.host_firewall()
        for name in self.nets:
            if draw.random() < 0.7:
                self.host.allow(name, self.policy())

    def ports(self, number: int, net: str) -> list[PortRequest]:
        if self.draw.random() < 0.5:
            return []
        protocol = self.draw.choice(("tcp", "udp"))
        where = self.draw.choice(("", "", "127.0.0.1", HOST_ADDRESS))
        port = 18000 + 10 * number + list(self.nets).index(net)
        self.published.append((where, port, protocol))
        inner = self.draw.choice(PORTS)
        return [
            PortRequest(container_port=inner, protocol=protocol, host_ip=where, host_port=str(port))
        ]

    def host_firewall(self) -> None:
        """An input policy of the host's own, as ufw would write it."""
        rules = ["ct state established,related accept", 'iifname "lo" accept']
        rules += ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"]
        choice = ["tcp dport 80-443 accept", "udp dport 18000-18040 accept",
                  "ip saddr 198.51.100.0/24 tcp dport 18000-18100 accept",
                  "ip protocol icmp accept", 'iifname "br-*" udp dport 443 accept',
                  'iifname "up0" udp dport 5432 accept']  # fmt: skip
        rules += self.draw.sample(choice, 3)
        body = "\n".join(rules)
        text = f"table inet own {{ chain input {{\n{_INPUT}\n{body}\n}}\n}}"
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        firewall = self.host.networks.firewall
        where = ["inet", firewall.table, "user-published"]
        rule = "ip saddr 198.51.100.0/24 udp dport 18000-18030 drop"
        subprocess.run(["nft", "add", "rule", *where, *rule.split()], check=True)
        wait_until(lambda: firewall.user_rules("user-published"), what="the rule to be noticed")
        forget = ["nft", "delete", "table", "inet", "own"]
        self.host.stack.callback(subprocess.run, forget, check=True)
        wait_until(self.host_text, what="the firewall to be noticed")

    def host_text(self) -> list[str]:
        found = self.host.networks.firewall.host_text
        return str(found).splitlines() if found is not None and found.chains else []

    def egress(self) -> str:
        entries = [
            "none",
            f"allow={OUTSIDE_ADDRESS}:443",
            f"allow=198.51.100.0/24:80-443/tcp,allow={OUTSIDE_ADDRESS}/udp",
            "allow=*:5432,allow=*:80/udp",
            f"allow={HOST_ADDRESS},allow=192.0.2.0/24",
        ]
        return self.draw.choice(entries)

    def policy(self) -> str:
        draw, lines = self.draw, [f"default {self.draw.choice(('open', 'closed'))}"]
        peers = [f"name-c{n}" for n in range(6)]
        peers += ["label:tier=web", "label:tier=data", "host", "outside", "network", "any"]
        peers += ["network:free", "198.51.100.0/24", "label:tier"]
        for _ in range(draw.randrange(1, 5)):
            source = ",".join(draw.sample(peers, draw.choice((1, 2))))
            target = draw.choice(peers[:8])
            port = draw.choice(("", "", " port=80", " port=5432/udp,443", " port=icmp,80-100"))
            lines.append(
                f"{draw.choice(('allow', 'allow', 'deny'))} from={source} to={target}{port}"
            )
        return "\n".join(lines)

    def question(self) -> Question:
        draw = self.draw
        source = draw.choice([*(e.container_name for e in self.endpoints), "host", OUTSIDE_ADDRESS])
        where = self.where(source)
        protocol, port = draw.choice(("tcp", "tcp", "udp", "icmp")), draw.choice(PORTS)
        kind = draw.choice(("container", "container", "container", "host", "outside", "published"))
        open_ = [p for p in self.published if p[0] != "127.0.0.1" or source == "host"]
        if kind == "published" and open_:
            bound, port, protocol = draw.choice(open_)
            return source, where, bound or HOST_ADDRESS, protocol, port
        if kind == "outside" and source != OUTSIDE_ADDRESS:
            return source, where, OUTSIDE_ADDRESS, protocol, port
        if kind == "host" and source != "host":
            gateways = [e.gateway for e in self.endpoints if e.gateway]
            if source == OUTSIDE_ADDRESS:
                gateways = []
            return source, where, draw.choice([HOST_ADDRESS, *gateways]), protocol, port
        there = draw.choice(self.endpoints)
        address = there.ip_address
        if there.ipv6_address and source != OUTSIDE_ADDRESS and draw.random() < 0.5:
            address = there.ipv6_address
        return source, where, address, protocol, port

    def where(self, source: str) -> Path | None:
        if source == "host":
            return None
        if source == OUTSIDE_ADDRESS:
            return self.host.outside
        return self.host.box(source.removeprefix("name-"))


@pytest.fixture
def answering(guarded: GuardedHost) -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def route_back() -> None:
    """The neighbour knows the host as the way to its containers, as an attacker would."""
    with NetlinkSocket() as handle:
        index = rtnetlink.get_link(handle, "out0").index
        handle.execute(rtroutes.set_default_route(index, ip_address(HOST_ADDRESS)))


@pytest.mark.parametrize("filtered", ["0", "1"])
@pytest.mark.parametrize("seed", range(4))
def test_what_it_says_is_what_packets_do(
    guarded: GuardedHost, answering: Answering, seed: int, filtered: str
) -> None:
    """`filtered`: whether br_netfilter shows bridged packets to the inet family."""
    for switch in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):
        switch.write_text(filtered)
    run_in_netns(guarded.outside, route_back)
    scene = Scene(guarded, seed)
    scene.make()
    for where in {None, guarded.outside, *(guarded.box(n) for n in scene.host.facts)}:
        answering.listen(where)
    answering.start()
    asked = [scene.question() for _ in range(CASES)]
    told = [said(guarded, source, _target(*rest)) for source, _, *rest in asked]

    def is_answered(question: Question, found: Explanation) -> bool:
        """Where an answer is to be expected, a busy machine has time for it."""
        _, where, address, protocol, port = question
        if protocol == "icmp":
            return ping(where, address, 5 if found.passes else 1)
        ask = _asks(address, protocol, port, PATIENT_S if found.passes else QUIET_S)
        return ask() if where is None else run_in_netns(where, ask)

    with ThreadPoolExecutor(4) as pool:
        real = list(pool.map(is_answered, asked, told))
    lies = []
    for (source, _, address, protocol, port), found, passes in zip(asked, told, real, strict=True):
        if passes is not found.passes:
            steps = "\n    ".join(f"{s.at}: {s.text} {s.passes}" for s in found.steps)
            lies.append(f"{source} → {address}:{port}/{protocol} is {passes}:\n    {steps}")
    assert not lies, "\n".join(lies)
    assert 0 < sum(real) < CASES


def test_it_knows_links(guarded: GuardedHost) -> None:
    guarded.make("quiet", options={"com.docker.network.bridge.enable_icc": "false"})
    web, db = guarded.join("web", "quiet"), guarded.join("db", "quiet")
    assert not said(guarded, "name-web", f"{db.ip_address}:80").passes
    rule = LinkRule(IPv4Address(web.ip_address), IPv4Address(db.ip_address), "tcp", 80)
    guarded.networks.allow("web", [rule])
    found = said(guarded, "name-web", f"{db.ip_address}:80")
    assert found.passes and "link" in found.steps[1].text
    assert not said(guarded, "name-web", f"{db.ip_address}:81").passes
    assert not said(guarded, "name-db", f"{web.ip_address}:80").passes
