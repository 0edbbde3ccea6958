"""Allow-lists of names with the embedded name server and servers outside."""

from __future__ import annotations

from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rrset
import pytest
from tests.kernel.network.askers import Outsider, ask, says, told
from tests.kernel.network.guarded_host import GuardedHost
from tests.kernel.network.private_host import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    NEIGHBOUR_ADDRESS,
    OUTSIDE_ADDRESS,
    Host,
)

from estiba.network.dns.service import NameService
from estiba.network.dns.upstream import HostResolver, Wishes
from estiba.network.networks import Networks
from estiba.network.policy.explain import explain
from estiba.network.policy.members import Facts
from estiba.network.policy.policies import Policies
from estiba.network.policy.world import resolve, split_target
from estiba.network.record import PortRequest

pytestmark = pytest.mark.kernel

RECORDS = {
    "good.example.": [
        "good.example. 5 IN CNAME cdn.example.",
        f"cdn.example. 5 IN A {OUTSIDE_ADDRESS}",
    ],
    "trap.good.example.": ["trap.good.example. 5 IN A 169.254.169.254"],
}


def answer(query: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True)
    for line in RECORDS.get(str(query.question[0].name), []):
        owner, ttl, _, kind, data = line.split(" ")
        reply.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
    return reply


@pytest.fixture
def named(host: Host) -> Iterator[tuple[GuardedHost, Outsider]]:
    host.networks.stop()
    resolv_conf = host.root / "resolv.conf"
    resolv_conf.write_text(f"nameserver {OUTSIDE_ADDRESS}\n")
    facts: dict[str, Facts] = {}
    wishes: dict[str, Wishes] = {}
    policies = Policies(host.store, lambda name: facts.get(name, Facts()))
    names = NameService(
        lambda owner: host.config.netns_root / owner,
        lambda owner: wishes.get(owner, Wishes()),
        policy=policies,
        host=HostResolver(resolv_conf),
    )
    networks = Networks(host.config, host.store, (policies, names))
    policies.bind(networks.firewall)
    networks.start()
    networks.restore([])
    made = GuardedHost(
        host.root, host.outside, host.config, host.store, networks, stack=host.stack,
        policies=policies, facts=facts, wishes=wishes,
    )  # fmt: skip
    outsider = Outsider(host.outside, OUTSIDE_ADDRESS, answer)
    yield made, outsider
    outsider.close()
    names.close()
    host.networks = networks
    host.stack.callback(policies.close)


@pytest.mark.parametrize("network", ["app", "bridge"])
def test_an_allowed_name_is_answered_and_reached_and_no_other(
    named: tuple[GuardedHost, Outsider], network: str
) -> None:
    host, outsider = named
    if network != "bridge":
        host.make(network)
    host.facts["web"] = Facts(egress="allow=good.example:443,allow=*.good.example")
    host.join("web", network)
    host.join("free", network)
    box = host.box("web")
    host.listen(host.outside, 443)
    assert not host.passes(box, OUTSIDE_ADDRESS, 443)
    refused = ask(box, "secret-in-a-name.evil.example")
    assert refused.rcode() == dns.rcode.NXDOMAIN
    assert outsider.asked == [], "a question is no way out"
    assert OUTSIDE_ADDRESS in told(box, "good.example").split()
    assert host.reaches(box, OUTSIDE_ADDRESS, 443)
    assert not host.passes(box, OUTSIDE_ADDRESS, 53), "nor is a server outside"
    assert told(box, "trap.good.example") == "169.254.169.254"
    assert not host.policies.known("web", "*.good.example")
    assert host.reaches(host.box("free"), OUTSIDE_ADDRESS, 443)


