"""What a container is told, in one line each."""

from __future__ import annotations

import random
from collections.abc import Sequence

import dns.message
import pytest

from estiba.model.container import EndpointSettings
from estiba.network.dns.message import Type, parse_query, render_reply
from estiba.network.dns.names import Local, Names, parse_reverse
from estiba.network.record import Endpoint, IpamConfig, NetworkRecord, endpoint_id


class World:
    """Networks with containers, and one of them that asks."""

    def __init__(self) -> None:
        self.names = Names(random.Random(1))
        self.networks: dict[str, NetworkRecord] = {}

    def network(self, name: str, subnet: str = "10.1.0.0/24", **more: object) -> None:
        pools = [IpamConfig(subnet=subnet)] if subnet else []
        values = {"driver": "bridge", "options": {}, **more}
        self.networks[name] = NetworkRecord(
            id=f"id-{name}",
            name=name,
            created_ns=0,
            pools=pools,
            **values,  # type: ignore[arg-type]
        )

    def join(
        self,
        container: str,
        network: str,
        address: str = "",
        v6: str = "",
        aliases: Sequence[str] = (),
        links: Sequence[str] = (),
        gateway: str = "10.1.0.1",
        priority: int = 0,
    ) -> Endpoint:
        record = self.networks[network]
        identity = f"{container}-0123456789abcdef"
        endpoint = Endpoint(
            id=endpoint_id(identity, record.id),
            network_id=record.id,
            network_name=record.name,
            driver=record.driver,
            container_id=identity,
            container_name=container,
            requested=EndpointSettings(links=list(links), gw_priority=priority),
            ip_address=address,
            ipv6_address=v6,
            gateway=gateway,
            dns_names=[container, *aliases, identity[:12]],
        )
        self.names.join(record, endpoint)
        return endpoint

    def ask(self, who: str, name: str, kind: str = "A") -> str:
        """The answer as dnspython reads it, `forward NAME`, or the code of a refusal."""
        query = parse_query(dns.message.make_query(name, kind).to_wire())
        found = self.names.decide(f"{who}-0123456789abcdef", query.name, query.type)
        if not isinstance(found, Local):
            return " ".join(["forward", found.name.decode(), *(["alias"] if found.aliases else [])])
        reply = dns.message.from_wire(
            render_reply(query, found.rcode, found.answers, limit=65535, authoritative=True)
        )
        if reply.rcode():
            return dns.rcode.to_text(reply.rcode())
        texts = [
            f"{dns.rdatatype.to_text(rrset.rdtype)} {record.to_text()}"
            for rrset in reply.answer
            for record in rrset
        ]
        return ", ".join(sorted(texts)) or "nothing"


@pytest.fixture
def world() -> World:
    world = World()
    world.network("net")
    world.join("web", "net", "10.1.0.2", "fd00::2", ["www", "shared"])
    world.join("db", "net", "10.1.0.3", "", ["shared"])
    return world


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("web", "A", "A 10.1.0.2"),
        ("WEB", "A", "A 10.1.0.2"),
        ("web.", "AAAA", "AAAA fd00::2"),
        ("web", "ANY", "A 10.1.0.2, AAAA fd00::2"),
        ("www", "A", "A 10.1.0.2"),
        ("web.net", "A", "A 10.1.0.2"),
        ("Web.Net.", "A", "A 10.1.0.2"),
        ("web-01234567", "A", "A 10.1.0.2"),
        ("shared", "A", "A 10.1.0.2, A 10.1.0.3"),
        ("db", "AAAA", "nothing"),
        ("db", "MX", "nothing"),
        ("db", "HTTPS", "nothing"),
        ("db", "SRV", "nothing"),
        ("dbx", "A", "forward dbx"),
        ("db.other", "A", "forward db.other"),
        ("net", "A", "forward net"),
        ("2.0.1.10.in-addr.arpa", "PTR", "PTR web.net."),
        ("9.0.1.10.in-addr.arpa", "PTR", "NXDOMAIN"),
        ("9.9.9.9.in-addr.arpa", "PTR", "forward 9.9.9.9.in-addr.arpa"),
        ("2." + "0." * 28 + "0.d.f.ip6.arpa", "PTR", "PTR web.net."),
        ("in-addr.arpa", "PTR", "forward in-addr.arpa"),
        ("x.0.1.10.in-addr.arpa", "PTR", "forward x.0.1.10.in-addr.arpa"),
        (".", "NS", "forward "),
    ],
)
def test_answers(world: World, name: str, kind: str, answer: str) -> None:
    assert world.ask("db", name, kind) == answer


def test_a_container_sees_its_own_networks_only(world: World) -> None:
    world.network("other", "10.2.0.0/24")
    world.join("alone", "other", "10.2.0.2")
    assert world.ask("alone", "web") == "forward web"
    assert world.ask("web", "alone") == "forward alone"
    assert world.ask("alone", "2.0.1.10.in-addr.arpa", "PTR").startswith("forward")
    world.join("alone", "net", "10.1.0.4")
    assert world.ask("alone", "web") == "A 10.1.0.2"
    assert world.ask("web", "alone") == "A 10.1.0.4"
    assert world.ask("stranger", "web") == "forward web"


