"""Learnt addresses, denied packets, drawings, and who a word means."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address
from xml.etree import ElementTree

import pytest
from tests.unit.network.policy_sample import CLOSED, DB, NETWORKS, WEB, member, network

from estiba.kernel.nflog import LoggedPacket
from estiba.model.container import EndpointSettings, PortBinding
from estiba.model.errors import InvalidArgument, NotFound
from estiba.model.event import Event
from estiba.network.policy.compile import Point
from estiba.network.policy.denials import Denials, parse_header
from estiba.network.policy.drawing import to_dot, to_svg, to_text
from estiba.network.policy.egress import Address
from estiba.network.policy.explain import explain
from estiba.network.policy.graph import build_graph
from estiba.network.policy.learn import CEILING_S, FLOOR_S, MAX_ADDRESSES, Learnt
from estiba.network.policy.members import State
from estiba.network.policy.world import World, resolve, split_target
from estiba.network.record import Endpoint, NetworkRecord

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::2")
KEY = ("web", "a.example")


def test_an_address_lives_as_long_as_its_answer_and_some_minutes_at_least() -> None:
    learnt = Learnt()
    assert learnt.add(KEY, [ONE, TWO], ttl_s=5, now=0) == ({ONE: FLOOR_S, TWO: FLOOR_S}, [])
    assert learnt.add(KEY, [ONE], ttl_s=5, now=10) == ({}, []), "it is there for long enough"
    assert learnt.add(KEY, [ONE], ttl_s=1000, now=20)[0] == {ONE: 1000}
    assert learnt.living(KEY, FLOOR_S + 1) == {ONE: 1020 - FLOOR_S - 1}
    assert learnt.add(KEY, [TWO], ttl_s=1e9, now=2000)[0] == {TWO: CEILING_S}
    learnt.forget("web")
    assert learnt.living(KEY, 0) == {}


def test_a_name_of_many_addresses_pushes_out_those_that_end_first() -> None:
    learnt = Learnt()
    crowd: list[Address] = [ip_address(number) for number in range(1, MAX_ADDRESSES + 1)]
    learnt.add(KEY, crowd, ttl_s=600, now=0)
    fresh, gone = learnt.add(KEY, [TWO], ttl_s=600, now=1)
    assert fresh == {TWO: 600}
    assert len(gone) == 1
    assert len(learnt.living(KEY, 1)) == MAX_ADDRESSES


TCP4 = bytes.fromhex("450000280001000040060000") + ONE.packed + bytes.fromhex("0a010003")
SYN = LoggedPacket("estiba:es1_default ", 0x0800, TCP4 + bytes.fromhex("123401bb") + bytes(16))


def test_headers() -> None:
    header = parse_header(SYN)
    assert header is not None
    assert (str(header.source), str(header.target), header.service) == (
        "192.0.2.1", "10.1.0.3", "443/tcp",
    )  # fmt: skip
    six = bytes.fromhex("6000000000083a40") + TWO.packed + TWO.packed + bytes(8)
    found = parse_header(LoggedPacket("", 0x86DD, six))
    assert found is not None
    assert found.service == "icmp"
    for size in range(24):
        cut = parse_header(replace(SYN, payload=SYN.payload[:size]))
        assert cut is None or cut.port == 0
    assert parse_header(replace(SYN, ethertype=0x0806)) is None


def test_of_a_flood_the_first_are_told_and_then_few(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    events: list[Event] = []
    point = Point("es1_default", DB, "ingress", "default closed", True)
    denials = Denials({"es1_default": point}.get, lambda a: "", events.append, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            denials.seen(SYN)
    assert len(events) == 10
    assert "policy of network n1 denied 192.0.2.1 → db 443/tcp: default closed" in caplog.text
    assert events[0].attributes["peer"] == "192.0.2.1"
    now[0] = 60.0
    for _ in range(1000):
        denials.seen(SYN)
    assert len(events) == 20
    denials.seen(replace(SYN, prefix="estiba:es9_default "))
    assert len(events) == 20, "a rule that is no more"


def world() -> World:
    records = {
        view.id: NetworkRecord(
            id=view.id, name=view.name, driver="bridge", created_ns=0, bridge=view.bridge
        )
        for view in NETWORKS.values()
    }
    evil = replace(member("evil", 2, 9), name='<b>"\x1b[2J\\')
    way_out = Endpoint(
        id="e", network_id=evil.network_id, network_name="n2", driver="bridge",
        container_id=evil.container_id, container_name=evil.name, requested=EndpointSettings(),
        gateway="10.2.0.1",
    )  # fmt: skip
    state = State(NETWORKS, (WEB, DB, evil))
    return World(networks=records, endpoints=[way_out], state=state)


def test_words_of_the_command_line() -> None:
    assert split_target("db")[1].protocol == "icmp"
    assert str(split_target("db:5432")[1]) == "5432/tcp"
    assert split_target("[fd00::1]:53/udp")[0] == "fd00::1"
    assert split_target("fd00::1")[0] == "fd00::1"
    for bad in ("db:1-2", "db:tcp", "db:x", "x" * 600):
        with pytest.raises(InvalidArgument):
            split_target(bad)
    here = world()
    assert resolve(here, "web").container_id == WEB.container_id
    assert resolve(here, "web@n1").network_id == CLOSED.id
    assert resolve(here, "10.1.0.3").container_id == DB.container_id
    assert resolve(here, "10.1.0.1").is_host
    assert resolve(here, "192.0.2.1").is_outside
    assert resolve(here, "deb.debian.org").name == "deb.debian.org"
    for unknown in ("nobody", "web@n2"):
        with pytest.raises(NotFound):
            resolve(here, unknown)


def test_an_explanation_names_the_rule() -> None:
    here = world()

    def rule(source: str, target: str) -> tuple[bool, str]:
        who, service = split_target(target)
        found = explain(here, resolve(here, source), resolve(here, who), service)
        return found.passes, found.rule

    assert rule("web", "db:5432") == (
        True,
        "policy: allow from=web,label:tier=api,10.9.0.0/16 to=db port=5432/tcp,53/udp,icmp "
        "(network n1)",
    )
    assert rule("web", "db:80") == (False, "policy: default closed (network n1)")
    assert rule("db", "web:80")[0]
    assert rule("evil", "10.0.0.1:22") == (True, "masquerade: leaves with the host's address")
    assert not rule("evil", "deb.debian.org:80")[0]
    assert "not on the list (network n2)" in rule("evil", "192.0.2.1:443")[1]


def test_a_way_out_that_is_not_of_the_engines_firewall_is_told() -> None:
    """A macvlan network may have the default route of a container that is on a bridge too."""
    here = world()
    past = Endpoint(
        id="m", network_id="m" * 64, network_name="lan", driver="macvlan",
        container_id=WEB.container_id, container_name=WEB.name, requested=EndpointSettings(),
        gateway="192.0.2.254",
    )  # fmt: skip
    here = replace(here, endpoints=[*here.endpoints, past])
    who, service = split_target("192.0.2.1:443")
    found = explain(here, resolve(here, "web"), resolve(here, who), service)
    assert found.passes
    assert found.rule == "route: leaves by network lan, which does not pass the engine's firewall"
    assert build_graph(here).groups


def test_a_port_of_a_link_that_is_none_of_the_engines_is_not_drawn() -> None:
    here = world()
    bound = [PortBinding(host_ip="0.0.0.0", host_port="8080")]
    past = Endpoint(
        id="p", network_id="p" * 64, network_name="plugged", driver="plugin",
        container_id=WEB.container_id, container_name=WEB.name, requested=EndpointSettings(),
        ip_address="192.0.2.9", ports={"80/tcp": bound},
    )  # fmt: skip
    assert replace(here, endpoints=[past]).published() == []


@pytest.mark.parametrize("ports", ["1-65535", "1-65535/udp,1-65535,1-65535/sctp,icmp"])
def test_rules_that_name_all_ports_are_drawn(ports: str) -> None:
    named = network(1, f"default closed\nallow from=web to=db port={ports}")
    here = replace(world(), state=State({**NETWORKS, named.id: named}, (WEB, DB)))
    drawn = to_text(build_graph(here))
    assert "→ db: " in drawn
    assert "1-65535/tcp" in drawn


def test_drawings_hold_what_hostile_names_say() -> None:
    graph = build_graph(world())
    text, dot, svg = to_text(graph), to_dot(graph), to_svg(graph)
    assert "\x1b" not in text + dot + svg
    assert "→ db: icmp, 5432/tcp, 53/udp" in text
    assert '"n2/<b>\\"?[2J\\\\"' in dot
    shown = ElementTree.fromstring(svg)
    words = [each.text or "" for each in shown.iter("{http://www.w3.org/2000/svg}text")]
    assert any(word.startswith('<b>"?[2J\\') for word in words)