def test_a_container_that_answers_itself_reaches_nothing_by_that(
    named: tuple[GuardedHost, Outsider],
) -> None:
    """`--dns 127.0.0.1`: a program in the container says where an allowed name leads."""
    host, outsider = named
    host.make("app")
    host.facts["web"] = Facts(egress="allow=good.example")
    host.wishes["web"] = Wishes(servers=("127.0.0.1", OUTSIDE_ADDRESS))
    host.join("web", "app")
    box = host.box("web")
    host.listen(host.outside, 443)
    liar = Outsider(box, "127.0.0.1", says(f"@ 60 A {OUTSIDE_ADDRESS}"))
    try:
        assert told(box, "good.example") == OUTSIDE_ADDRESS
    finally:
        liar.close()
    assert not outsider.asked
    assert not host.passes(box, OUTSIDE_ADDRESS, 443)
    assert OUTSIDE_ADDRESS in told(box, "good.example").split()
    assert host.reaches(box, OUTSIDE_ADDRESS, 443)


def test_no_name_leads_to_the_host_or_to_other_containers(
    named: tuple[GuardedHost, Outsider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers for an allowed name says that it is at an address inside."""
    host, _ = named
    host.make("app", enable_ipv6=True)
    # Whose containers are reached at their addresses.
    open_mode = {"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"}
    host.make("inner", options=open_mode)
    host.facts["web"] = Facts(egress="allow=*.evil.example")
    web = host.join("web", "app")
    ports = [PortRequest(container_port=80, host_port="8080")]
    db = host.join("db", "inner", ports=ports)
    host.listen(host.box("db"), 80)
    host.listen(None, 81)
    host.serve(None, 81, address="::")
    targets = [
        (HOST_ADDRESS, 81), (HOST_ADDRESS, 8080), (web.gateway, 81), (db.gateway, 81),
        (db.ip_address, 80), (HOST_ADDRESS6, 81), (web.ipv6_gateway, 81),
    ]  # fmt: skip
    host.join("free", "app")
    for number, (address, port) in enumerate(targets):
        assert host.reaches(host.box("free"), address, port), "or this test would say nothing"
        kind = "AAAA" if ":" in address else "A"
        name = f"x{number}.evil.example"
        monkeypatch.setitem(RECORDS, f"{name}.", [f"{name}. 5 IN {kind} {address}"])
        assert address in told(host.box("web"), name, kind).split()
        assert not host.passes(host.box("web"), address, port), address
        world = host.world()
        who, service = split_target(f"[{address}]:{port}")
        shown = explain(world, resolve(world, "web"), resolve(world, who), service)
        assert not shown.passes and "not on the list" in shown.rule
    host.confine("web", f"allow=*.evil.example,allow={HOST_ADDRESS}:8080")
    assert host.reaches(host.box("web"), HOST_ADDRESS, 8080), "named by its address"


def test_answers_that_change_and_those_that_are_long(
    named: tuple[GuardedHost, Outsider], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, outsider = named
    host.make("app")
    host.facts["web"] = Facts(egress="allow=good.example:443")
    host.join("web", "app")
    box = host.box("web")
    host.listen(host.outside, 443)
    host.listen(host.neighbour(), 443)
    assert OUTSIDE_ADDRESS in told(box, "good.example").split()
    assert host.reaches(box, OUTSIDE_ADDRESS, 443)
    assert not host.passes(box, NEIGHBOUR_ADDRESS, 443)
    many = [f"good.example. 5 IN A 203.0.113.{number}" for number in range(1, 200)]
    last = f"good.example. 5 IN A {NEIGHBOUR_ADDRESS}"
    monkeypatch.setitem(RECORDS, "good.example.", [*many, last])
    assert NEIGHBOUR_ADDRESS in told(box, "good.example", tcp=True).split()
    assert "tcp" in outsider.kinds, "too long for a datagram"
    assert host.reaches(box, NEIGHBOUR_ADDRESS, 443), "the last of a long answer"
    assert host.reaches(box, OUTSIDE_ADDRESS, 443), "clients keep an address for a while"


def test_with_egress_none_only_containers_have_names(
    named: tuple[GuardedHost, Outsider],
) -> None:
    host, outsider = named
    host.make("app")
    host.facts["web"] = Facts(egress="none")
    host.join("web", "app")
    db = host.join("db", "app")
    assert told(host.box("web"), "name-db") == db.ip_address
    assert ask(host.box("web"), "good.example").rcode() == dns.rcode.NXDOMAIN
    assert outsider.asked == []