def test_the_first_network_that_knows_a_name_answers(world: World) -> None:
    world.network("second", "10.2.0.0/24")
    world.join("web", "second", "10.2.0.2")
    world.join("db", "second", "10.2.0.3", "fd01::3")
    assert world.ask("web", "db") == "A 10.1.0.3"
    assert world.ask("web", "db.second") == "A 10.2.0.3"
    # The first network has no address of this kind, the second has.
    assert world.ask("web", "db", "AAAA") == "AAAA fd01::3"
    world.join("web", "second", "10.2.0.2", priority=1)
    assert world.ask("web", "db") == "A 10.2.0.3"


def test_who_leaves_is_forgotten(world: World) -> None:
    gone = world.join("db", "net", "10.1.0.3", "", ["shared"])
    assert not world.names.leave(gone)
    assert not world.names.leave(gone)
    assert world.ask("web", "db") == "forward db"
    assert world.ask("web", "shared") == "A 10.1.0.2"
    assert world.ask("web", "3.0.1.10.in-addr.arpa", "PTR") == "NXDOMAIN"


def test_joining_again_takes_new_names(world: World) -> None:
    world.join("db", "net", "10.1.0.9", "", ["renamed"])
    assert world.ask("web", "renamed") == "A 10.1.0.9"
    assert world.ask("web", "shared") == "A 10.1.0.2"
    assert world.ask("web", "3.0.1.10.in-addr.arpa", "PTR") == "NXDOMAIN"


def test_a_link_is_the_linking_containers_own(world: World) -> None:
    world.join("app", "net", "10.1.0.5", links=["db:database", "web"])
    assert world.ask("app", "database") == "A 10.1.0.3"
    assert world.ask("app", "Database.net") == "A 10.1.0.3"
    assert world.ask("app", "web") == "A 10.1.0.2"
    assert world.ask("web", "database") == "forward database"
    # To a container that is not up the alias leads nowhere.
    world.join("late", "net", "10.1.0.6", links=["absent:thing"])
    assert world.ask("late", "thing") == "forward thing"
    world.join("absent", "net", "10.1.0.7")
    assert world.ask("late", "thing") == "A 10.1.0.7"


def test_custom_records() -> None:
    world = World()
    texts = [
        "db=10.9.0.1", "*.apps.example=10.9.0.2", "www=web", "out=far.example", "a=b", "b=a",
        "chain=www", "t=TXT:hello", "v6=2001:db8::1", "_s._tcp=SRV:1 2 80 web",
    ]  # fmt: skip
    world.network("net", options={f"estiba.dns-record.{n}": t for n, t in enumerate(texts)})
    world.join("web", "net", "10.1.0.2")
    world.join("db", "net", "10.1.0.3")
    expected = {
        ("db", "A"): "A 10.9.0.1",
        ("db", "AAAA"): "nothing",
        ("x.y.apps.example", "A"): "A 10.9.0.2",
        ("apps.example", "A"): "forward apps.example",
        ("www", "A"): "A 10.1.0.2, CNAME web.",
        ("chain", "A"): "A 10.1.0.2, CNAME web., CNAME www.",
        ("www", "CNAME"): "CNAME web.",
        ("out", "A"): "forward far.example alias",
        ("a", "A"): "SERVFAIL",
        ("t", "TXT"): 'TXT "hello"',
        ("v6", "AAAA"): "AAAA 2001:db8::1",
        ("_s._tcp", "SRV"): "SRV 1 2 80 web.",
    }
    assert {key: world.ask("web", *key) for key in expected} == expected


def test_containers_win_over_wildcards() -> None:
    world = World()
    world.network("net", options={"estiba.dns-record": "*=10.9.0.9"})
    world.join("web", "net", "10.1.0.2")
    assert world.ask("web", "web") == "A 10.1.0.2"
    assert world.ask("web", "web", "AAAA") == "nothing"
    assert world.ask("web", "anything.at.all") == "A 10.9.0.9"


def test_the_default_bridge_has_no_names() -> None:
    world = World()
    world.network("bridge", predefined=True)
    world.join("web", "bridge", "10.1.0.2")
    assert world.ask("web", "web") == "forward web"
    assert world.ask("web", "web.bridge") == "forward web.bridge"


def test_only_internal_networks_keep_inside() -> None:
    world = World()
    world.network("secret", internal=True)
    world.network("open", "10.2.0.0/24")
    identity = world.join("web", "secret", "10.1.0.2", gateway="").container_id
    assert world.names.is_inside_only(identity)
    world.join("web", "open", "10.2.0.2")
    assert not world.names.is_inside_only(identity)


def test_a_real_networks_subnet_is_asked_outside() -> None:
    world = World()
    world.network("lan", driver="macvlan")
    world.join("web", "lan", "10.1.0.2")
    assert world.ask("web", "2.0.1.10.in-addr.arpa", "PTR") == "PTR web.lan."
    assert world.ask("web", "77.0.1.10.in-addr.arpa", "PTR").startswith("forward")


def test_shared_aliases_take_turns(world: World) -> None:
    firsts = set()
    for _ in range(50):
        found = world.names.decide("db-0123456789abcdef", b"shared", Type.A)
        assert isinstance(found, Local)
        firsts.add(found.answers[0][-1])
    assert firsts == {2, 3}


@pytest.mark.parametrize(
    "name", [b"1.2.3.in-addr.arpa", b"1.2.3.4.5.in-addr.arpa", b"a.ip6.arpa", b"web",
             b"\xff.1.1.1.in-addr.arpa", b"300.1.1.1.in-addr.arpa", b"." * 31 + b"0.ip6.arpa"],
)  # fmt: skip
def test_names_that_are_no_addresses(name: bytes) -> None:
    assert parse_reverse(name) is None
