"""The embedded name server, asked over real sockets in real namespaces."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import dns.flags
import dns.message
import dns.reversename
import pytest
from tests.kernel.network.askers import Outsider, ask, says, told
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS, Host
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.kernel.nft import Nft, open_notices
from estiba.model.container import EndpointSettings
from estiba.model.errors import InvalidArgument
from estiba.network.dns import server as server_module
from estiba.network.dns.service import NameService
from estiba.network.dns.upstream import HostResolver, Wishes
from estiba.network.record import Endpoint, NetworkSpec

pytestmark = pytest.mark.kernel


class Policy:
    def __init__(self) -> None:
        self.watched: set[str] = set()
        self.denied: set[str] = set()
        self.heard: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    def watches(self, container_id: str) -> bool:
        return container_id in self.watched

    def allows(self, container_id: str, name: str) -> bool:
        return name not in self.denied

    def answered(self, container_id: str, name: str, addresses: object, ttl_s: int) -> None:
        self.heard.append((container_id, name, addresses, ttl_s))
        if self.error is not None:
            raise self.error


class Named:
    """The private host with a name service; `again` is another engine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.resolv_conf = host.root / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {OUTSIDE_ADDRESS}\n")
        self.wishes: dict[str, Wishes] = {}
        self.policy = Policy()
        self.names = self._start()
        self.endpoints: dict[tuple[str, str], Endpoint] = {}
        host.networks.create(NetworkSpec(name="net"))

    def _start(self) -> NameService:
        names = NameService(
            lambda owner: self.host.config.netns_root / owner,
            lambda owner: self.wishes.get(owner, Wishes()),
            policy=self.policy,
            host=HostResolver(self.resolv_conf),
        )
        self.host.observers[:] = [names]
        self.host.again()
        return names

    def again(self) -> None:
        """Another engine, to which the containers are handed over."""
        self.names.close()
        self.names = self._start()
        self.host.networks.restore(self.endpoints.values())

    def join(self, container_id: str, network: str = "net", **wanted: object) -> Endpoint:
        endpoint = self.host.attach(container_id, network, **wanted)
        self.endpoints[container_id, network] = endpoint
        return endpoint

    def leave(self, container_id: str, network: str = "net") -> None:
        self.host.networks.disconnect(container_id, self.endpoints.pop((container_id, network)))

    def outsider(self, *lines: str, address: str = OUTSIDE_ADDRESS, **more: str) -> Outsider:
        return self.serve(says(*lines, **more), address)

    def serve(self, answer: object, address: str = OUTSIDE_ADDRESS, where: object = "") -> Outsider:
        place = self.host.outside if where == "" else where
        made = Outsider(place, address, answer)  # type: ignore[arg-type]
        self.host.stack.callback(made.close)
        return made

    def told(self, container_id: str, name: str, kind: str = "A", **more: object) -> str:
        return told(self.sandbox(container_id), name, kind, **more)

    def sandbox(self, container_id: str) -> Path:
        return self.host.networks.sandbox_path(container_id)

    def close(self) -> None:
        self.names.close()


@pytest.fixture
def named(host: Host) -> Iterator[Named]:
    made = Named(host)
    try:
        yield made
    finally:
        made.close()


# -- names of containers -------------------------------------------------------------------


def test_containers_find_each_other(named: Named) -> None:
    one = named.join("one", settings=EndpointSettings(aliases=["shared"]))
    two = named.join("two", settings=EndpointSettings(aliases=["shared"]))
    assert named.told("one", "name-two") == two.ip_address
    assert named.told("two", "NAME-ONE.net.") == one.ip_address
    assert named.told("one", "shared") == " ".join(sorted([one.ip_address, two.ip_address]))
    assert named.told("one", "name-two", tcp=True) == two.ip_address
    reverse = ".".join(reversed(two.ip_address.split("."))) + ".in-addr.arpa"
    assert named.told("one", reverse, "PTR") == "name-two.net."
    assert named.told("one", "name-two", "AAAA") == (two.ipv6_address or "nothing")
    named.leave("two")
    assert named.told("one", "shared") == one.ip_address


