"""Names that containers ask of the outside: who is asked, what is believed, what is allowed."""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.reversename
import pytest
from tests.kernel.network.askers import ask, says
from tests.kernel.network.naming import Named
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.network.dns.forward import DEADLINE_S, wait_between
from estiba.network.dns.upstream import Wishes
from estiba.network.record import NetworkSpec

pytestmark = pytest.mark.kernel

CLIENTS_WAIT_S = 5.0
"""What musl and glibc wait for an answer (resolv.conf(5), `timeout`)."""


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
    assert time.monotonic() - began > 1
    assert named.told("one", "out.example") == "192.0.2.9"
    assert (len(silent.asked), len(good.asked)) == (1, 2), (
        "the silent one is asked last for a while"
    )


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
    assert time.monotonic() - began < 3 * wait_between(len(servers)), "a refusal is not waited for"
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

    def failing_s() -> float:
        began = time.monotonic()
        assert named.told("one", "out.example") == "SERVFAIL"
        return time.monotonic() - began

    assert DEADLINE_S < CLIENTS_WAIT_S
    assert DEADLINE_S <= failing_s() < 8
    named.resolv_conf.write_text("# none\n")
    wait_until(lambda: failing_s() < 4, what="no server at all to fail at once")


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
