"""Policies held to by real packets between real namespaces."""

from __future__ import annotations

import socket
import subprocess
from ipaddress import ip_address
from typing import Any

import pytest
from tests.kernel.network.guarded_host import QUIET_S, Conversation, GuardedHost
from tests.kernel.network.private_host import HOST_ADDRESS, OUTSIDE_ADDRESS
from tests.kernel.network.probes import fixed, ping
from tests.support.daemon import wait_until

from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointSettings
from estiba.model.errors import FailedPrecondition
from estiba.network.firewall.elements import link_local
from estiba.network.links import HostLinks
from estiba.network.policy.members import Facts
from estiba.network.record import Endpoint, NetworkRecord

pytestmark = pytest.mark.kernel


def test_a_closed_network_lets_through_what_its_rules_name(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db port=5432,5432/udp")
    guarded.join("web", "app")
    db = guarded.join("db", "app")
    other = guarded.join("other", "app")
    web, udp = guarded.box("web"), socket.SOCK_DGRAM
    for port in (5432, 5433):
        guarded.listen(guarded.box("db"), port)
        guarded.listen(guarded.box("db"), port, udp)
    assert guarded.reaches(web, db.ip_address, 5432)
    assert guarded.reaches(web, db.ip_address, 5432, udp)
    assert not guarded.passes(web, db.ip_address, 5433)
    assert not guarded.passes(web, db.ip_address, 5433, udp)
    assert not guarded.passes(guarded.box("other"), db.ip_address, 5432)
    guarded.listen(guarded.box("other"), 80)
    assert not guarded.passes(guarded.box("db"), other.ip_address, 80)
    assert not guarded.passes(None, db.ip_address, 5432), "the host was not named"


def test_the_host_is_kept_out_at_every_address(guarded: GuardedHost) -> None:
    network = guarded.make("app", enable_ipv6=True)
    db = guarded.join("db", "app")
    guarded.serve(guarded.box("db"), 80, address="::")
    guarded.listen(guarded.box("db"), 80)
    index = socket.if_nametoindex(network.bridge)

    def reached() -> list[bool]:
        """At its two addresses, and at the one that its interface gave itself."""
        own = str(link_local(db.mac_address)), 80, 0, index
        with socket.socket(socket.AF_INET6) as client:
            client.settimeout(QUIET_S)
            at_own = client.connect_ex(own) == 0
        known = [guarded.passes(None, each, 80) for each in (db.ip_address, db.ipv6_address)]
        return [*known, at_own]

    wait_until(lambda: reached() == [True] * 3, what="the container to answer")
    guarded.allow("app", "default closed")
    assert reached() == [False] * 3
    guarded.allow("app", "default closed\nallow from=host port=80")
    wait_until(lambda: reached() == [True] * 3, what="the container to answer")


def test_egress_none_leaves_the_network_alone(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.facts["web"] = Facts(egress="none")
    web, db = guarded.join("web", "app"), guarded.join("db", "app")
    guarded.listen(guarded.box("db"), 80)
    guarded.listen(None, 81)
    guarded.listen(guarded.outside, 82)
    box = guarded.box("web")
    assert guarded.reaches(box, db.ip_address, 80)
    assert not guarded.passes(box, web.gateway, 81)
    assert not guarded.passes(box, HOST_ADDRESS, 81)
    assert "No route to host" in guarded.refusal(box, OUTSIDE_ADDRESS, 82), "refused at once"
    assert guarded.reaches(guarded.box("db"), OUTSIDE_ADDRESS, 82)
    guarded.listen(box, 83)
    assert guarded.reaches(None, web.ip_address, 83), "answers are no egress"
    guarded.confine("web", "")
    assert guarded.reaches(box, OUTSIDE_ADDRESS, 82)


def test_rules_know_containers_by_alias_label_and_address(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.facts["one"] = Facts({"tier": "web"})
    one = guarded.join("one", "app")
    two = guarded.join("two", "app", settings=EndpointSettings(aliases=["store"]))
    three = guarded.join("three", "app")
    guarded.listen(guarded.box("two"), 80)

    def check(rule: str, *passes: str) -> None:
        guarded.allow("app", f"default closed\n{rule}")
        asked = {"one": guarded.box("one"), "three": guarded.box("three"), "host": None}
        for name, where in asked.items():
            way = guarded.reaches if name in passes else guarded.passes
            assert way(where, two.ip_address, 80) == (name in passes), (rule, name)

    check("allow from=label:tier=web to=store", "one")
    check("allow from=label:tier to=label:tier")
    check(f"allow from={three.ip_address} to=name-two", "three")
    check(f"deny from={one.ip_address}\nallow from=network to=store", "three")
    check("allow from=host to=two", "host")
    check("allow from=any", "one", "three", "host")


def test_a_container_that_comes_later_is_met_by_the_rules(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db port=80")
    db = guarded.join("db", "app")
    guarded.listen(guarded.box("db"), 80)
    guarded.join("other", "app")
    assert not guarded.passes(guarded.box("other"), db.ip_address, 80)
    web = guarded.join("web", "app")
    assert guarded.reaches(guarded.box("web"), db.ip_address, 80)
    guarded.networks.disconnect("web", web)
    thief = guarded.join("thief", "app", settings=fixed(web.ip_address))
    assert thief.ip_address == web.ip_address
    assert not guarded.passes(guarded.box("thief"), db.ip_address, 80), "the name decides"


def test_answers_pass_though_the_one_who_asks_is_closed(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow to=name-db from=name-web")
    db, web = guarded.join("db", "app"), guarded.join("web", "app")
    with Conversation(guarded.box("web"), guarded.box("db"), db.ip_address) as talk:
        assert talk.goes_on()
        guarded.make("more")  # whatever the firewall does for that
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        wait_until(lambda: guarded.counts(), what="the ruleset to be back")
        assert talk.goes_on()
    guarded.listen(guarded.box("web"), 7000)
    assert not guarded.passes(guarded.box("db"), web.ip_address, 7000)


def test_names_let_their_addresses_through_and_no_others(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.facts["web"] = Facts(egress="allow=good.example:443,allow=*.wild.example")
    guarded.join("web", "app")
    policies, box = guarded.policies, guarded.box("web")
    for port in (443, 444):
        guarded.listen(guarded.outside, port)
    assert policies.watches("web")
    assert policies.allows("web", "good.example")
    assert policies.allows("web", "a.b.wild.example")
    for name in ("wild.example", "example", "bad.example", "xgood.example", "notwild.example"):
        assert not policies.allows("web", name), name
    outside = [ip_address(OUTSIDE_ADDRESS)]
    assert not guarded.passes(box, OUTSIDE_ADDRESS, 443)
    policies.answered("web", "good.example", outside, 5)
    assert guarded.reaches(box, OUTSIDE_ADDRESS, 443)
    assert not guarded.passes(box, OUTSIDE_ADDRESS, 444)
    guarded.again()
    guarded.networks.restore(guarded.endpoints)
    assert guarded.reaches(box, OUTSIDE_ADDRESS, 443), "the next engine knows it still"
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: guarded.counts(), what="the ruleset to be back")
    assert guarded.reaches(box, OUTSIDE_ADDRESS, 443)
    guarded.policies.answered("web", "x.wild.example", outside, 5)
    assert guarded.reaches(box, OUTSIDE_ADDRESS, 444)


def test_an_answer_cannot_lead_to_the_host_or_to_metadata(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.facts["web"] = Facts(egress="allow=*")
    guarded.join("web", "app")
    guarded.confine("web", "allow=*.evil.example")
    tricks = ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "224.0.0.1", "0.0.0.0"]
    guarded.policies.answered("web", "x.evil.example", [ip_address(t) for t in tricks], 5)
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    for trick in tricks[1:]:
        assert f"{trick} timeout" not in listed.stdout


def test_no_window_at_a_restart_and_none_after_a_flush(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db port=80")
    guarded.facts["web"] = Facts(egress="none")
    db = guarded.join("db", "app")
    guarded.join("web", "app")
    guarded.join("other", "app")
    guarded.listen(guarded.box("db"), 80)
    guarded.listen(guarded.outside, 80)
    assert not guarded.passes(guarded.box("other"), db.ip_address, 80)
    before = {count.point.tag: count.packets for count in guarded.policies.counts()}
    guarded.again()
    for _ in range(2):
        assert not guarded.passes(guarded.box("other"), db.ip_address, 80)
        assert not guarded.passes(guarded.box("web"), OUTSIDE_ADDRESS, 80)
        assert guarded.reaches(guarded.box("web"), db.ip_address, 80)
        guarded.networks.restore(guarded.endpoints)
    after = {count.point.tag: count.packets for count in guarded.policies.counts()}
    assert all(after[tag] >= packets for tag, packets in before.items()), "counters are kept"
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: guarded.counts(), what="the ruleset to be back")
    assert not guarded.passes(guarded.box("other"), db.ip_address, 80)


def test_what_is_denied_is_told_by_name_and_a_flood_is_not_told(
    guarded: GuardedHost, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed")
    db, web = guarded.join("db", "app"), guarded.join("web", "app")

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(5000):
                client.sendto(b"x", (db.ip_address, 9))

    run_in_netns(guarded.box("web"), flood)
    line = f"name-web ({web.ip_address}) → name-db 9/udp: default closed"
    wait_until(lambda: line in caplog.text, what="the line of the log")

    def denied() -> int:
        (count,) = [c for c in guarded.policies.counts() if c.point.member.name == "name-db"]
        return count.packets

    wait_until(lambda: denied() == 5000, what="all of them to be counted")
    assert caplog.text.count("denied") <= 12


def test_a_network_that_passes_no_firewall_cannot_be_confined(guarded: GuardedHost) -> None:
    guarded.facts["web"] = Facts(egress="none")
    with pytest.raises(FailedPrecondition, match="use a bridge network"):
        guarded.join("web", "host")
    guarded.make("loose", options={"estiba.anti-spoofing": "false"})
    with pytest.raises(FailedPrecondition, match="anti-spoofing"):
        guarded.join("web", "loose")
    guarded.join("web", "none")
    with pytest.raises(FailedPrecondition, match="policies need a bridge"):
        guarded.allow("host", "default closed")


def test_nothing_is_left_when_policies_and_containers_go(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db port=80")
    for _ in range(2):
        endpoints = [guarded.join(name, "app") for name in ("db", "web")]
        for endpoint in endpoints:
            guarded.networks.disconnect(endpoint.container_id, endpoint)
            guarded.networks.disconnect(endpoint.container_id, endpoint)
    guarded.networks.drain()
    guarded.networks.remove("app")
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert "policy_" not in listed.stdout
    assert guarded.store.load("policy") == []


def test_rules_are_there_before_the_link_of_a_container_that_runs(
    guarded: GuardedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed")
    guarded.facts["web"] = Facts(egress="none", runs=True)
    seen: list[bool] = []
    made = HostLinks.add_pair

    def add_pair(links: HostLinks, network: NetworkRecord, index: int, *of: Any) -> None:
        listed = guarded.command(None, "nft", "list", "ruleset")
        link = of[0].host_interface
        seen.append(f'"{link}" : jump policy_i_{link}' in listed and f"policy_e_{link}" in listed)
        made(links, network, index, *of)

    monkeypatch.setattr(HostLinks, "add_pair", add_pair)
    guarded.join("web", "app")
    assert seen == [True]


def test_a_connection_that_fails_leaves_no_rules(
    guarded: GuardedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed")

    def add_pair(*_: Any) -> None:
        raise FailedPrecondition("no link today")

    monkeypatch.setattr(HostLinks, "add_pair", add_pair)
    with pytest.raises(FailedPrecondition, match="today"):
        guarded.join("web", "app")
    assert "policy_i_" not in guarded.command(None, "nft", "list", "ruleset")


def test_who_asks_too_much_harms_nobody_else(guarded: GuardedHost) -> None:
    """Questions are noted within a bridge, so that answers pass: for each container apart."""
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=network to=name-db")
    db = guarded.join("db", "app")
    guarded.join("web", "app")
    guarded.join("other", "app")
    guarded.listen(guarded.box("db"), 53, socket.SOCK_DGRAM)

    def ask_all_ports_twice() -> None:
        for _ in range(2):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for port in range(1, 65536):
                    client.sendto(b"x", (db.ip_address, port))

    run_in_netns(guarded.box("web"), ask_all_ports_twice)
    assert guarded.reaches(guarded.box("other"), db.ip_address, 53, socket.SOCK_DGRAM)


def test_answers_are_awaited_over_a_restart(guarded: GuardedHost) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=name-web to=name-db")
    db = guarded.join("db", "app")
    guarded.join("web", "app")
    with Conversation(guarded.box("web"), guarded.box("db"), db.ip_address) as talk:
        assert talk.goes_on()
        guarded.again()
        guarded.networks.restore(guarded.endpoints)
        assert talk.is_answered(), "though the one who asked says nothing more"


def test_a_renamed_container_is_met_by_its_new_name_and_never_without_rules(
    guarded: GuardedHost,
) -> None:
    guarded.make("app")
    guarded.allow("app", "default closed\nallow from=new to=name-db port=80")
    db = guarded.join("db", "app")
    guarded.join("web", "app")
    guarded.listen(guarded.box("db"), 80)
    assert not guarded.passes(guarded.box("web"), db.ip_address, 80)
    left = guarded.policies.left
    seen: list[bool] = []

    def watched(endpoint: Endpoint) -> None:
        left(endpoint)
        seen.append(guarded.passes(guarded.box("web"), db.ip_address, 80))

    guarded.policies.left = watched  # type: ignore[method-assign]
    guarded.networks.rename("web", "new")
    assert seen == [False]
    assert guarded.reaches(guarded.box("web"), db.ip_address, 80)


def test_no_kind_of_icmp_is_a_way_out(guarded: GuardedHost) -> None:
    """Answers that nobody asked for, and neighbour discovery for those who are none."""
    guarded.make("app", enable_ipv6=True)
    guarded.facts["web"] = Facts(egress="none")
    endpoint = guarded.join("web", "app")
    kinds6 = (1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143)
    kinds4 = (0, 3, 8, 11, 12, 13, 14)

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as six:
            for kind in kinds6:
                six.sendto(bytes([kind, 0, 0, 0]) + b"secret" * 10, ("2001:db8::1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as four:
            for kind in kinds4:
                body = bytes([kind, 0, 0, 0]) + b"secret" * 10
                four.sendto(body, (OUTSIDE_ADDRESS, 0))

    run_in_netns(guarded.box("web"), send)

    def denied() -> int:
        (count,) = (c for c in guarded.policies.counts() if c.point.rule.startswith("egress none"))
        return count.packets

    # Advertisements and redirects are dropped before, as pretence; the first wait for the link.
    wanted = len(kinds6) + len(kinds4) - 3
    wait_until(lambda: denied() >= wanted, what="all of them to be denied")
    assert ping(guarded.box("web"), endpoint.ipv6_gateway, 1) is False
    guarded.confine("web", "allow=*")
    assert ping(guarded.box("web"), endpoint.ipv6_gateway), "neighbour discovery works"