def test_addresses_of_both_families(named: Named) -> None:
    named.host.networks.create(NetworkSpec(name="dual", enable_ipv6=True))
    named.join("one", "dual")
    two = named.join("two", "dual")
    assert two.ipv6_address
    assert named.told("one", "name-two", "AAAA") == two.ipv6_address
    both = " ".join(sorted([two.ip_address, two.ipv6_address]))
    assert named.told("one", "name-two", "ANY") == both
    reverse = dns.reversename.from_address(two.ipv6_address).to_text()
    assert named.told("one", reverse, "PTR") == "name-two.dual."
    nobody = dns.reversename.from_address(two.ipv6_address[:-1] + "ff").to_text()
    assert named.told("one", nobody, "PTR") == "NXDOMAIN"


def test_a_network_of_ipv6_alone(named: Named) -> None:
    spec = NetworkSpec(name="six", enable_ipv4=False, enable_ipv6=True)
    named.host.networks.create(spec)
    named.join("one", "six")
    two = named.join("two", "six")
    assert (named.told("one", "name-two"), two.ip_address) == ("nothing", "")
    assert named.told("one", "name-two", "AAAA") == two.ipv6_address


def test_the_answer_comes_from_port_53_of_the_server(named: Named) -> None:
    """dnspython, as musl and glibc, passes over answers from elsewhere; here it is looked at."""
    named.join("one")

    def inside() -> tuple[str, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(dns.message.make_query("name-one", "A").to_wire(), ("127.0.0.11", 53))
            return client.recvfrom(512)[1]

    assert run_in_netns(named.sandbox("one"), inside) == ("127.0.0.11", 53)


def test_the_container_may_use_port_53_itself(named: Named) -> None:
    named.join("one")

    def inside() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as own:
                own.bind(("0.0.0.0", 53))

    run_in_netns(named.sandbox("one"), inside)


def test_the_default_bridge_pays_nothing(named: Named) -> None:
    named.join("one", "bridge")
    assert not named.names.serves("one")

    def tables() -> list[object]:
        nft = Nft()
        try:
            return nft.list_json("list tables")
        finally:
            nft.close()

    assert run_in_netns(named.sandbox("one"), tables) == []
    with pytest.raises(OSError):
        named.told("one", "x", tcp=True, wait_s=0.5)


def test_a_container_joins_and_leaves_while_it_runs(named: Named) -> None:
    named.outsider("@ 60 A 192.0.2.9")
    named.join("one", "bridge")
    two = named.join("two")
    named.join("one")
    assert named.names.serves("one")
    assert named.told("one", "name-two") == two.ip_address
    named.leave("one")
    # Its resolv.conf names no other server: it is served on.
    assert named.told("one", "out.example") == "192.0.2.9"
    named.join("one")
    assert named.told("one", "name-two") == two.ip_address


def test_a_hundred_connects_and_disconnects(named: Named) -> None:
    named.outsider(rcode="NXDOMAIN")
    named.join("one")
    two = named.join("two")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        named.leave("two")
        assert named.told("one", "name-two") == "NXDOMAIN"
        two = named.join("two")
        assert named.told("one", "name-two") == two.ip_address
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4, what="closed sockets")


def test_another_engine_answers_at_once(named: Named) -> None:
    named.join("one")
    two = named.join("two")

    def inside() -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect(("127.0.0.11", 53))
        return client

    with run_in_netns(named.sandbox("one"), inside) as client:
        for _ in range(3):
            query = dns.message.make_query("name-two", "A")
            client.send(query.to_wire())
            reply = dns.message.from_wire(client.recv(512))
            assert reply.id == query.id
            assert reply.answer[0][0].to_text() == two.ip_address
            named.again()
            assert named.told("one", "name-two", tcp=True) == two.ip_address


def test_rules_that_others_delete_come_back(named: Named) -> None:
    named.join("one")
    two = named.join("two")
    sandbox = named.sandbox("one")

    def is_answered() -> bool:
        try:
            return named.told("one", "name-two", tcp=True, wait_s=1) == two.ip_address
        except OSError:
            return False

    for command in ("flush ruleset", "flush table ip estiba_dns", "delete table ip estiba_dns"):
        for _ in range(2):
            subprocess.run(["nsenter", f"--net={sandbox}", "nft", *command.split()], check=True)
            wait_until(is_answered, what=f"an answer after {command}")
    # Its own change is none of others: it does not go on writing.
    with run_in_netns(sandbox, open_notices) as notices:
        assert not select.select([notices], [], [], 2 * server_module.MEND_AFTER_S)[0]


