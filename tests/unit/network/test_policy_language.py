"""The languages of policies, of lists and of ports."""

from __future__ import annotations

import pytest

from estiba.model.errors import InvalidArgument
from estiba.network.policy.egress import check_option, parse_egress
from estiba.network.policy.rules import OPEN, parse_policy
from estiba.network.policy.service import Service, nft_matches, parse_service


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("443", "443/tcp"),
        ("53/UDP", "53/udp"),
        ("80-90/sctp", "80-90/sctp"),
        ("icmp", "icmp"),
        ("udp", "udp"),
    ],
)
def test_ports(given: str, said: str) -> None:
    assert str(parse_service(given)) == said
    assert parse_service(said) == parse_service(given)


@pytest.mark.parametrize(
    "given",
    ["", "0", "65536", "9-8", "80/icmp", "80/gre", "a", "-1", "1-2-3", "80/", "٣", "1" * 400],
)
def test_ports_that_make_no_sense(given: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid port"):
        parse_service(given)


def test_ranges_that_overlap_become_one() -> None:
    services = [Service("tcp", 80, 90), Service("tcp", 85, 100), Service("udp", 1, 1)]
    (text,) = nft_matches([*services, Service("tcp", 101, 101)])
    assert text == "meta l4proto . th dport { tcp . 80-101, udp . 1 } "
    assert nft_matches([Service(), *services]) == [""]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none", "none"),
        ("allow=deb.debian.org:443", "allow=deb.debian.org:443/tcp"),
        ("allow=DEB.Debian.ORG.", "allow=deb.debian.org"),
        ("allow=*.debian.org/udp", "allow=*.debian.org/udp"),
        ("allow=10.0.0.0/8", "allow=10.0.0.0/8"),
        ("allow=10.0.0.0/8:443-445/udp", "allow=10.0.0.0/8:443-445/udp"),
        ("allow=10.1.2.3/icmp", "allow=10.1.2.3/icmp"),
        ("allow=2001:db8::1", "allow=2001:db8::1"),
        ("allow=2001:db8::/32/tcp", "allow=[2001:db8::/32]/tcp"),
        ("allow=[2001:db8::1]:443", "allow=[2001:db8::1]:443/tcp"),
        ("allow=*:443, allow=a.example ,allow=a.example", "allow=*:443/tcp,allow=a.example"),
    ],
)
def test_lists(given: str, said: str) -> None:
    found = parse_egress(given)
    assert str(found) == said
    assert parse_egress(said) == found


@pytest.mark.parametrize("given", ["", "open", " , "])
def test_no_list(given: str) -> None:
    assert parse_egress(given) is None


@pytest.mark.parametrize(
    "given",
    [
        "none,allow=a.example", "open,none", "deny=a.example", "allow=", "allow=a b",
        "allow=10.0.0.1/8", "allow=10.0.0.1/33", "allow=a.example:", "allow=a.example:0",
        "allow=-a.example", "allow=a..example", "allow=" + "a." * 130, "allow=a*.example",
        "allow=*.*", "allow=1.2.3.4.5", "allow=[::1", "allow=:443", "allow=a.example/443",
        "allow=a.example;drop", "allow=a\nb", "x" * 20000, ",".join(["allow=a.example"] * 300),
    ],
)  # fmt: skip
def test_lists_that_make_no_sense(given: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_egress(given)


def test_names_on_a_list() -> None:
    found = parse_egress("allow=a.example,allow=*.b.example")
    assert found is not None
    allowed = ("a.example", "x.b.example", "x.y.b.example")
    assert all(found.names(name) for name in allowed)
    others = ("b.example", "xb.example", "x.a.example", "example", "", "a.example.evil")
    assert not any(found.names(name) for name in others)


def test_a_list_needs_a_bridge() -> None:
    check_option({"estiba.egress": "none"}, "bridge")
    check_option({}, "macvlan")
    with pytest.raises(InvalidArgument, match="driver macvlan does not pass"):
        check_option({"estiba.egress": "none"}, "macvlan")


POLICY = """\
# who may talk
default closed
allow from=web,label:tier=api to=db port=5432,6432-6440/tcp   # the pool
deny from=outside,10.0.0.0/8,fd00::1 to=label:"a b=c d"
allow from=container:host,host,network:other to=any port=icmp
egress allow=a.example:443
egress allow=b.example
"""


def test_a_policy_means_what_it_says() -> None:
    policy = parse_policy(POLICY)
    assert policy.lines() == [
        "default closed",
        "allow from=web,label:tier=api to=db port=5432/tcp,6432-6440/tcp",
        "deny from=outside,10.0.0.0/8,fd00::1 'to=label:a b=c d'",
        "allow from=container:host,host,network:other to=any port=icmp",
        "egress allow=a.example:443/tcp,allow=b.example",
    ]
    assert parse_policy("\n".join(policy.lines())) == policy
    assert parse_policy("") == OPEN
    assert parse_policy("egress open").egress == "open"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("default maybe", "a line is"),
        ("default open\ndefault closed", "line 2"),
        ("permit from=a", "a line is"),
        ("allow from=a from=b", "each once"),
        ("allow port=", "each once"),
        ("allow via=a", "expected from="),
        ("allow to=host", "said by `egress`"),
        ("allow to=10.0.0.1", "said by `egress`"),
        ("allow from=a:b", "no peer"),
        ("allow from=a/b", "no peer"),
        ("allow port=70000", "invalid port"),
        ("allow from='a", "line 1"),
        ("egress nothing", "invalid egress"),
        ("allow from=" + ",".join(map(str, range(100))), "more than 64"),
        ("allow\n" * 201, "at most 200"),
        ("#" * 70000, "longer than"),
    ],
)
def test_policies_that_make_no_sense(given: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parse_policy(given)