def test_a_sandbox_that_is_gone_does_not_keep_the_engine_from_starting(named: Named) -> None:
    named.join("one")
    two = named.join("two")
    named.names.close()
    lost = named.endpoints.pop(("one", "net"))
    named.host.networks.close_sandbox("one")
    named.endpoints["one", "net"] = lost
    named.again()
    assert named.told("two", "name-two") == two.ip_address
    del named.endpoints["one", "net"]
    named.host.networks.disconnect("one", lost)


def test_custom_records_of_a_network(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    options = {
        "estiba.dns-record": "*.apps.example=10.0.0.5,www.example=name-one",
        "estiba.dns-record.far": "far.example=CNAME:other.example",
    }
    named.host.networks.create(NetworkSpec(name="custom", options=options))
    one = named.join("one", "custom")
    assert named.told("one", "x.apps.example") == "10.0.0.5"
    assert named.told("one", "www.example") == f"{one.ip_address} name-one."
    assert named.told("one", "far.example") == "192.0.2.9 other.example."
    assert [query.question[0].name.to_text() for query in outsider.asked] == ["other.example."]
    with pytest.raises(InvalidArgument, match="invalid DNS record"):
        named.host.networks.create(NetworkSpec(name="bad", options={"estiba.dns-record": "x"}))


# -- questions that go outside ---------------------------------------------------------------


def test_names_of_the_outside_are_asked_there(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    named.join("one")
    assert named.told("one", "out.example") == "192.0.2.9"
    assert named.told("one", "single") == "192.0.2.9"
    assert named.told("one", "out.example", tcp=True) == "192.0.2.9"
    assert outsider.kinds == ["udp", "udp", "tcp"]
    # A name that is known here never goes outside, of whatever type the question is.
    for kind in ("A", "AAAA", "MX", "HTTPS", "TXT"):
        named.told("one", "name-one", kind)
    assert len(outsider.asked) == 3


def test_each_question_has_a_port_and_an_id_of_its_own(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    named.join("one")
    query = dns.message.make_query("out.example", "A")
    for _ in range(20):
        assert ask(named.sandbox("one"), "", query=query).id == query.id
    assert len({peer[1] for peer in outsider.peers}) > 15
    assert len({asked.id for asked in outsider.asked}) > 15


def test_forged_answers_are_passed_over(named: Named) -> None:
    def answer(query: dns.message.Message) -> bytes:
        truth = says("@ 60 A 192.0.2.9")(query)
        forged = [says("@ 60 A 6.6.6.6")(query).to_wire() for _ in range(3)]  # type: ignore[union-attr]
        wrong_id = bytes([forged[0][0] ^ 1]) + forged[0][1:]
        other = dns.message.make_query("evil.example", "A", id=query.id)
        wrong_name = says("@ 60 A 6.6.6.6")(other).to_wire()  # type: ignore[union-attr]
        for data in (wrong_id, wrong_name, forged[1][:20], b"", b"\xff" * 40):
            outsider._udp.sendto(data, outsider.peers[-1])
        return truth.to_wire()  # type: ignore[union-attr]

    outsider = named.serve(answer)
    named.join("one")
    assert named.told("one", "out.example") == "192.0.2.9"


def test_edns_goes_through(named: Named) -> None:
    def answer(query: dns.message.Message) -> dns.message.Message:
        reply = says("@ 60 A 192.0.2.9")(query)
        assert isinstance(reply, dns.message.Message)
        reply.use_edns(0, dns.flags.DO, 1400)
        reply.flags |= dns.flags.AD
        return reply

    outsider = named.serve(answer)
    named.join("one")
    query = dns.message.make_query("out.example", "A", want_dnssec=True, payload=1300)
    reply = ask(named.sandbox("one"), "", query=query)
    assert (reply.edns, reply.payload, reply.flags & dns.flags.AD) == (0, 1400, dns.flags.AD)
    assert (outsider.asked[0].payload, outsider.asked[0].ednsflags) == (1300, dns.flags.DO)


def test_what_is_too_long_for_a_datagram(named: Named) -> None:
    lines = [f"@ 60 TXT {'x' * 250}" for _ in range(8)]

    def answer(query: dns.message.Message) -> dns.message.Message:
        reply = says(*lines)(query)
        assert isinstance(reply, dns.message.Message)
        if outsider.kinds[-1] == "udp":
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return reply

    outsider = named.serve(answer)
    named.join("one")
    sandbox = named.sandbox("one")
    # Without EDNS the client is told to come again by TCP; with room for it it gets the whole.
    assert ask(sandbox, "out.example", "TXT").flags & dns.flags.TC
    assert outsider.kinds == ["udp"]
    assert len(ask(sandbox, "out.example", "TXT", tcp=True).answer[0]) == 1
    roomy = dns.message.make_query("out.example", "TXT", use_edns=0, payload=4096)
    whole = ask(sandbox, "", query=roomy)
    assert not whole.flags & dns.flags.TC
    assert outsider.kinds[-2:] == ["udp", "tcp"]


def test_the_next_server_is_asked_when_one_is_silent(named: Named) -> None:
    silent = named.serve(lambda query: None)
    run_in_netns(named.host.outside, lambda: os.system("ip addr add 198.51.100.3/24 dev out0"))
    good = named.outsider("@ 60 A 192.0.2.9", address="198.51.100.3")
    named.resolv_conf.write_text(f"nameserver {OUTSIDE_ADDRESS}\nnameserver 198.51.100.3\n")
    named.join("one")
    began = time.monotonic()
    assert named.told("one", "out.example") == "192.0.2.9"
    assert 1 < time.monotonic() - began < 3
    began = time.monotonic()
    assert named.told("one", "out.example") == "192.0.2.9"
    assert time.monotonic() - began < 1, "the silent one is asked last for a while"
    assert (len(silent.asked), len(good.asked)) == (1, 2)


def test_the_next_server_is_asked_when_one_refuses(named: Named) -> None:
    addresses = ["198.51.100.3", "198.51.100.4", "198.51.100.5", "198.51.100.6"]
    for address in addresses:
        run_in_netns(named.host.outside, lambda a=address: os.system(f"ip a add {a}/24 dev out0"))
    refusing = named.outsider(rcode="REFUSED")
    failing = named.outsider(rcode="SERVFAIL", address=addresses[0])
    # Nothing listens at the third and fourth; more than three servers are asked.
    named.outsider("@ 60 A 192.0.2.9", address=addresses[3])
    servers = [OUTSIDE_ADDRESS, *addresses]
    named.resolv_conf.write_text("".join(f"nameserver {each}\n" for each in servers))
    named.join("one")
    began = time.monotonic()
    assert named.told("one", "out.example") == "192.0.2.9"
    assert time.monotonic() - began < 1, "a refusal is not waited for"
    assert (len(refusing.asked), len(failing.asked)) == (1, 1)
    named.resolv_conf.write_text(f"nameserver {addresses[0]}\n")
    wait_until(lambda: named.told("one", "out.example") == "SERVFAIL", what="the new file")
    count = len(failing.asked)
    assert named.told("one", "out.example") == "SERVFAIL"
    assert len(failing.asked) == count + 1, "who has refused is not asked again"


def test_what_the_last_server_says_counts(named: Named) -> None:
    named.outsider(rcode="NXDOMAIN")
    named.join("one")
    assert named.told("one", "out.example") == "NXDOMAIN"


def test_failure_comes_before_the_client_gives_up(named: Named) -> None:
    named.serve(lambda query: None)
    named.join("one")
    began = time.monotonic()
    assert named.told("one", "out.example") == "SERVFAIL"
    assert 4 < time.monotonic() - began < 5
    named.resolv_conf.write_text("# none\n")
    time_of_look = time.monotonic()
    wait_until(
        lambda: (
            named.told("one", "out.example") == "SERVFAIL" and time.monotonic() - time_of_look < 4
        ),
        what="no server at all to fail at once",
    )


def test_the_hosts_resolv_conf_is_followed(named: Named) -> None:
    named.outsider("@ 60 A 192.0.2.1")
    named.serve(says("@ 60 A 192.0.2.2"), address="127.0.0.53", where=None)
    named.join("one")
    assert named.told("one", "out.example") == "192.0.2.1"
    named.resolv_conf.write_text("nameserver 127.0.0.53\n")
    wait_until(lambda: named.told("one", "out.example") == "192.0.2.2", what="the new server")


def test_servers_with_ipv6_addresses(named: Named) -> None:
    named.serve(says("@ 60 A 192.0.2.6"), address="::1", where=None)
    named.resolv_conf.write_text("nameserver ::1\n")
    named.join("one")
    assert named.told("one", "out.example") == "192.0.2.6"


def test_own_servers_are_asked_from_inside(named: Named) -> None:
    server = named.join("server")
    outsider = named.serve(says("@ 60 A 192.0.2.3"), "0.0.0.0", named.sandbox("server"))
    named.wishes["one"] = Wishes(servers=(server.ip_address,))
    one = named.join("one")
    assert named.told("one", "out.example") == "192.0.2.3"
    assert named.told("one", "out.example", tcp=True) == "192.0.2.3"
    assert {peer[0] for peer in outsider.peers} == {one.ip_address}


def test_internal_networks_do_not_ask_the_hosts_servers(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    named.host.networks.create(NetworkSpec(name="secret", internal=True))
    server = named.join("server", "secret")
    named.serve(says("@ 60 A 192.0.2.3"), "0.0.0.0", named.sandbox("server"))
    named.join("one", "secret")
    assert named.told("one", "name-server") == server.ip_address
    assert named.told("one", "out.example") == "NXDOMAIN"
    named.wishes["two"] = Wishes(servers=(server.ip_address,))
    named.join("two", "secret")
    assert named.told("two", "out.example") == "192.0.2.3"
    assert not outsider.asked
    named.join("one")
    assert named.told("one", "out.example") == "192.0.2.9"


def test_single_names_wait_for_the_search_list_where_ndots_is_set(named: Named) -> None:
    outsider = named.outsider("@ 60 A 192.0.2.9")
    named.wishes["one"] = Wishes(options=("ndots:2",))
    named.join("one")
    assert named.told("one", "single") == "nothing"
    assert not outsider.asked
    assert named.told("one", "single.domain") == "192.0.2.9"


# -- policies --------------------------------------------------------------------------------


def test_a_policy_hears_of_addresses_first_and_may_refuse(named: Named) -> None:
    outsider = named.outsider("@ 60 CNAME cdn.example.", "cdn.example. 20 A 192.0.2.9")
    named.policy.denied = {"bad.example"}
    named.policy.watched = {"one"}
    named.join("one", "bridge")
    assert named.told("one", "good.example") == "192.0.2.9 cdn.example."
    assert named.policy.heard == [("one", "good.example", [IPv4Address("192.0.2.9")], 20)]
    assert named.told("one", "bad.example") == "NXDOMAIN"
    assert len(outsider.asked) == 1
    named.policy.error = RuntimeError("the set is full")
    assert named.told("one", "good.example") == "SERVFAIL"


def test_own_servers_of_a_watched_container_are_asked_from_outside(named: Named) -> None:
    """Its own packets to them its firewall would stop."""
    outsider = named.outsider("@ 60 A 192.0.2.9")
    named.resolv_conf.write_text("")
    named.wishes["one"] = Wishes(servers=("127.0.0.1", OUTSIDE_ADDRESS))
    named.policy.watched = {"one"}
    named.join("one")
    own = named.serve(says(rcode="REFUSED"), "127.0.0.1", named.sandbox("one"))
    assert named.told("one", "out.example") == "192.0.2.9"
    assert outsider.peers[0][0] == HOST_ADDRESS
    assert len(own.asked) == 1, "what it runs itself is asked inside"


# -- hostile clients -------------------------------------------------------------------------


def send_raw(sandbox: Path, *datagrams: bytes) -> None:
    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for each in datagrams:
                client.sendto(each, ("127.0.0.11", 53))

    run_in_netns(sandbox, inside)


def test_garbage_harms_nobody(named: Named) -> None:
    named.outsider("@ 60 A 192.0.2.9")
    one = named.join("one")
    chance = random.Random(5)
    good = dns.message.make_query("name-one", "A", use_edns=0).to_wire()
    garbage = [chance.randbytes(chance.randrange(0, 600)) for _ in range(500)]
    for _ in range(500):
        bitten = bytearray(good)
        for _ in range(3):
            bitten[chance.randrange(len(bitten))] = chance.randrange(256)
        garbage.append(bytes(bitten))
    for at in range(0, len(garbage), 50):
        # No more at once than the socket's buffer holds.
        send_raw(named.sandbox("one"), *garbage[at : at + 50])
        assert named.told("one", "name-one") == one.ip_address

    def streams() -> None:
        for data in (b"", b"\0", b"\0\0", b"\xff\xff", b"\0\5hello", struct.pack("!H", 9) + b"x"):
            with socket.create_connection(("127.0.0.11", 53), timeout=5) as client:
                client.sendall(data)

    run_in_netns(named.sandbox("one"), streams)
    assert named.told("one", "name-one", tcp=True) == one.ip_address


def test_a_flood_does_not_starve_others(named: Named) -> None:
    named.serve(lambda query: None)
    named.join("loud")
    quiet = named.join("quiet")
    stop = threading.Event()
    flood = [dns.message.make_query(f"x{n}.example", "A").to_wire() for n in range(200)]
    flood += [dns.message.make_query("name-quiet", "A").to_wire()] * 200

    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            while not stop.is_set():
                for each in flood:
                    client.sendto(each, ("127.0.0.11", 53))

    thread = threading.Thread(target=run_in_netns, args=(named.sandbox("loud"), inside))
    thread.start()
    try:
        took = []
        for _ in range(50):
            began = time.monotonic()
            assert named.told("quiet", "name-quiet", wait_s=2) == quiet.ip_address
            took.append(time.monotonic() - began)
    finally:
        stop.set()
        thread.join()
    assert sorted(took)[25] < 0.5


def test_questions_under_way_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_PENDING", 5)
    named.serve(lambda query: None)
    named.join("one")
    queries = [dns.message.make_query(f"x{n}.example", "A").to_wire() for n in range(5)]
    send_raw(named.sandbox("one"), *queries)
    wait_until(lambda: named.told("one", "y.example") == "REFUSED", what="a refusal")
    assert named.told("one", "name-one") != "REFUSED"


def test_answers_a_second_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "WINDOW_S", 0.2)
    monkeypatch.setattr(server_module, "MAX_IN_WINDOW", 16)
    one = named.join("one")
    two = named.join("two")

    def inside() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("127.0.0.11", 53))
            began = time.monotonic()
            for _ in range(64):
                client.send(dns.message.make_query("name-one", "A").to_wire())
            for _ in range(64):
                client.recv(512)
            return time.monotonic() - began

    thread = threading.Thread(target=run_in_netns, args=(named.sandbox("one"), inside))
    thread.start()
    began = time.monotonic()
    assert named.told("two", "name-two") == two.ip_address
    assert time.monotonic() - began < 0.2, "others do not wait"
    thread.join()
    assert 0.6 <= run_in_netns(named.sandbox("one"), inside) < 3
    assert named.told("one", "name-one", tcp=True) == one.ip_address


def test_open_streams_are_limited(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_STREAMS", 2)
    one = named.join("one")

    def inside() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.11", 53), timeout=5) for _ in range(2)]

    held = run_in_netns(named.sandbox("one"), inside)
    with pytest.raises((OSError, EOFError)):
        named.told("one", "name-one", tcp=True, wait_s=3)
    for each in held:
        each.close()

    def is_told() -> bool:
        try:
            return named.told("one", "name-one", tcp=True, wait_s=3) == one.ip_address
        except (OSError, EOFError):
            return False

    wait_until(is_told, what="room for another stream")


def test_several_questions_on_one_stream(named: Named) -> None:
    one = named.join("one")

    def inside() -> list[str]:
        found = []
        with socket.create_connection(("127.0.0.11", 53), timeout=5) as client:
            for _ in range(5):
                wire = dns.message.make_query("name-one", "A").to_wire()
                client.sendall(struct.pack("!H", len(wire)) + wire)
                (length,) = struct.unpack("!H", client.recv(2, socket.MSG_WAITALL))
                reply = dns.message.from_wire(client.recv(length, socket.MSG_WAITALL))
                found.append(reply.answer[0][0].to_text())
        return found

    assert run_in_netns(named.sandbox("one"), inside) == [one.ip_address] * 5


def test_two_hundred_names(named: Named) -> None:
    shared = EndpointSettings(aliases=["all"])
    endpoints = [named.join(f"c{number}", settings=shared) for number in range(200)]
    for endpoint in endpoints[::20]:
        assert named.told("c0", endpoint.container_name) == endpoint.ip_address
    short = ask(named.sandbox("c0"), "all")
    assert short.flags & dns.flags.TC
    assert len(ask(named.sandbox("c0"), "all", tcp=True).answer[0]) == 200
    began = time.monotonic()
    named.again()
    assert named.told("c199", "name-c0") == endpoints[0].ip_address
    assert time.monotonic() - began < 5
